"""What there is one of, handed out: generators, agent calls, and turns on a shared GPU.

A generator has a worker thread of its own, and so has the scorer. What is asked of them, and what
is kept of the answers, is left to `steps`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import TypeVar

from npc_local.backends.base import Backend
from npc_local.core import costs
from npc_local.core.records import Candidate, Negative, Render, Shot
from npc_local.core.threads import run_in
from npc_local.generator.base import Generator, OnStep
from npc_local.run.components import Components
from npc_local.run.gpu_sharing import GpuSharing
from npc_local.salience.base import Scorer
from npc_local.salience.ranking import rank

T = TypeVar("T")
# Of the event loop: enough for an answer to reach who waits for it, and for that to ask the next.
_ROUNDS = 10


class Executor:
    """The cast's generators, agents and scorer, one piece of work at a time for each."""

    def __init__(self, components: Components, agents: int, on_step: OnStep | None = None) -> None:
        """Take the components.

        Args:
            components: who does the work.
            agents: stages of agents that may be under way at once.
            on_step: told of each denoising step, in the generator's thread.
        """
        self._on_step = on_step
        self._cast = components
        self._slots = asyncio.Semaphore(agents)
        self._free: asyncio.Queue[_Lane] = asyncio.Queue()  # generators without work
        lanes = [
            _Lane(generator) for generator in (components.generator, *components.more_generators)
        ]
        for lane in lanes:
            self._free.put_nowait(lane)
        self._first = lanes[0].thread
        self._scoring = self._first if components.shared_encoder else _thread("scorer")
        self._fingerprints: dict[int, str] = {}
        self._hashing = asyncio.Lock()
        self._moving = 0  # steps between two waits
        if components.phases is not None:
            components.phases.turns.quiet = lambda: not self._moving

    @contextmanager
    def on_the_way(self) -> Iterator[None]:
        """Have the GPU stay where it is while a step is looked up or kept, and until the next one.

        Else it would change sides in the milliseconds between two steps of one prompt.
        """
        if (phases := self._cast.phases) is None:
            yield
            return
        self._moving += 1
        try:
            yield
        finally:
            _after_rounds(_ROUNDS, partial(self._arrived, phases.turns))

    def _arrived(self, turns: GpuSharing) -> None:
        self._moving -= 1
        turns.look_again()

    async def fingerprint(self, who: Backend | Generator | Scorer) -> str:
        """Return the fingerprint of whoever answers; computed once, as it may read many files."""
        async with self._hashing:
            if id(who) not in self._fingerprints:
                if who is self._cast.generator:  # in its own thread, like all that it does
                    found = await run_in(self._first, who.fingerprint)
                elif who is self._cast.scorer:
                    found = await run_in(self._scoring, who.fingerprint)
                else:
                    found = await asyncio.to_thread(who.fingerprint)
                self._fingerprints[id(who)] = found
            return self._fingerprints[id(who)]

    async def ask(self, work: Callable[[], Awaitable[T]], name: str | None = None) -> T:
        """Have the backend `name` do something (None: some backend), in the agents' turn."""
        phases = self._cast.phases
        turn = nullcontext() if phases is None else phases.for_agent(name)
        # The turn is taken first: all who wait for a free place then have theirs in the same turn.
        async with turn, self._slots:
            with costs.working():
                return await work()

    async def render(self, shot: Shot) -> Render:
        """Make an image on the next free generator, in the images' turn."""
        with ExitStack() as held:
            await self._take_images_turn(held)
            lane = await self._free.get()
            held.callback(self._free.put_nowait, lane)
            # Held until the thread is done: cancelling does not stop it.
            ended = held.pop_all().close

        def rendered() -> Render:
            with costs.working():
                render = lane.generator.generate(shot, self._on_step)
            costs.count_forwards(render.forwards)
            return render

        return await run_in(lane.thread, rendered, ended=ended)

    async def score(self, prompt: str, negatives: Sequence[Negative]) -> tuple[Candidate, ...]:
        """Rank in the scorer's thread, in the images' turn: the encoder is on their side."""

        def ranked() -> tuple[Candidate, ...]:
            with costs.working():
                return rank(self._cast.scorer, prompt, negatives)

        with ExitStack() as held:
            await self._take_images_turn(held)
            ended = held.pop_all().close
        return await run_in(self._scoring, ranked, ended=ended)

    async def _take_images_turn(self, held: ExitStack) -> None:
        if (phases := self._cast.phases) is not None:
            await phases.turns.begin(phases.images)
            held.callback(phases.turns.end)


class _Lane:
    """One generator and the one thread that it works in."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator
        self.thread = _thread("generator")


def _after_rounds(rounds: int, work: Callable[[], None]) -> None:
    """Do something after so many rounds of the event loop."""
    if rounds:
        asyncio.get_running_loop().call_soon(_after_rounds, rounds - 1, work)
    else:
        work()


def _thread(name: str) -> ThreadPoolExecutor:
    """Return a thread that starts with its first work, and ends when nobody holds it any more."""
    return ThreadPoolExecutor(1, thread_name_prefix=name)
