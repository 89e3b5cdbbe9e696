"""Work that several ask for at the same moment, done once for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

T = TypeVar("T")


@dataclass(slots=True)
class _Pending:
    """A task under way, how many wait for it, and whether it has come to its work proper."""

    task: asyncio.Task[Any]
    waiting: int = 0
    at_work: bool = False


class SingleFlight:
    """Tasks by name. Nothing is remembered of one that has ended, its failure included."""

    def __init__(self, on_wait: Callable[[], object] = lambda: None) -> None:
        """No task is under way.

        Args:
            on_wait: called when `waiting` may have grown.
        """
        self._pending: dict[Hashable, _Pending] = {}
        self._on_wait = on_wait

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def waiting(self) -> int:
        """How many wait for tasks that are `at_work`.

        Those of a task that has ended wait no more, even before they go on themselves.
        """
        return sum(pending.waiting for pending in self._pending.values() if pending.at_work)

    async def result(self, name: Hashable, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what the task `name` returns; unless it is under way, `work` begins it.

        Whoever is cancelled stops waiting. When nobody waits any more, the task is cancelled, and
        the next one who asks begins it anew.
        """
        pending = self._pending.get(name)
        if pending is None:
            task = asyncio.create_task(self._to_end(name, work))
            pending = self._pending[name] = _Pending(task)
        pending.waiting += 1
        self._on_wait()
        try:
            return cast(T, await asyncio.shield(pending.task))
        finally:
            pending.waiting -= 1
            if not pending.waiting and not pending.task.done():
                self._forget(name, pending.task)
                pending.task.cancel()
                await asyncio.wait([pending.task])  # it gives back what it holds

    @contextmanager
    def at_work(self, name: Hashable) -> Iterator[None]:
        """Mark the part of the task `name` that is its work proper: not looking up, not keeping."""
        pending = self._pending.get(name)
        if pending is None or pending.task is not asyncio.current_task():  # nobody waits for it
            yield
            return
        pending.at_work = True
        self._on_wait()
        try:
            yield
        finally:
            pending.at_work = False

    async def _to_end(self, name: Hashable, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            return await work()
        finally:
            self._forget(name, asyncio.current_task())

    def _forget(self, name: Hashable, task: asyncio.Task[Any] | None) -> None:
        """Have the next request begin anew, unless another task has begun meanwhile."""
        pending = self._pending.get(name)
        if pending is not None and pending.task is task:
            del self._pending[name]
