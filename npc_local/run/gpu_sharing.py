"""Whose turn it is on one GPU: the generator's (and the scorer's) or the agents', never both.

`gpu = "phased"` in a profile. A side keeps the GPU until the other wants it and its own work is
done; then it leaves its memory before the other enters. What entering and leaving mean is each
side's matter: moving a pipeline, starting or waking a server. When a turn is asked for is left
to `steps`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Side:
    """One side: its name, and how it takes the GPU and leaves it. Both may raise `NpcError`."""

    name: str
    enter: Callable[[], Coroutine[Any, Any, None]]
    leave: Callable[[], Coroutine[Any, Any, None]]


class GpuSharing:
    """Gives the GPU to one side at a time; work of the same side may overlap.

    Attributes:
        quiet: tells whether all who may want a turn next have asked for it. Until then the GPU
            stays where it is: an exchange takes long, and the next to ask may be of the same side.
            `look_again` whenever that may have become true.
    """

    def __init__(self) -> None:
        """Nobody has the GPU yet."""
        self.quiet: Callable[[], bool] = lambda: True
        self._holder: Side | None = None
        self._ready = False  # whether the holder has entered in full
        self._working = 0
        self._changed = asyncio.Condition()
        self._telling: asyncio.Future[None] | None = None  # held, or it might be collected

    async def begin(self, side: Side) -> None:
        """Wait for the other side's work to end, and have the GPU for `side` until `end`.

        A side that could not enter in full may have part of the GPU: it has to leave before the
        other enters, and enters again before it works.
        """
        async with self._changed:
            await self._changed.wait_for(
                lambda: (
                    (self._holder is side and self._ready)
                    or (not self._working and (self._holder is None or self.quiet()))
                )
            )
            if self._holder is not side or not self._ready:
                await _to_its_end(self._exchange(side))
            self._working += 1

    async def _exchange(self, side: Side) -> None:
        """Have the holder leave and `side` enter."""
        if self._holder is not None and self._holder is not side:
            self._ready = False
            await self._holder.leave()
        self._holder, self._ready = side, False
        await side.enter()
        self._ready = True

    def end(self) -> None:
        """Be done with a turn; the side keeps the GPU until the other wants it."""
        self._working -= 1
        self.look_again()

    def look_again(self) -> None:
        """Have those who wait look whether it is their turn."""
        self._telling = asyncio.ensure_future(self._tell())

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    @asynccontextmanager
    async def turn(self, side: Side) -> AsyncIterator[None]:
        """Have the GPU for `side` while inside."""
        await self.begin(side)
        try:
            yield
        finally:
            self.end()

    async def close(self) -> None:
        """Take the GPU from whoever has it, once its work is done."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._working)
            if self._holder is not None:
                await _to_its_end(self._holder.leave())
            self._holder, self._ready = None, False


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Await work that must not be left half done: who is cancelled meanwhile still waits for it."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        with suppress(Exception):  # the cancellation is what the caller hears of
            await task
        raise


@dataclass(frozen=True, slots=True)
class Phases:
    """The two sides of one GPU. `served` names the backends whose models are on it."""

    turns: GpuSharing
    images: Side
    agents: Side
    served: frozenset[str]

    def for_agent(self, name: str | None = None) -> AbstractAsyncContextManager[None]:
        """Return a turn of the backend `name`, empty if its model is elsewhere; None: of any."""
        if name is None or name in self.served:
            return self.turns.turn(self.agents)
        return nullcontext()
