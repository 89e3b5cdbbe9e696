"""What the doctor found: one noun, and the exit code of many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from npc_local.core.errors import ModelFilesError, NpcError
from npc_local.core.files.fault import Fault

Level = Literal["ok", "note", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found: how bad, what, where, and what to do about it.

    `kind` is the error that a run would end in; it gives the exit code of a finding of level
    "error" and means nothing for the others.
    """

    level: Level
    what: str
    where: str = ""
    do: str = ""
    kind: type[NpcError] = ModelFilesError

    def as_data(self) -> dict[str, Any]:
        """Return the finding as plain data; `exit_code` only where it is an error."""
        data = {"level": self.level, "what": self.what, "where": self.where, "do": self.do}
        return data | ({"exit_code": self.kind.exit_code} if self.level == "error" else {})


def error(
    what: str, where: object = "", do: str = "", kind: type[NpcError] = ModelFilesError
) -> Finding:
    """Return a finding that stops a run."""
    return Finding("error", what, str(where), do, kind)


def from_exception(caught: NpcError, where: Path | str = "") -> Finding:
    """Return what an exception says; its message ends in what to do, after a semicolon."""
    text = str(caught)
    for prefix in (f"{where}: ", f"{where}/"):
        text = text.removeprefix(prefix)
    what, _, do = text.partition("; ")
    return error(what, where, do, type(caught))


def from_fault(fault: Fault) -> Finding:
    """Return what a fault of a model directory says."""
    what, do = fault.what, fault.do
    if not do:
        what, _, do = what.partition("; ")
    return error(what, fault.where, do, fault.kind)


def guarded(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield findings; a file that cannot be read on the way ends them with one more."""
    try:
        yield from findings
    except NpcError as caught:
        yield from_exception(caught)
    except OSError as caught:
        what = f"cannot be read ({caught.strerror or caught})"
        yield error(what, caught.filename or "", "check its permissions")


def exit_code(findings: Iterable[Finding]) -> int:
    """Return the exit code of the first error, or 0."""
    errors = (finding.kind.exit_code for finding in findings if finding.level == "error")
    return next(errors, 0)
