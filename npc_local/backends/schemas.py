"""The JSON schemas that constrain agents: a small subset that every server takes, and its checker.

Servers differ in which keywords they compile, ignore or refuse, and open objects invite answers
under invented keys. So schemas are flat and closed, which `lint` proves where they are defined,
and replies are checked against them here as well, whatever the server promised. jsonschema would
do that too, for five more packages, one of them compiled.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from typing import Any

_NUMBERS = {"minimum", "maximum"}
_KEYWORDS = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems", "maxItems"},
    "string": {"enum", "pattern"},
    "number": _NUMBERS,
    "integer": _NUMBERS | {"enum"},
    "boolean": set[str](),
}
_SCALARS = _KEYWORDS.keys() - {"object", "array"}
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
}


def lint(schema: Mapping[str, Any]) -> None:
    """Prove that a schema is one that every server takes; run where schemas are defined.

    That is a closed object, all its properties required, each a scalar, a list of scalars, or a
    list of closed objects of scalars.

    Raises:
        ValueError: it is not; the message says where.
    """
    _lint_object(schema, "schema", lists=True)


def _lint_object(schema: object, path: str, *, lists: bool) -> None:
    if _lint_type(schema, path) != "object" or not isinstance(schema, Mapping):
        raise ValueError(f"{path}: must be an object")
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or not properties:
        raise ValueError(f"{path}: an object needs properties")
    required = schema.get("required")
    if not isinstance(required, list) or sorted(required) != sorted(properties):
        raise ValueError(f"{path}: required must list all properties")
    if schema.get("additionalProperties") is not False:
        raise ValueError(f"{path}: additionalProperties must be false")
    for name, inner in properties.items():
        where = f"{path}.{name}"
        kind = _lint_type(inner, where)
        if kind == "array" and lists:
            _lint_array(inner, where)
        elif kind not in _SCALARS:
            raise ValueError(f"{where}: {kind} is nested too deeply")


def _lint_array(schema: Mapping[str, Any], path: str) -> None:
    items = schema.get("items")
    if _lint_type(items, f"{path}[]") not in _SCALARS:
        _lint_object(items, f"{path}[]", lists=False)
    for bound in ("minItems", "maxItems"):
        if bound in schema and (type(schema[bound]) is not int or schema[bound] < 0):
            raise ValueError(f"{path}: {bound} must be a count")


def _lint_type(schema: object, path: str) -> str:
    """Return a schema's type, its keywords and their values checked."""
    kind = schema.get("type") if isinstance(schema, Mapping) else None
    if not isinstance(schema, Mapping) or not isinstance(kind, str) or kind not in _KEYWORDS:
        raise ValueError(f"{path}: type must be one of {', '.join(_KEYWORDS)}")
    unknown = schema.keys() - _KEYWORDS[kind] - {"type", "description"}
    if unknown:
        raise ValueError(f"{path}: {kind} takes no {', '.join(sorted(unknown))} here")
    if "enum" in schema:
        values = schema["enum"]
        if not isinstance(values, list) or not values or not all(_is(kind, v) for v in values):
            raise ValueError(f"{path}: enum must list {kind} values")
    for bound in _NUMBERS & schema.keys():
        if not _is(kind, schema[bound]):
            raise ValueError(f"{path}: {bound} must be a {kind}")
    if "pattern" in schema:
        pattern = schema["pattern"]
        # Grammars match the whole string, JSON schema any part of it: anchored, both mean the same.
        if not (isinstance(pattern, str) and pattern.startswith("^") and pattern.endswith("$")):
            raise ValueError(f"{path}: pattern must start with ^ and end with $")
        re.compile(pattern)
    return kind


def _is(kind: str, value: object) -> bool:
    return isinstance(value, _TYPES[kind]) and (kind == "boolean") == isinstance(value, bool)


def without(schema: Mapping[str, Any], keywords: Collection[str]) -> dict[str, Any]:
    """Return a linted schema less some keywords, at every depth; properties so named stay."""
    kept = {key: value for key, value in schema.items() if key not in keywords}
    if "properties" in kept:
        properties = kept["properties"].items()
        kept["properties"] = {name: without(inner, keywords) for name, inner in properties}
    if "items" in kept:
        kept["items"] = without(kept["items"], keywords)
    return kept


def read_object(text: str) -> dict[str, Any]:
    """Return the object that `text`, all of it, is in strict JSON.

    Raises:
        ValueError: fences or prose around it, NaN or infinity, a key twice, half a surrogate pair,
            something other than an object.
    """
    try:
        data = json.loads(
            text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_once
        )
        json.dumps(data, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos}") from error
    except UnicodeEncodeError as error:
        raise ValueError("half a surrogate pair in a string") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")
    return data


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:20]} is beyond what a number can hold")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        raise ValueError("a key appears twice")
    return data


def check(schema: Mapping[str, Any], data: object, path: str = "reply") -> None:
    """Check data against a linted schema. A number with a fraction, even .0, is no integer.

    Raises:
        ValueError: it does not fit; the message says where and why.
    """
    kind = schema["type"]
    if not _is(kind, data):
        raise ValueError(f"{path}: must be of type {kind}")
    if isinstance(data, dict):
        properties = schema["properties"]
        if wrong := sorted(properties.keys() ^ data.keys()):
            name = wrong[0]
            raise ValueError(
                f"{path}: {name[:60]!r} {'missing' if name in properties else 'extra'}"
            )
        for name, value in data.items():
            check(properties[name], value, f"{path}.{name}")
    elif isinstance(data, list):
        if not schema.get("minItems", 0) <= len(data) <= schema.get("maxItems", math.inf):
            raise ValueError(f"{path}: {len(data)} items are too few or too many")
        for index, value in enumerate(data):
            check(schema["items"], value, f"{path}[{index}]")
    else:
        _check_scalar(schema, data, path)


def _check_scalar(schema: Mapping[str, Any], data: Any, path: str) -> None:
    if "enum" in schema and data not in schema["enum"]:
        raise ValueError(f"{path}: must be one of {', '.join(map(str, schema['enum']))}")
    if "pattern" in schema and not re.fullmatch(schema["pattern"], data):
        raise ValueError(f"{path}: must match {schema['pattern']}")
    if ("minimum" in schema and data < schema["minimum"]) or (
        "maximum" in schema and data > schema["maximum"]
    ):
        bounds = f"{schema.get('minimum', '')}..{schema.get('maximum', '')}"
        raise ValueError(f"{path}: {data} is not within {bounds}")
