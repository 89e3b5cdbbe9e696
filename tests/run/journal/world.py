"""A small deterministic world for runs that are killed and resumed; every call leaves a line.

Generator and agents answer from what they are asked alone, so that a run that was killed and went
on must end like one that was not.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from npc_local.loop import correct
from npc_local.run.components import Components
from npc_local.run.journal.journal import Journal
from npc_local.run.output.result_folder import verdict_data
from npc_local.run.stages import Stages
from tests.world import (
    FakeBackend,
    FakeGenerator,
    HashScorer,
    Log,
    colour,
    components_of,
    proposal,
)

PROMPTS = ("two red circles", "three blue stars")
IDENTITY = {"generator": {"steps": 20}, "fingerprints": ["images", "agents"]}
RIGHT_NEGATIVE = {PROMPTS[0]: "sea", PROMPTS[1]: "sky"}  # ranked third, and second


class Images(FakeGenerator):
    """Makes all of its images after an out of memory, which belongs to what is kept of them."""

    fallbacks = ("tiled VAE",)


class Agents(FakeBackend):
    """Finds an image correct if its colour is that of the prompt's one right negative."""

    claims = 2
    seed = 7

    def _verify(self, request, pixel):
        prompt = request.fields["prompt"]
        right = pixel == colour(prompt, RIGHT_NEGATIVE[prompt], self.seed)
        return {"c1": True, "c2": right, "reason": "" if right else "no second", "score": 0.5}

    def _propose(self, request, pixel):
        return proposal("sand", "sky", "sea", kind=request.fields["kinds"][-1])


def cast_of(log: Log, **parts) -> Components:
    ours = {"agents": Agents(log), "generator": Images(log), "scorer": HashScorer(log)}
    return components_of(**(ours | parts))


def summary(correction) -> dict:
    """Return all of a correction that a resumed run must have as well."""
    attempts = ([correction.original] if correction.original else []) + [*correction.attempts]
    return {
        "status": correction.status,
        "error": correction.error,
        "caption": correction.caption and correction.caption.text,
        "candidates": [(one.negative.text, one.score) for one in correction.candidates],
        "forwards": correction.forwards,
        "attempts": [
            (
                attempt.render.image.tobytes().hex(),
                attempt.render.forwards,
                attempt.render.seconds,
                attempt.render.fallbacks,
                verdict_data(attempt.verdict),
            )
            for attempt in attempts
        ],
    }


async def search_all(stages: Stages, prompts=PROMPTS, seed: int = 7) -> list[dict]:
    """Run all prompts at once."""

    async def search(prompt):
        with stages.search():
            return summary(await correct(prompt, stages, seed=seed, candidates=3))

    return await asyncio.gather(*map(search, prompts))


def run(directory: Path, log: Log, prompts=PROMPTS) -> list[dict]:
    """Begin a run in `directory`, or go on with it."""
    with Journal.open(directory, IDENTITY) as journal:
        return asyncio.run(search_all(Stages(cast_of(log), journal, agents=2), prompts))
