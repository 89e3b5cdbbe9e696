"""Standard output and standard error that neither end the work nor hold it up.

A disk runs full, a reader leaves or stops reading, a terminal goes away: that is no reason for a
run to end or to wait. `steady_streams` puts a stream of ours in place of `sys.stdout` and
`sys.stderr` for as long as a command takes, each with a thread that does the writing, so whoever
prints, libraries included, goes on as ever and need not know:

- Standard error is for the eye. What cannot be written is dropped, and is no error.
- Standard output has results. They wait in memory for a slow reader; `Streams.lost` says whether
  they could not be written, which the command line turns into exit code 7.

A write returns once it is out, so that nothing changes its order, unless the reader keeps it
waiting: then nobody waits again until the reader has caught up. Left out: what C libraries write to
descriptor 2 themselves, and the wording of errors.
"""

from __future__ import annotations

import io
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_PATIENCE = 0.2  # seconds that a write waits for its reader
_FAREWELL = 1.0  # seconds that the last lines for the eye may take
_UNREAD = 2**18  # bytes that are kept for an eye that does not follow


@contextmanager
def steady_streams() -> Iterator[Streams]:
    """Put streams that neither fail nor block in place of this process's own two."""
    _fill_gaps()
    before = sys.stdout, sys.stderr
    output = Writer(1, "<stdout>", keep=True)
    errors = Writer(2, "<stderr>", keep=False)
    sys.stdout, sys.stderr = _text(output, before[0]), _text(errors, before[1])
    try:
        yield Streams(output)
    finally:
        errors.flush_for(_FAREWELL)
        sys.stdout, sys.stderr = before


def _fill_gaps() -> None:
    """Open what this process was started without, so that no file of ours gets its number.

    Writing to it fails all the same: it is open for reading.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # takes the lowest number that is free


def _text(writer: Writer, before: TextIO | None) -> TextIO:
    """Return a text stream like the one of before that shows what its encoding lacks as escapes."""
    encoding = getattr(before, "encoding", None) or "utf-8"
    return io.TextIOWrapper(
        writer, encoding=encoding, errors="backslashreplace", line_buffering=True
    )


class Streams:
    """What has become of the results of one command."""

    def __init__(self, output: Writer) -> None:
        """Take what writes to standard output."""
        self._output = output

    @property
    def lost(self) -> OSError | None:
        """Why results could not be written; None: all could, so far."""
        return self._output.error

    def deliver(self) -> None:
        """Wait until the results are out, or lost: as long as their reader takes."""
        sys.stdout.flush()
        self._output.flush_for(None)


class Writer(io.RawIOBase):
    """Writes bytes to a descriptor in a thread of its own, in order."""

    def __init__(self, descriptor: int, name: str, *, keep: bool) -> None:
        """Take where to write.

        Args:
            descriptor: of an open file.
            name: what the stream is called.
            keep: whether all is kept for a slow reader, and an error is the end; else what cannot
                be written is dropped.
        """
        super().__init__()
        self.name = name
        self.error: OSError | None = None  # the first one
        self._descriptor = descriptor
        self._keep = keep
        self._pending: deque[bytes] = deque()
        self._size = 0
        self._followed = True  # whether the reader is known to read
        self._changed = threading.Condition()  # with a lock that a signal handler may take again
        self._forked = False
        os.register_at_fork(after_in_child=self._fork)  # the thread stays with the parent
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def _fork(self) -> None:
        self._forked = True

    def writable(self) -> bool:
        """Always."""
        return True

    def fileno(self) -> int:
        """Return the descriptor that is written to in the end."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return whether that is a terminal."""
        return os.isatty(self._descriptor)

    def write(self, data: ReadableBuffer) -> int:
        """Hand data over, and wait for it to be written unless the reader is known not to read."""
        content = bytes(data)
        if self._forked:
            self._put(content)
            return len(content)
        with self._changed:
            if self._takes(len(content)):
                self._pending.append(content)
                self._size += len(content)
                self._changed.notify_all()
                self._followed = self._followed and self._wait(_PATIENCE)
        return len(content)

    def _takes(self, size: int) -> bool:
        if self._keep:  # after a gap the rest would be read wrongly
            return self.error is None
        return not self._pending or self._size + size <= _UNREAD

    def flush_for(self, seconds: float | None) -> None:
        """Wait until all is written or lost, at most so long; None: as long as it takes."""
        with self._changed:
            self._wait(seconds)

    def _wait(self, seconds: float | None) -> bool:
        return self._changed.wait_for(lambda: not self._pending, seconds)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending)
                content = self._pending[0]
            error = self._put(content)
            with self._changed:
                self._pending.popleft()
                self._size -= len(content)
                self.error = self.error or error
                if self._keep and error is not None:
                    self._pending.clear()
                if not self._pending:
                    self._followed = True
                    self._changed.notify_all()

    def _put(self, content: bytes) -> OSError | None:
        rest = memoryview(content)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # somebody who shares the file has set it so
                select.select([], [self._descriptor], [])
            except OSError as error:
                return error
        return None
