"""Other plans than the paper's: what to do about a wrong image, for comparison with `loop.npc`.

A plan yields one image to make after the other; it is stopped at the first correct one. What is
common to all plans is left to `loop.Search`, which of them a benchmark compares to `bench.arms`.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Iterator, Sequence

from npc_local.core.records import Attempt, Candidate
from npc_local.loop import NextShot, Search

SEED_STRIDE = 1_000_003
"""From the seed of a search to its next new one: past the seeds that a benchmark begins with."""


async def base(search: Search, original: Attempt) -> AsyncGenerator[NextShot, None]:
    """Leave it at the original."""
    nothing: tuple[NextShot, ...] = ()
    for shot in nothing:
        yield shot


async def random_rank(search: Search, original: Attempt) -> AsyncGenerator[NextShot, None]:
    """Take the negative prompts of `npc` in a random order."""
    candidates = await search.candidates_about(original)
    for candidate in shuffled(candidates, search.prompt, search.seed):
        yield NextShot(candidate)


async def reseed(search: Search, original: Attempt) -> AsyncGenerator[NextShot, None]:
    """Take new seeds and no negative prompt."""
    for seed in new_seeds(search):
        yield NextShot(seed=seed)


async def npc_reseed(search: Search, original: Attempt) -> AsyncGenerator[NextShot, None]:
    """Take the negative prompts of `npc`, each under a new seed."""
    candidates = await search.candidates_about(original)
    for candidate, seed in zip(candidates, new_seeds(search), strict=False):
        yield NextShot(candidate, seed)


def new_seeds(search: Search) -> Iterator[int]:
    """Yield the seeds that a search may take beside its own, as many as it may make images."""
    return (search.seed + number * SEED_STRIDE for number in range(1, search.count + 1))


def shuffled(candidates: Sequence[Candidate], prompt: str, seed: int) -> tuple[Candidate, ...]:
    """Return candidates in an order that nothing but prompt, seed and their words determines."""

    def draw(candidate: Candidate) -> bytes:
        return hashlib.sha256(f"{seed}\n{prompt}\n{candidate.negative.text}".encode()).digest()

    return tuple(sorted(candidates, key=draw))
