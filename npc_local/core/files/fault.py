"""What stops a model from being loaded, as a value: raised by a loader, listed by a doctor."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from npc_local.core.errors import ModelFilesError, NpcError
from npc_local.core.files import paths

AGAIN = "copy or download the model directory again"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that stops a model from being loaded: where, what, and what to do about it.

    `do` is empty where `what` says it.
    """

    where: Path
    what: str
    do: str = AGAIN
    kind: type[NpcError] = ModelFilesError

    def error(self) -> NpcError:
        """Return the fault as an exception."""
        return self.kind(f"{paths.shown(self.where)}: {self.what}{self.do and f'; {self.do}'}")


Faults = Iterator[Fault]


def raise_first(faults: Iterable[Fault]) -> None:
    """Raise the first fault, if there is one.

    Raises:
        NpcError: of the fault's kind.
    """
    for fault in faults:
        raise fault.error()


def json_faults(file: Path) -> Faults:
    """Yield a fault if a file holds no JSON object."""
    content = read_object(file)
    if isinstance(content, Fault):
        yield content


def read_json(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file of a model directory.

    Raises:
        ModelFilesError: the file is missing, unreadable, or holds no JSON object.
    """
    content = read_object(file)
    if isinstance(content, Fault):
        raise content.error()
    return content


def read_object(file: Path) -> dict[str, Any] | Fault:
    """Return the object in a JSON file, or what is wrong with the file."""
    try:
        if not paths.exists(file, ModelFilesError):
            return Fault(file, "missing")
        content = json.loads(paths.read(file, ModelFilesError))
    except ModelFilesError as error:
        return Fault(
            file, str(error).removeprefix(f"{paths.shown(file)}: "), "check its permissions"
        )
    except (ValueError, RecursionError) as error:
        return Fault(file, f"cannot be read, damaged ({error})")
    return content if isinstance(content, dict) else Fault(file, "damaged, holds no JSON object")


def has_file(folder: Path, name: str) -> bool:
    """Return whether a regular file of that name is in a folder."""
    return paths.is_file(folder / name, ModelFilesError)
