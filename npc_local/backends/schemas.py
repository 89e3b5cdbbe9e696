"""What agents must answer, described once: a pydantic model.

The model makes the JSON schema that a server decodes under (`json_schema`) and validates what came
back (`validate`), so that nothing passes the one and fails the other. Servers differ in which
keywords they compile, ignore or refuse, and open objects invite answers under invented keys: the
schemas are closed, flat, without references, and of few keywords, which `lint` proves.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

Text = Annotated[str, StringConstraints(strip_whitespace=True)]
NonEmpty = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]

_SHOWN = 3  # faults of one answer that a message names
_KEYWORDS = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems", "maxItems"},
    "string": {"enum", "minLength"},
    "number": {"minimum", "maximum"},
    "integer": {"minimum", "maximum", "enum"},
    "boolean": set[str](),
}
_COUNTS = {"minItems", "maxItems", "minLength"}
_ANNOTATIONS = {"title", "description", "default", "$defs"}  # of pydantic's; no say in an answer
_SCALARS = _KEYWORDS.keys() - {"object", "array"}
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
}


class ReplyData(BaseModel):
    """What an answer must be: exactly these keys, exactly these types, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


ShapeT = TypeVar("ShapeT", bound=BaseModel)


def validate(shape: type[ShapeT], data: object) -> ShapeT:
    """Return parsed JSON as the model that it must be.

    Raises:
        ValueError: it does not fit; the message says where and why.
    """
    try:
        return shape.model_validate(data)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc']))[:60] or 'reply'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        ]
        if len(faults) > _SHOWN:
            faults[_SHOWN:] = [f"and {len(faults) - _SHOWN} more faults"]
        raise ValueError("; ".join(faults)) from error


def json_schema(shape: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of a model, references written out.

    Raises:
        ValueError: some server would not take it (`lint`): a mistake in the model.
    """
    whole = shape.model_json_schema()
    schema = _inlined(whole, whole.get("$defs", {}))
    lint(schema)
    return schema


def _inlined(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        schema = definitions[schema["$ref"].removeprefix("#/$defs/")]
    inlined = {key: value for key, value in schema.items() if key not in _ANNOTATIONS}
    if "const" in inlined:
        inlined["enum"] = [inlined.pop("const")]
    if "properties" in inlined:
        properties = inlined["properties"].items()
        inlined["properties"] = {name: _inlined(each, definitions) for name, each in properties}
    if "items" in inlined:
        inlined["items"] = _inlined(inlined["items"], definitions)
    return inlined


def without(schema: Mapping[str, Any], keywords: Collection[str]) -> dict[str, Any]:
    """Return a linted schema less some keywords, at every depth; properties so named stay."""
    left = {key: value for key, value in schema.items() if key not in keywords}
    if "properties" in left:
        properties = left["properties"].items()
        left["properties"] = {name: without(inner, keywords) for name, inner in properties}
    if "items" in left:
        left["items"] = without(left["items"], keywords)
    return left


def lint(schema: Mapping[str, Any]) -> None:
    """Prove that a schema is one that every server takes.

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


def _lint_type(schema: object, path: str) -> str:
    """Return a schema's type, its keywords and their values checked."""
    kind = schema.get("type") if isinstance(schema, Mapping) else None
    if not isinstance(schema, Mapping) or not isinstance(kind, str) or kind not in _KEYWORDS:
        raise ValueError(f"{path}: type must be one of {', '.join(_KEYWORDS)}")
    unknown = schema.keys() - _KEYWORDS[kind] - {"type"}
    if unknown:
        raise ValueError(f"{path}: {kind} takes no {', '.join(sorted(unknown))} here")
    if "enum" in schema:
        values = schema["enum"]
        if not isinstance(values, list) or not values or not all(_is(kind, v) for v in values):
            raise ValueError(f"{path}: enum must list {kind} values")
    for bound in _COUNTS & schema.keys():
        if not _is("integer", schema[bound]) or schema[bound] < 0:
            raise ValueError(f"{path}: {bound} must be a count")
    for bound in {"minimum", "maximum"} & schema.keys():
        if not _is(kind, schema[bound]):
            raise ValueError(f"{path}: {bound} must be a {kind}")
    return kind


def _is(kind: str, value: object) -> bool:
    return isinstance(value, _TYPES[kind]) and not isinstance(value, bool)
