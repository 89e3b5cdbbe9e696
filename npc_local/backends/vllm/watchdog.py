"""Keeps one child process from outliving us, whatever ends us: `Guarded` here, a script below.

`Guarded` starts this file as a script of its own, and that starts the command. Between the two runs
a pipe, whose end in our hands closes with us, SIGKILL included; then, or when told to, the script
ends the command and everything that the command started. What left the command's process group is
found too: on Linux the script adopts all orphans among its descendants. Should the script itself
be killed by SIGKILL, the kernel kills the command (Linux again), and only that: what the command
started is then left to see for itself that its parent is gone.

Standard library only, and no import of npc_local: the script must start in an instant.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_MARGIN = 10.0  # seconds that the script gets beyond the grace period before it is killed
_TICK = 0.1  # seconds between two looks at the command
_NOT_STARTED = 127
_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36  # of Linux' prctl


class Guarded:
    """A command that runs until it ends, `stop` is called, or this process is no more."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        directory: Path,
        log: Path,
        grace: float,
    ) -> None:
        """Start the command.

        Args:
            command: program and arguments.
            environment: all that it gets to see of one.
            directory: where it runs.
            log: the file that its output is added to.
            grace: seconds between asking it to end and killing it.

        Raises:
            OSError: no process could be started, or the log not opened.
        """
        script = [sys.executable, "-I", "-S", __file__, str(grace), *command]
        reading, writing = os.pipe()
        try:
            with log.open("ab") as output:
                self._script = subprocess.Popen(
                    script,
                    stdin=reading,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=dict(environment),
                    cwd=directory,
                    start_new_session=True,  # Ctrl-C is for us; we then stop it in order
                )
        except BaseException:
            os.close(writing)
            raise
        finally:
            os.close(reading)
        # Also runs when the interpreter exits, and when nobody holds this object any more.
        self._end = weakref.finalize(
            self, _end, self._script, writing, grace + _MARGIN, os.getpid()
        )

    @property
    def status(self) -> int | None:
        """The exit status (128 + N after signal N), or None while the command runs."""
        return self._script.poll()

    def stop(self) -> None:
        """End the command and everything it started; returns when they are gone. Idempotent."""
        self._end()
        self._script.wait()  # for a second call, while the first one is at it


def _end(script: subprocess.Popen[bytes], pipe: int, patience: float, owner: int) -> None:
    """Tell the script to end the command, and wait for that up to `patience` seconds."""
    if os.getpid() != owner:
        return  # a fork of ours exits; the command is not its
    # A byte, and not only the closing: a fork may hold the pipe open.
    with suppress(OSError):
        os.write(pipe, b"x")
    os.close(pipe)
    try:
        script.wait(patience)
    except subprocess.TimeoutExpired:
        script.kill()
        script.wait()


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _die_with_parent() -> None:
    _prctl(_SET_PDEATHSIG, signal.SIGKILL)


class _Charge:
    """The command, as the script sees it."""

    def __init__(self, command: Sequence[str]) -> None:
        # Neither a thread nor a lock in this process, so that code may run between fork and exec.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_die_with_parent
        )
        self.pid = process.pid
        self.status: int | None = None
        process.returncode = 0  # reaped here, and not by Popen

    def reap(self) -> bool:
        """Collect who has ended; return whether any child is left."""
        with suppress(ChildProcessError):
            while True:
                pid, raw = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return True
                if pid == self.pid:
                    code = os.waitstatus_to_exitcode(raw)
                    self.status = 128 - code if code < 0 else code
        return False

    def end(self, grace: float) -> None:
        """Ask the command to end, then kill whatever is left of it and of its descendants."""
        deadline = time.monotonic() + grace
        if self.status is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
        while self.reap() and self.status is None and time.monotonic() < deadline:
            time.sleep(_TICK)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        while self.reap():  # each round adopts the children of those killed in the last one
            for pid in _children():
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(_TICK / 5)


def _children() -> list[int]:
    """Return our children, on a system that has /proc."""
    pids = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            parent = entry.read_text(errors="replace").rpartition(")")[2].split()[1]
            if int(parent) == os.getpid():
                pids.append(int(entry.parent.name))
    return pids


def _watch(grace: float, command: Sequence[str]) -> int:
    """Run the command until it ends or the pipe on stdin speaks; return its exit status."""
    received = []
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda number, _frame: received.append(number))
    _prctl(_SET_CHILD_SUBREAPER, 1)
    parent = os.getppid()
    try:
        charge = _Charge(command)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", flush=True)
        return _NOT_STARTED
    while charge.status is None and not received and os.getppid() == parent:
        if select.select([sys.stdin], [], [], _TICK)[0]:
            break
        charge.reap()
    charge.end(grace)
    return 128 + signal.SIGKILL if charge.status is None else charge.status


if __name__ == "__main__":
    sys.exit(_watch(float(sys.argv[1]), sys.argv[2:]))
