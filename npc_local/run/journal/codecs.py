"""Records as plain JSON data and back, exactly; never pickle.

A render is its numbers, as data, and its image, beside them.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

from PIL.Image import Image
from pydantic import TypeAdapter, ValidationError

from npc_local.core.records import Render

T = TypeVar("T")


class Unreadable(Exception):
    """Data that is none of the wanted record: of an older version of it, for example."""


class Codec(Protocol[T]):
    """Takes records of one type apart and puts them together again."""

    def apart(self, value: T) -> tuple[Any, Image | None]:
        """Return a record as JSON data, and its image if it has one."""
        ...

    def together(self, data: Any, image: Image | None) -> T:
        """Return the record that was taken apart, or raise `Unreadable`."""
        ...

    def kept_in(self, file: Path, value: T) -> T:
        """Return a record that knows the file of its image, if it has one."""
        ...


def codec_of(shape: type[T]) -> Codec[T]:
    """Return the codec of a type."""
    return cast(Codec[T], _codec_of(cast(Hashable, shape)))


@cache
def _codec_of(shape: Any) -> object:
    return _RenderCodec() if shape is Render else _DataCodec(shape)


class _DataCodec(Generic[T]):
    """Of what pydantic knows: dataclasses, tuples, numbers, texts."""

    def __init__(self, shape: type[T]) -> None:
        self._adapter = TypeAdapter(shape)

    def apart(self, value: T) -> tuple[Any, None]:
        return self._adapter.dump_python(value, mode="json"), None

    def together(self, data: Any, image: Image | None) -> T:
        try:
            return self._adapter.validate_python(data)
        except ValidationError as error:
            raise Unreadable(str(error)) from error

    def kept_in(self, file: Path, value: T) -> T:
        return value


@dataclass(frozen=True, slots=True)
class _Numbers:
    """A render without its image."""

    forwards: int
    seconds: float
    fallbacks: tuple[str, ...]


class _RenderCodec:
    """Of a render."""

    def __init__(self) -> None:
        self._numbers = _DataCodec(_Numbers)

    def apart(self, value: Render) -> tuple[Any, Image]:
        numbers = _Numbers(value.forwards, value.seconds, value.fallbacks)
        return self._numbers.apart(numbers)[0], value.image

    def together(self, data: Any, image: Image | None) -> Render:
        numbers = self._numbers.together(data, None)
        if image is None:
            raise Unreadable("a render without its image")
        return Render(image, numbers.forwards, numbers.seconds, numbers.fallbacks)

    def kept_in(self, file: Path, value: Render) -> Render:
        return replace(value, file=file)
