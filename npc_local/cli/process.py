"""What surrounds a command that is a process of its own: its streams, its signals, its end.

A command that is called from another program, as by a test, has none of it: the streams and the
signals are that program's.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import click

from npc_local.core.errors import StorageError
from npc_local.core.streams import Streams, steady_streams

INTERRUPTED = 130


def run_as_process(command: Callable[[], object]) -> NoReturn:
    """Run a command and end this process with its exit code, or with 7 if results were lost.

    `command` is one of click's, not in its standalone mode: it returns its exit code, or raises.
    """
    with steady_streams() as streams:
        with _ends_as_interrupts():
            code = _exit_code(command)
            try:
                streams.deliver()
            except KeyboardInterrupt:  # nobody reads, and nobody is to wait
                code = code or INTERRUPTED
        lost = _lost(streams)
        code = code or lost
        # Nothing is left to be put in order: another Ctrl-C ends the process at once.
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    if code == INTERRUPTED:  # a thread may be at an image or a model still, and would be waited for
        atexit._run_exitfuncs()
        os._exit(code)
    sys.exit(code)


def _exit_code(command: Callable[[], object]) -> int:
    try:
        code = command()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):  # click makes one of the other before a command begins
        return INTERRUPTED
    except Exception:
        sys.excepthook(*sys.exc_info())
        return 1
    return code if isinstance(code, int) else 0


def _lost(streams: Streams) -> int:
    """Say why results were lost, if they were, and return the exit code for it."""
    if streams.lost is None:
        return 0
    print(
        f"error: standard output: cannot be written: {streams.lost.strerror}; what a run has made "
        "is in its directory all the same",
        file=sys.stderr,
    )
    return StorageError.exit_code


@contextmanager
def _ends_as_interrupts() -> Iterator[None]:
    """End as on Ctrl-C, with everything kept, when a scheduler, `kill` or a lost terminal asks.

    A process that `nohup` has told to outlive its terminal does.
    """
    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, _interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Do what a Ctrl-C does, also in a job that is to ignore one."""
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler):
        handler(signal.SIGINT, frame)
    else:
        raise KeyboardInterrupt
