"""The arms of a benchmark: what is done about an image that is wrong.

Every arm starts from the same base image and may make at most `budget` more, stopping at the first
that the verifier finds correct. Which prompts, how many, and the tables are left to others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from npc_local import roles
from npc_local.errors import NpcError
from npc_local.loop import Cast
from npc_local.loop import correct as run_loop
from npc_local.records import Candidate, Correction, Shot, Verdict

ARMS = {
    "base": "the first image, as it comes",
    "npc": "same seed, ranked negative prompts in the early steps (the paper)",
    "reseed": "new seeds, no negative prompt: what anyone can do today",
    "npc+reseed": "new seeds and ranked negative prompts together",
}
# Past the seeds of all base images, up to benchmark seed 99 (`shapes_bench.items`).
_SEED_STRIDE = 1_000_003


@dataclass(frozen=True, slots=True)
class Try:
    """One image of an arm beyond the base image."""

    negative: str | None
    kind: str | None
    correct: bool
    score: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one arm ended for one prompt. `forwards` is of its own images, the base image apart."""

    correct: bool
    tries: tuple[Try, ...] = ()
    forwards: int = 0


async def run_arms(
    prompt: str, seed: int, cast: Cast, arms: Sequence[str], budget: int
) -> dict[str, Outcome]:
    """Run the arms on one prompt and seed.

    Raises:
        NpcError: an image could not be made or judged; nothing is counted then.
    """
    found = await run_loop(prompt, cast, seed=seed, candidates=budget)
    if found.original is None or found.status == "error":
        failure = NpcError(found.error)
        failure.exit_code = found.exit_code or NpcError.exit_code
        raise failure
    outcomes = {}
    for arm in arms:
        if found.original.verdict.correct or arm == "base":
            outcomes[arm] = Outcome(found.original.verdict.correct)
        elif arm == "npc":
            outcomes[arm] = _npc(found)
        elif arm == "reseed":
            outcomes[arm] = await _new_seeds(found, cast, [None] * budget)
        else:
            outcomes[arm] = await _new_seeds(found, cast, found.candidates)
    return outcomes


def _npc(found: Correction) -> Outcome:
    tries = tuple(_try(attempt.candidate, attempt.verdict) for attempt in found.attempts)
    forwards = sum(attempt.render.forwards for attempt in found.attempts)
    return Outcome(found.status == "corrected", tries, forwards)


async def _new_seeds(
    found: Correction, cast: Cast, candidates: Sequence[Candidate | None]
) -> Outcome:
    assert found.checklist is not None  # its base image was judged
    tries: list[Try] = []
    forwards = 0
    for number, candidate in enumerate(candidates, start=1):
        negative = candidate.negative.text if candidate else None
        shot = Shot(found.prompt, negative, found.seed + number * _SEED_STRIDE)
        [render] = await asyncio.to_thread(cast.generator.generate, [shot])
        verdict = await roles.verify(
            cast.verifier, found.prompt, found.checklist, render.image, cast.rules
        )
        tries.append(_try(candidate, verdict))
        forwards += render.forwards
        if verdict.correct:
            break
    return Outcome(bool(tries) and tries[-1].correct, tuple(tries), forwards)


def _try(candidate: Candidate | None, verdict: Verdict) -> Try:
    negative = candidate.negative if candidate else None
    return Try(
        negative.text if negative else None,
        negative.kind if negative else None,
        verdict.correct,
        verdict.score,
    )
