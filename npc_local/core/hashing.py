"""One digest of what determines an answer: plain data, pixels, source code."""

from __future__ import annotations

import ast
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from PIL.Image import Image
from pydantic_core import to_jsonable_python

_PACKAGE = Path(__file__).resolve().parents[1]


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
    return ast.dump(_Meaning().visit(ast.parse(text))) if suffix == ".py" else text


class _Meaning(ast.NodeTransformer):
    """Takes docstrings out of a syntax tree, and the modules that this package's names are from."""

    def visit(self, node: ast.AST) -> Any:
        """Return the node without what says nothing."""
        if isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        ) and ast.get_docstring(node, clean=False):
            node.body = node.body[1:]
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("npc_local"):
            names = sorted(node.names, key=lambda alias: (alias.name, alias.asname or ""))
            return [ast.ImportFrom("npc_local", [alias], level=0) for alias in names]
        return self.generic_visit(node)


def _fallback(value: object) -> object:
    if isinstance(value, Image):
        return {"pixels": pixel_hash(value)}
    raise ValueError(f"{type(value).__name__} has no place in a key")
