"""Work that several callers wait for, and that is done once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Shared:
    """Work that is done once for all who wait for it, and that no one's cancellation ends."""

    def __init__(self, turn: asyncio.Lock, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Take the work, and the lock that is held meanwhile."""
        self._turn = turn
        self._work = work
        self._task: asyncio.Task[None] | None = None
        self._callers = 0

    async def done(self) -> None:
        """Have it done, or wait until it is."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._begin())
            self._task.add_done_callback(_look_at)
        self._callers += 1
        try:
            await asyncio.shield(self._task)
        finally:
            self._callers -= 1

    @property
    def idle(self) -> bool:
        """Whether none of it is under way."""
        return self._task is None or self._task.done()

    async def _begin(self) -> None:
        async with self._turn:
            if self._callers:  # else all were cancelled before it began
                await self._work()


def _look_at(task: asyncio.Task[None]) -> None:
    """Take note of a failure that every caller was cancelled before."""
    if not task.cancelled():
        task.exception()
