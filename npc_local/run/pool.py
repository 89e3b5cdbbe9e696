"""Many items at once: so many in flight and no more, each one's failure its own.

What is done with an item is the caller's; who of them waits for what is left to `stages`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from npc_local.core.config.load import ResolvedProfile
from npc_local.core.errors import NpcError, as_error

log = logging.getLogger(__name__)

Item = TypeVar("Item")
R = TypeVar("R")
Work = Callable[[Item], Awaitable[R]]
Done = Callable[[int, R | NpcError], None]

AGENTS = 8
"""Steps of agents under way at once, unless the user says otherwise."""

_MEMORY = 2**30  # bytes of images that the prompts in flight may hold
_LEAST, _MOST = 8, 128


async def for_each(
    items: Iterable[Item], work: Work[Item, R], *, in_flight: int, done: Done[R]
) -> None:
    """Do `work` for each item, at most `in_flight` at once, and keep nothing.

    An item is taken from `items` when there is room for it, so that neither tasks nor results pile
    up. Whoever ends this, by cancelling it or by an error, waits until the work under way has
    heard of it.

    A bug that one item meets is that item's error too: its traceback is logged, and it goes no
    further, or every run that goes on would meet it again and end there.

    Args:
        items: taken in order.
        work: what is done with one of them.
        in_flight: items at once.
        done: is told the index of each item and its result, or the error it ended in, as soon as
            it is there: in no particular order.

    Raises:
        NpcError: work on an item ended in one that `ends_run`; all others stop.
    """
    if in_flight < 1:
        raise ValueError("at least one item at a time")
    queue = enumerate(items)

    async def do(index: int, item: Item) -> None:
        result: R | NpcError
        try:
            result = await work(item)
        except NpcError as error:
            if error.ends_run:
                raise
            result = error
        except Exception as bug:
            result = as_error(bug)
            log.exception("item %d: %s", index + 1, result)
        done(index, result)

    async def drain() -> None:
        for index, item in queue:  # shared: each item goes to one of them
            await do(index, item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(drain())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from failures.exceptions[0].__cause__


async def run_all(
    items: Sequence[Item],
    work: Work[Item, R],
    *,
    in_flight: int,
    done: Done[R] = lambda index, result: None,
) -> list[R | NpcError]:
    """Do as `for_each` does, and return all results and errors in the order of the items."""
    results: dict[int, R | NpcError] = {}

    def keep(index: int, result: R | NpcError) -> None:
        results[index] = result
        done(index, result)

    await for_each(items, work, in_flight=in_flight, done=keep)
    return [results[index] for index in range(len(items))]


def default_in_flight(profile: ResolvedProfile, agents: int = AGENTS, generators: int = 1) -> int:
    """Return how many prompts of a profile to have in flight.

    Args:
        profile: says how models share the GPU, and how large images are.
        agents: steps of agents at once.
        generators: devices that make images.
    """
    if profile.gpu == "resident":
        return resident_in_flight(agents, generators)
    image = profile.generator
    return phased_in_flight(image.height, image.width, profile.candidates)


def resident_in_flight(agents: int, generators: int) -> int:
    """Return how many prompts keep generators and agents busy: twice as many as both can take.

    With more prompts than there are places at the agents, a generator without work means that the
    agents are what all wait for. The other half is what waits in line, so that nobody waits for it.
    """
    return 2 * (agents + generators)


def phased_in_flight(height: int, width: int, candidates: int) -> int:
    """Return how many prompts to have in flight where models share a GPU: as memory allows.

    An exchange of models serves all of them, and takes long. A prompt may hold 1 +
    `candidates` images of `height` x `width` pixels.
    """
    prompt = (1 + candidates) * height * width * 3
    return max(_LEAST, min(_MOST, _MEMORY // prompt))
