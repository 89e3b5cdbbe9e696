"""What is written to the person at the terminal: plain text on standard error, and time left.

Standard output is left to results.
"""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import Progress as Bar
from rich.progress import TimeElapsedColumn, TimeRemainingColumn

from npc_local.core.prompts import is_control

_EVERY = 60.0  # seconds between two lines in a log


def error_console() -> Console:
    """Return a console on standard error that takes every text as it is."""
    return Console(stderr=True, markup=False, emoji=False, highlight=False)


@contextmanager
def libraries_quiet() -> Iterator[TextIO]:
    """Keep libraries' warnings to themselves and their prints off standard output, given here."""
    stdout, disabled = sys.stdout, logging.root.manager.disable
    with warnings.catch_warnings(), redirect_stdout(sys.stderr):
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield stdout
        finally:
            logging.disable(disabled)


def plain(text: str) -> str:
    """Return text in one line, without what could drive the terminal."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if is_control(character) else character
        for character in " ".join(text.split())
    )


class Progress:
    """Counts pieces of work, and shows how many are done and how long the rest may take."""

    def __init__(self, total: int, what: str) -> None:
        """Take how many there are, and what they are."""
        self._console = error_console()
        columns = (*Bar.get_default_columns()[:-1], TimeElapsedColumn(), TimeRemainingColumn())
        self._bar = Bar(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self._bar.add_task(what, total=total)
        self._what, self._total, self._done = what, total, 0
        self._begun = self._told = time.monotonic()

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def advance(self, doing: str) -> None:
        """One more is done."""
        self._done += 1
        self._bar.update(self._task, advance=1, description=plain(doing))
        now = time.monotonic()
        if self._console.is_terminal or now - self._told < _EVERY:
            return
        self._told = now
        left = (now - self._begun) / self._done * (self._total - self._done)
        line = f"{self._done} of {self._total} {self._what}, {_time(left)} left"
        self._console.print(line, soft_wrap=True)


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
