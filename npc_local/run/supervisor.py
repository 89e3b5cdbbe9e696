"""A run in a child process, which is started again when it dies and goes on from its journal.

The child is this very command line once more. It prints through its parent, which so knows what
has been printed already, and tells it what it is doing. A run that is stopped on purpose stays
stopped. What a run is, and how it goes on, is left to whoever has the journal.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from npc_local.core.errors import INTERRUPTED, DeviceLostError, NpcError
from npc_local.core.files.atomic import cannot_write
from npc_local.run.journal import database as journal_file

RESTARTS = 3
"""Times that a run is started again without a step more in its journal."""

_VARIABLE = "NPC_LOCAL_SUPERVISED"
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SHOWN = 3  # steps under way that an error names


def can_supervise(arguments: Sequence[str]) -> bool:
    """Whether a command with these arguments is this process's command line, and not a child's."""
    ours = tuple(arguments) == tuple(sys.argv[1:]) and bool(sys.executable)
    return ours and _VARIABLE not in os.environ


def supervise(directory: Path, on_status: Callable[[str], None], content: bytes = b"") -> int:
    """Have a child do this command line's work in `directory`; return its exit code.

    A child that dies by a signal, or loses its GPU, is started again. SIGINT and SIGTERM go to the
    child, which then ends in its own way.

    Args:
        directory: the run directory, absolute; the journal in it says whether a child got further.
        on_status: is told of each death.
        content: what a child need not read again, as it could not from a pipe: the prompts.

    Raises:
        StorageError: there is no room for the prompts.
        NpcError: children die without getting further.
    """
    rows, futile = _rows(directory), 0
    with ExitStack() as stack:
        watched = _Watched(directory, _handed_on(stack, content))
        stack.enter_context(watched.forwarding())
        while True:
            code = watched.run_child()
            if watched.stopped or (code >= 0 and code != DeviceLostError.exit_code):
                if watched.end is not None:
                    print(watched.end, flush=True)
                return code if code >= 0 else INTERRUPTED
            before, rows = rows, _rows(directory)
            futile = 0 if rows > before else futile + 1
            how = _death(code)
            if futile > RESTARTS:
                kind = NpcError if code < 0 else DeviceLostError
                raise kind(
                    f"{directory}: the run {how}, {futile} times without getting further"
                    f"{watched.under_way()}; what is done is kept, and the same command goes on, "
                    f"with --out {directory} and without --fresh"
                )
            on_status(f"the run {how}{watched.under_way()}; it is started again, and goes on")


def _handed_on(stack: ExitStack, content: bytes) -> int:
    """Return the descriptor of a file without a name that holds `content` until the stack ends.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        file = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        file.write(content)
        file.flush()
    except OSError as error:
        raise cannot_write(Path(tempfile.gettempdir()), error) from error
    return file.fileno()


class Link:
    """What a run says to whoever watches over it, or to nobody.

    Attributes:
        directory: the run directory, where a parent has chosen one.
        content: what a parent has read of prompts, if there is a parent.
        stdout: where lines go; None: nowhere, with a parent or without.
    """

    def __init__(self) -> None:
        """Find the parent, if there is one."""
        self.directory: Path | None = None
        self.content: bytes | None = None
        self.stdout: TextIO | None = None
        self._skip = 0
        self._socket: socket.socket | None = None
        if (handed_over := os.environ.pop(_VARIABLE, None)) is not None:
            handed = json.loads(handed_over)
            self.directory, self._skip = Path(handed["directory"]), handed["printed"]
            with open(handed["content"], "rb") as stream:
                stream.seek(0)  # another child may have read it
                self.content = stream.read()
            self._socket = socket.socket(fileno=handed["descriptor"])
            self._socket.set_inheritable(False)
            faulthandler.enable()  # of a child that crashes, at least where
            threading.Thread(target=self._end_with_parent, daemon=True).start()

    def print(self, line: str) -> None:
        """Print a line, unless an earlier child has; lines come in the same order in each."""
        if self.stdout is None:
            return
        if self._skip:
            self._skip -= 1
        elif self._socket is None:
            print(line, file=self.stdout, flush=True)
        else:
            self._say({"print": line})

    def print_end(self, line: str) -> None:
        """Print what has ended this run, unless whoever watches over it has it go on."""
        if self.stdout is None:
            return
        if self._socket is None:
            print(line, file=self.stdout, flush=True)
        else:
            self._say({"end": line})

    def doing(self, task: int, what: str | None) -> None:
        """Say what a task is at; None: it is over."""
        if self._socket is not None:
            self._say({"task": task, "what": what})

    def _say(self, message: dict[str, Any]) -> None:
        assert self._socket is not None
        with suppress(OSError):  # the parent is gone, which ends this process as well
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def _end_with_parent(self) -> None:
        """Wait for the parent to die, which is all that comes from it."""
        assert self._socket is not None
        main = threading.main_thread().ident
        try:
            gone = not self._socket.recv(1)
        except OSError:  # it died with words of ours unread
            gone = True
        if gone and main is not None:
            signal.pthread_kill(main, signal.SIGTERM)


