"""What is written to the person at the terminal: plain text on standard error, and time left.

Standard output is left to results. That neither can fail or wait is left to `streams`.
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
from rich.progress import (
    BarColumn,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar
from rich.table import Column
from rich.text import Text

from npc_local.core.prompts import is_control

LOG_EVERY = 60.0
"""Seconds between two lines of progress where nobody watches a terminal."""
_BAR_WIDTH = 20


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
    """Shows how much work is done and how long the rest may take: a bar, or a line now and then.

    The bar is for a terminal, and for nobody else: a log gets a line every `LOG_EVERY` seconds. Use
    it as a context; `say` writes above the bar.
    """

    def __init__(self, total: float, noun: str | None = None) -> None:
        """Take how much there is to do.

        Args:
            total: the work, in any unit.
            noun: what is counted, if the unit is pieces of something; None shows a percentage.
        """
        self.console = error_console()
        self._total, self._noun, self._done = total, noun, 0.0
        self._begun = self._logged = time.monotonic()
        # In a narrow terminal the bar goes first, then the words: the numbers stay.
        room = self.console.width - 2 * len(f"{total:.0f}") - len(" 00:00:00 00:00:00 ")
        wide = room >= 2 * _BAR_WIDTH
        words = Column(no_wrap=True, max_width=max(1, room - wide * (_BAR_WIDTH + 1)))
        amount = "{task.percentage:.0f}%"
        if noun is not None:
            amount = f"{{task.completed:.0f}}/{total:.0f}"
        columns: list[ProgressColumn] = [
            *([BarColumn(bar_width=_BAR_WIDTH)] if wide else []),
            TextColumn(amount, table_column=Column(no_wrap=True)),
            TextColumn("{task.description}", markup=False, table_column=words),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        ]
        self._bar = Bar(
            *columns,
            console=self.console,
            transient=True,
            redirect_stdout=False,
            disable=not self.console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total)

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

    def advance(self, doing: str, work: float = 1) -> None:
        """Take in that so much more is done, and what is being done or has come of it."""
        self._done += work
        self._bar.update(self._task, advance=work, description=plain(doing))
        now = time.monotonic()
        if self.console.is_terminal or now - self._logged < LOG_EVERY:
            return
        self._logged = now
        share = self._done / self._total if self._total else 1.0
        amount = f"{share:.0%}"
        if self._noun is not None:
            amount = f"{self._done:g} of {self._total:g} {self._noun}"
        left = (now - self._begun) * (1 - share) / share if share else 0.0
        self.say(f"{amount}, {_time(left)} left: {doing}")

    def say(self, line: str, style: str = "") -> None:
        """Write a line."""
        self.console.print(Text(plain(line), style=style), soft_wrap=True)


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
