"""Whose turn it is on one GPU: the generator's (and the scorer's) or the agents', never both.

`gpu = "phased"` in a profile. A side keeps the GPU until the other wants it and its own work is
done; then it leaves its memory before the other enters. What entering and leaving mean is each
side's matter: moving a pipeline, starting or waking a server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from npc_local.backends.base import Backend, Reply, Request
from npc_local.diffusion.base import Generator
from npc_local.records import Render, Shot
from npc_local.salience.base import Scorer


@dataclass(frozen=True, slots=True)
class Side:
    """One side: its name, and how it takes the GPU and leaves it. Both may raise `NpcError`."""

    name: str
    enter: Callable[[], Coroutine[Any, Any, None]]
    leave: Callable[[], Coroutine[Any, Any, None]]


class Turns:
    """Gives the GPU to one side at a time; work of the same side may overlap."""

    def __init__(self) -> None:
        """Nobody has the GPU yet."""
        self._holder: Side | None = None
        self._ready = False  # whether the holder has entered in full
        self._working = 0
        self._changed = asyncio.Condition()

    async def begin(self, side: Side) -> None:
        """Wait for the other side's work to end, and have the GPU for `side` until `end`.

        A side that could not enter in full may have part of the GPU: it has to leave before the
        other enters, and enters again before it works.
        """
        async with self._changed:
            await self._changed.wait_for(
                lambda: not self._working or (self._holder is side and self._ready)
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

    async def end(self) -> None:
        """Be done with a turn; the side keeps the GPU until the other wants it."""
        async with self._changed:
            self._working -= 1
            self._changed.notify_all()

    @asynccontextmanager
    async def turn(self, side: Side) -> AsyncIterator[None]:
        """Have the GPU for `side` while inside."""
        await self.begin(side)
        try:
            yield
        finally:
            # Shielded: whoever is cancelled has stopped working all the same.
            await asyncio.shield(self.end())

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


class TurnBackend:
    """A backend that answers in the agents' turns only; a `Backend`."""

    def __init__(self, backend: Backend, turns: Turns, side: Side) -> None:
        """Stand before `backend`."""
        self.name = backend.name
        self._backend, self._turns, self._side = backend, turns, side

    async def complete(self, request: Request) -> Reply:
        """Answer in a turn of the agents."""
        async with self._turns.turn(self._side):
            return await self._backend.complete(request)

    def accepts(self, prompt: str) -> None:
        """Refuse what the backend refuses; no turn is needed."""
        self._backend.accepts(prompt)

    async def check(self) -> None:
        """Check in a turn of the agents."""
        async with self._turns.turn(self._side):
            await self._backend.check()

    def fingerprint(self) -> str:
        """Return the backend's own: whose turn it is changes no answer."""
        return self._backend.fingerprint()

    async def aclose(self) -> None:
        """Close the backend."""
        await self._backend.aclose()


class TurnGenerator:
    """A generator that works in the generator's turns only; a `Generator`.

    Called in a thread that is not the event loop's, as the loop does.
    """

    def __init__(self, generator: Generator, turns: Turns, side: Side) -> None:
        """Stand before `generator`. Made inside the event loop that the turns are taken in."""
        self._generator, self._turns, self._side = generator, turns, side
        self._loop = asyncio.get_running_loop()

    def generate(self, shots: Sequence[Shot]) -> list[Render]:
        """Make images in a turn of the generator."""
        with _turn_from_thread(self._turns, self._side, self._loop):
            return self._generator.generate(shots)

    @property
    def on_step(self) -> Any:
        """What the generator tells its denoising steps to, if it tells them."""
        return getattr(self._generator, "on_step", None)

    @on_step.setter
    def on_step(self, told: Any) -> None:
        if hasattr(self._generator, "on_step"):
            self._generator.on_step = told

    def fingerprint(self) -> str:
        """Return the generator's own."""
        return self._generator.fingerprint()


class TurnScorer:
    """A scorer that works in the generator's turns only; a `Scorer`, called as `TurnGenerator`."""

    def __init__(self, scorer: Scorer, turns: Turns, side: Side) -> None:
        """Stand before `scorer`. Made inside the event loop that the turns are taken in."""
        self._scorer, self._turns, self._side = scorer, turns, side
        self._loop = asyncio.get_running_loop()

    def score(self, prompt: str, negatives: Sequence[str]) -> list[float]:
        """Score negatives in a turn of the generator."""
        with _turn_from_thread(self._turns, self._side, self._loop):
            return self._scorer.score(prompt, negatives)

    def fingerprint(self) -> str:
        """Return the scorer's own."""
        return self._scorer.fingerprint()


@contextmanager
def _turn_from_thread(turns: Turns, side: Side, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Have the GPU for `side` while inside, from a thread other than the loop's."""
    asyncio.run_coroutine_threadsafe(turns.begin(side), loop).result()
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(turns.end(), loop).result()