@dataclass
class _Watched:
    """What the parent knows of its children."""

    directory: Path
    content: int  # descriptor of a file
    printed: int = 0
    tasks: dict[int, str] = field(default_factory=dict)
    end: str | None = None  # what the last child has said of its end
    stopped: bool = False
    child: subprocess.Popen[bytes] | None = None

    @contextmanager
    def forwarding(self) -> Iterator[None]:
        """Pass on what is meant for the run: it is not in the terminal's foreground."""
        heeded = [
            number
            for number in _FORWARDED
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN  # as by nohup
        ]
        before = {number: signal.signal(number, self._stop) for number in heeded}
        before[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self._pause)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def run_child(self) -> int:
        """Start a child and wait for its end; return its exit code, negative: a signal."""
        self.tasks.clear()
        self.end = None
        ours, theirs = socket.socketpair()
        handed_over = {
            "directory": os.fspath(self.directory),
            "printed": self.printed,
            "content": self.content,
            "descriptor": theirs.fileno(),
        }
        with ours:
            with theirs:
                self.child = subprocess.Popen(
                    [sys.executable, *sys.orig_argv[1:]],
                    env={**os.environ, _VARIABLE: json.dumps(handed_over)},
                    pass_fds=(self.content, theirs.fileno()),
                    process_group=0,  # a Ctrl-C is for the parent, which passes it on: once
                )
            if self.stopped:
                self.child.send_signal(signal.SIGTERM)
            listener = threading.Thread(target=self._listen, args=(ours,), daemon=True)
            listener.start()
            code = self.child.wait()
            listener.join(timeout=10)  # unless something that the child left has its end open
        return code

    def under_way(self) -> str:
        """Say what the last child was doing, the longest first."""
        tasks = list(self.tasks.values())
        if not tasks:
            return ""
        more = f" and {len(tasks) - _SHOWN} more" if len(tasks) > _SHOWN else ""
        return f", during {'; '.join(tasks[:_SHOWN])}{more}"

    def _listen(self, ours: socket.socket) -> None:
        """Take in what a child says, whole lines only: the last one may be cut off."""
        with ours.makefile("rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):
                    self._hear(json.loads(line))

    def _hear(self, message: dict[str, Any]) -> None:
        if "print" in message:
            print(message["print"], flush=True)
            self.printed += 1
            return
        if "end" in message:
            self.end = message["end"]
            return
        self.tasks.pop(message["task"], None)
        if message["what"] is not None:
            self.tasks[message["task"]] = message["what"]

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True
        if self.child is not None:
            self.child.send_signal(number)

    def _pause(self, number: int, frame: FrameType | None) -> None:
        """Stop like the job that the shell takes this for, and go on with it."""
        if self.child is not None:
            self.child.send_signal(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        if self.child is not None:
            self.child.send_signal(signal.SIGCONT)


def _rows(directory: Path) -> int:
    """Return a number that grows with each step kept in a journal; 0 if there is none."""
    file = directory / journal_file.NAME
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as database:
            [(rows,)] = database.execute("SELECT coalesce(max(id), 0) FROM steps")
    except sqlite3.Error:  # missing, or damaged: the child will see to it
        return 0
    return int(rows)


def _death(code: int) -> str:
    if code >= 0:
        return "lost its GPU"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (did the machine run out of memory?)" if -code == signal.SIGKILL else ""
    return f"died by {name}{hint}"
