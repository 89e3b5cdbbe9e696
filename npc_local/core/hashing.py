"""One digest of what determines an answer: plain data, pixels, source code."""

from __future__ import annotations

import ast
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any, TypeGuard

from PIL.Image import Image
from pydantic_core import to_jsonable_python

_PACKAGE = Path(__file__).resolve().parents[1]
_WITH_DOCSTRING = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def plain(value: object) -> Any:
    """Return records, mappings and images as JSON data; an image counts by its pixels.

    Raises:
        ValueError: something in it has no such form.
    """
    return to_jsonable_python(value, inf_nan_mode="constants", fallback=_fallback)


def canonical(value: object) -> str:
    """Return the one JSON text of `value`, in ASCII.

    Raises:
        ValueError: it holds a number that is not finite, or something that is no JSON.
    """
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: object) -> str:
    """Return the SHA-256 of the canonical JSON of `value`; errors as `canonical`."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def pixel_hash(image: Image) -> str:
    """Return the SHA-256 of an image's mode, size and pixels, however it is stored."""
    head = f"{image.mode} {image.width}x{image.height}\n".encode()
    return hashlib.sha256(head + image.tobytes()).hexdigest()


@cache
def code_digest(*parts: str) -> str:
    """Return the SHA-256 over what source files and templates of this package say.

    Comments, docstrings, layout, and where a file lies or is imported from say nothing: a run that
    was begun before such a change goes on after it.

    Args:
        parts: files, folders and glob patterns, relative to the package.

    Raises:
        ValueError: a part names no file.
    """
    contents: list[str] = []
    for part in parts:
        files = [
            file
            for place in _PACKAGE.glob(part)
            for file in (place.rglob("*") if place.is_dir() else [place])
            if file.suffix in (".py", ".txt")
        ]
        if not files:
            raise ValueError(f"{part!r} names no source file of this package")
        contents += [_said(file.read_text(encoding="utf-8"), file.suffix) for file in set(files)]
    return digest(sorted(contents))


def _said(text: str, suffix: str) -> str:
    """Return the part of a file that has a say: of Python its syntax tree, of a template all."""
    return repr(_meaning(ast.parse(text))) if suffix == ".py" else text


def _meaning(node: object) -> object:
    """Return a syntax tree as lists, without what says nothing, whichever Python has parsed it.

    `ast.dump` would not do: later versions of Python have further fields, and leave out empty ones.
    """
    if isinstance(node, list):
        imports = [each for each in node if _is_ours(each)]
        names = sorted(
            (alias.name, alias.asname or "") for each in imports for alias in each.names
        )  # not their order, which is that of the modules' names
        return [names, *(_meaning(each) for each in node if each not in imports)]
    if not isinstance(node, ast.AST):
        return node
    fields = dict(ast.iter_fields(node))
    fields.pop("kind", None)  # whether a string is written u"..."
    if isinstance(node, _WITH_DOCSTRING) and ast.get_docstring(node, clean=False) is not None:
        fields["body"] = node.body[1:]
    said = [(name, _meaning(value)) for name, value in sorted(fields.items()) if _is_there(value)]
    return [type(node).__name__, *said]


def _is_there(value: object) -> bool:
    return value is not None and value != []


def _is_ours(node: object) -> TypeGuard[ast.ImportFrom]:
    """Whether it imports names of this package; from which of its modules says nothing."""
    return isinstance(node, ast.ImportFrom) and (node.module or "").startswith("npc_local")


def _fallback(value: object) -> object:
    if isinstance(value, Image):
        return {"pixels": pixel_hash(value)}
    raise ValueError(f"{type(value).__name__} has no place in a key")
