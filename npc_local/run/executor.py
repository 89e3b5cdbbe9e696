"""Has generators, agents and the scorer work: one image a generator, so many agents at once.

A generator has a worker thread of its own, and so has the scorer; where models share a GPU, their
work waits for its lease. What is asked of them, and what is kept of the answers, is left to
`stages`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, nullcontext
from typing import TypeVar

from npc_local.backends.base import Backend
from npc_local.core import costs
from npc_local.core.errors import GeneratorError
from npc_local.core.records import Candidate, Negative, Render, Shot
from npc_local.core.threads import run_in
from npc_local.generator.base import Generator, OnStep
from npc_local.run.components import Components
from npc_local.run.single_flight import SingleFlight
from npc_local.salience.base import Scorer
from npc_local.salience.ranking import rank

T = TypeVar("T")


class Executor:
    """The components at work, for one event loop."""

    def __init__(self, components: Components, agents: int, on_step: OnStep | None = None) -> None:
        """Take the components.

        Args:
            components: who does the work.
            agents: stages of agents that may be under way at once.
            on_step: told of each denoising step, in the generator's thread.
        """
        self._on_step = on_step
        self._components = components
        self._sharing = components.gpu_sharing
        self._slots = asyncio.Semaphore(agents)
        self._free: asyncio.Queue[_Worker] = asyncio.Queue()
        workers = [
            _Worker(generator) for generator in (components.generator, *components.more_generators)
        ]
        for worker in workers:
            self._free.put_nowait(worker)
        self._first = workers[0].thread
        self._scoring = self._first if components.shared_encoder else _thread("scorer")
        self._fingerprints: list[tuple[Backend | Generator | Scorer, str]] = []  # few
        self._hashing = SingleFlight()

    async def fingerprint(self, who: Backend | Generator | Scorer) -> str:
        """Return the fingerprint of whoever answers; computed once, as it may read many files."""
        for known, fingerprint in self._fingerprints:
            if known is who:
                return fingerprint
        # One that waits for its thread, behind an image, keeps no other waiting.
        return await self._hashing.result(id(who), lambda: self._computed_fingerprint(who))

    async def _computed_fingerprint(self, who: Backend | Generator | Scorer) -> str:
        if who is self._components.generator:  # in its own thread, like all that it does
            fingerprint = await run_in(self._first, who.fingerprint)
        elif who is self._components.scorer:
            fingerprint = await run_in(self._scoring, who.fingerprint)
        else:
            fingerprint = await asyncio.to_thread(who.fingerprint)
        self._fingerprints.append((who, fingerprint))
        return fingerprint

    async def ask(self, work: Callable[[], Awaitable[T]], name: str | None = None) -> T:
        """Have the backend `name` do something, with the GPU if it needs it; None: no backend."""
        lease = nullcontext() if self._sharing is None else self._sharing.lease_for(name)
        # The lease first: all who wait for a free place then work under the same one.
        async with lease, self._slots:
            with costs.working():
                return await work()

    async def render(self, shot: Shot) -> Render:
        """Make an image on the next free generator.

        An image that is not waited for any more is given up at its next denoising step; until
        then it keeps its generator, and the GPU.
        """
        given_up = threading.Event()

        def on_step(done: int, total: int) -> None:
            if given_up.is_set():
                raise GeneratorError("interrupted")
            if self._on_step is not None:
                self._on_step(done, total)

        def rendered() -> Render:
            with costs.working():
                render = worker.generator.generate(shot, on_step)
            costs.count_forwards(render.forwards)
            return render

        async with self._images_lease() as held:
            worker = await self._free.get()
            held.callback(self._free.put_nowait, worker)
            try:
                return await run_in(worker.thread, rendered, ended=held.pop_all().close)
            except asyncio.CancelledError:
                given_up.set()
                raise

    async def score(self, prompt: str, negatives: Sequence[Negative]) -> tuple[Candidate, ...]:
        """Rank in the scorer's thread, under the images' lease: the encoder is theirs."""

        def ranked() -> tuple[Candidate, ...]:
            with costs.working():
                return rank(self._components.scorer, prompt, negatives)

        async with self._images_lease() as held:
            return await run_in(self._scoring, ranked, ended=held.pop_all().close)

    @asynccontextmanager
    async def _images_lease(self) -> AsyncIterator[ExitStack]:
        """Hold the GPU for images while inside, and give back what else is put on the stack.

        A thread's work goes on when whoever waits for it is cancelled. It takes the stack along
        (`pop_all`), and closes it at its own end.
        """
        with ExitStack() as held:
            if self._sharing is not None:
                await self._sharing.acquire(self._sharing.images)
                held.callback(self._sharing.release)
            yield held


class _Worker:
    """One generator and the one thread that it works in."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator
        self.thread = _thread("generator")


def _thread(name: str) -> ThreadPoolExecutor:
    """Return a thread that starts with its first work, and ends when nobody holds it any more."""
    return ThreadPoolExecutor(1, thread_name_prefix=name)
