"""The log of a server: the user's file or a temporary one, and what was written since a start."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from npc_local.core.errors import BackendError
from npc_local.core.files import paths

_TAIL_LINES, _TAIL_BYTES = 15, 6000


class ServerLog:
    """A file that a server's output is added to; temporary ones go unless somebody was shown them.

    Attributes:
        path: the file, absolute; None for a temporary one that has not been needed yet.
        kept: whether it outlives `discard`.
    """

    def __init__(self, name: str, path: Path | None) -> None:
        """Take the backend's name and the user's file, if there is one."""
        self.path = None if path is None else paths.absolute(path)
        self.kept = path is not None
        self._name = name
        self._start = 0  # bytes before what is looked at

    def open(self) -> Path:
        """Return the path, its directory made; what is in it already is not looked at.

        Raises:
            OSError: it cannot be written.
        """
        if self.path is None:
            prefix = f"npc-local-{re.sub(r'[^A-Za-z0-9_-]+', '-', self._name)}-"
            with tempfile.NamedTemporaryFile(prefix=prefix, suffix=".log", delete=False) as file:
                self.path = paths.absolute(Path(file.name))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.skip()
        return self.path

    def skip(self) -> None:
        """Look only at what comes from now on."""
        if self.path is not None:
            self._start = self.path.stat().st_size if paths.exists(self.path, BackendError) else 0

    def lines(self) -> Iterator[str]:
        """Yield what was written, without blank lines."""
        return self._lines(self._start)

    def tail(self) -> list[str]:
        """Return the last lines of it."""
        if self.path is None or not paths.exists(self.path, BackendError):
            return []
        start = max(self._start, self.path.stat().st_size - _TAIL_BYTES)
        return list(self._lines(start))[-_TAIL_LINES:]

    def _lines(self, start: int) -> Iterator[str]:
        if self.path is None or not paths.exists(self.path, BackendError):
            return
        with self.path.open("rb") as file:
            file.seek(start)
            for line in file:
                if text := line.decode("utf-8", "replace").rstrip():
                    yield text

    def discard(self) -> None:
        """Remove a temporary file that nobody was shown."""
        if self.path is not None and not self.kept:
            self.path.unlink(missing_ok=True)
            self.path = None
