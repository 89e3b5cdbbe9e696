"""Work that several ask for at the same moment, done once for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar, cast

T = TypeVar("T")


@dataclass(slots=True)
class _Pending:
    """A task under way, and how many wait for it."""

    task: asyncio.Task[Any]
    waiting: int = 0


class SingleFlight:
    """Tasks by name. Nothing is remembered of one that has ended, its failure included."""

    def __init__(self) -> None:
        """No task is under way."""
        self._pending: dict[str, _Pending] = {}

    def __len__(self) -> int:
        return len(self._pending)

    async def result(self, name: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what the task `name` returns; unless it is under way, `work` begins it.

        Whoever is cancelled stops waiting. When nobody waits any more, the task is cancelled, and
        the next one who asks begins it anew.
        """
        pending = self._pending.get(name)
        if pending is None:
            task = asyncio.create_task(self._to_end(name, work))
            pending = self._pending[name] = _Pending(task)
        pending.waiting += 1
        try:
            return cast(T, await asyncio.shield(pending.task))
        finally:
            pending.waiting -= 1
            if not pending.waiting and not pending.task.done():
                self._forget(name, pending.task)
                pending.task.cancel()
                await asyncio.wait([pending.task])  # it gives back what it holds

    async def _to_end(self, name: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            return await work()
        finally:
            self._forget(name, asyncio.current_task())

    def _forget(self, name: str, task: asyncio.Task[Any] | None) -> None:
        """Have the next request begin anew, unless another task has begun meanwhile."""
        pending = self._pending.get(name)
        if pending is not None and pending.task is task:
            del self._pending[name]
