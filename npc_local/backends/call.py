"""One request under way: its deadline, what was tried so far, and how its faults are worded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby

from npc_local.backends.base import Exchange
from npc_local.backends.dialects import Sampling
from npc_local.backends.http import Answer
from npc_local.core.errors import BackendError


class SilenceError(BackendError):
    """No answer within `timeout`."""


@dataclass(slots=True)
class Call:
    """One request under way: where to, its deadline, what was tried, and how faults are worded.

    `base` is the address of a server that is being looked at, None for one that has to be up.
    """

    who: str
    base: str | None
    deadline: asyncio.Timeout
    tried: list[Exchange] = field(default_factory=list)
    failures: int = 0
    waits: int = 0

    def error(self, fault: object, kind: type[BackendError] = BackendError) -> BackendError:
        """Return the error that ends this call, earlier outcomes included."""
        prefix = "" if self.base else f"{self.who}: "
        return kind(f"{prefix}{fault}{self._trail()}")

    def _trail(self) -> str:
        if not self.tried:
            return ""
        runs = [
            (outcome, len(list(equal)))
            for outcome, equal in groupby(exchange.outcome for exchange in self.tried)
        ]
        earlier = (outcome if n == 1 else f"{outcome} ({n} times)" for outcome, n in runs)
        return f" (before: {'; '.join(earlier)})"

    def note(self, outcome: str, sampling: Sampling, answer: Answer | None) -> None:
        """Record one exchange."""
        seconds, body = (0.0, "") if answer is None else (answer.seconds, answer.body)
        self.tried.append(
            Exchange(outcome, sampling.seed, sampling.temperature, seconds=seconds, body=body)
        )

    def left(self) -> float:
        """Return the seconds until the deadline."""
        when = self.deadline.when()
        return float("inf") if when is None else when - asyncio.get_running_loop().time()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock: a server that starts has a time limit of its own."""
        left = self.left()
        self.deadline.reschedule(None)
        try:
            yield
        finally:
            self.deadline.reschedule(asyncio.get_running_loop().time() + left)
