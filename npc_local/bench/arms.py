"""The arms of a benchmark: what is done about an image that is wrong.

Every arm starts from the same base image and may make at most `budget` more, stopping at the first
that the verifier finds correct. Its result is that image, else the best-scored one. Steps that arms
have in common are done once, which is the journal's doing. Judging results, which prompts, and the
tables are left to others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from PIL.Image import Image

from npc_local.agents import Proposals
from npc_local.core.records import Attempt, Candidate, Checklist, Kind, Shot
from npc_local.run.stages import Stages


@dataclass(frozen=True, slots=True)
class Arm:
    """What an arm does about a wrong image; nothing, if it neither proposes nor takes new seeds.

    Attributes:
        about: in words.
        proposals: what its negative prompts are proposed from; None: it has none.
        new_seeds: each of its images has a seed of its own; else all have the base image's.
        shuffled: its negative prompts are tried in a random order; else by salience.
    """

    about: str
    proposals: Proposals | None = None
    new_seeds: bool = False
    shuffled: bool = False


ARMS = {
    "base": Arm("the first image, as it comes"),
    "npc": Arm("same seed, ranked negative prompts in the early steps (the paper)", "caption"),
    "prompt-only": Arm("npc, proposed from the prompt alone, without a caption", "prompt-only"),
    "targeted-only": Arm("npc, proposing only negatives that name the error", "targeted-only"),
    "untargeted-only": Arm(
        "npc, proposing only negatives that name incidental content", "untargeted-only"
    ),
    "random-rank": Arm("npc's negative prompts in a random order", "caption", shuffled=True),
    "reseed": Arm("new seeds, no negative prompt: what anyone can do today", new_seeds=True),
    "npc+reseed": Arm("npc's negative prompts, each under a new seed", "caption", new_seeds=True),
}
SEED_STRIDE = 1_000_003
"""From a base image's seed to the next new one: past the seeds of all base images."""


@dataclass(frozen=True, slots=True)
class Try:
    """One image of an arm, as the verifier found it.

    `kind` and `salience` are of its negative, `fallbacks` as in its `Render`.
    """

    shot: Shot
    correct: bool
    score: float
    forwards: int
    kind: Kind | None = None
    salience: float | None = None
    fallbacks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one arm ended for one prompt and seed.

    Attributes:
        tries: its images, the base image first.
        answer: the number of the one that is its result, from 0.
    """

    tries: tuple[Try, ...]
    answer: int

    @property
    def result(self) -> Try:
        """The image that is its result."""
        return self.tries[self.answer]

    @property
    def more(self) -> tuple[Try, ...]:
        """Its images beyond the base image."""
        return self.tries[1:]


class Trial:
    """One prompt under one seed: a base image, and each arm from there."""

    def __init__(self, prompt: str, seed: int, stages: Stages, budget: int) -> None:
        """Take the prompt, the base image's seed, and how many images an arm may make after it."""
        self.prompt = prompt
        self.seed = seed
        self._stages = stages
        self._budget = budget
        self._base: tuple[Checklist, Attempt] | None = None

    async def run(self, arm: Arm) -> tuple[Outcome, Image]:
        """Run one arm; return how it ended, and its result.

        Raises:
            NpcError: a step failed. The arm then has no outcome: nothing of it counts.
        """
        checklist, base = await self._begin()
        tries, best = [_try(Shot(self.prompt, None, self.seed), base)], base
        answer = 0
        plan = [] if base.verdict.correct else await self._plan(arm, base)
        for number, (shot, candidate) in enumerate(plan, start=1):
            attempt = await self._attempt(shot, candidate, checklist)
            tries.append(_try(shot, attempt))
            if attempt.verdict.correct or attempt.verdict.score > best.verdict.score:
                answer, best = number, attempt
            if attempt.verdict.correct:
                break
        return Outcome(tuple(tries), answer), best.render.image

    async def _begin(self) -> tuple[Checklist, Attempt]:
        """Make and judge the base image, once for all arms."""
        if self._base is None:
            stages = self._stages
            for part in (
                stages.components.verifier,
                stages.components.proposer,
                stages.components.scorer,
            ):
                part.accepts(self.prompt)
            # From the prompt alone: the loop must not learn what the judge will look for.
            checklist = await stages.checklist(self.prompt)
            shot = Shot(self.prompt, None, self.seed)
            self._base = checklist, await self._attempt(shot, None, checklist)
        return self._base

    async def _plan(self, arm: Arm, base: Attempt) -> list[tuple[Shot, Candidate | None]]:
        """Return the images that an arm makes in turn, up to a correct one."""
        seeds = [self.seed] * self._budget
        if arm.new_seeds:
            seeds = [self.seed + number * SEED_STRIDE for number in range(1, self._budget + 1)]
        if arm.proposals is None:
            return [(Shot(self.prompt, None, seed), None) for seed in seeds if arm.new_seeds]
        candidates = await self._candidates(arm.proposals, base)
        if arm.shuffled:
            candidates = shuffled(candidates, self.prompt, self.seed)
        return [
            (Shot(self.prompt, candidate.negative.text, seed), candidate)
            for candidate, seed in zip(candidates, seeds, strict=False)
        ]

    async def _candidates(self, mode: Proposals, base: Attempt) -> tuple[Candidate, ...]:
        """Return negative prompts about the base image, the highest salience first."""
        stages, caption = self._stages, None
        if mode != "prompt-only":
            caption = await stages.describe(base.render.image)
        reason = base.verdict.reason
        proposal = await stages.propose(self.prompt, caption, reason, self._budget, mode)
        if not proposal.negatives:
            return ()
        return await stages.rank(self.prompt, proposal.negatives)

    async def _attempt(
        self, shot: Shot, candidate: Candidate | None, checklist: Checklist
    ) -> Attempt:
        render = await self._stages.generate(shot)
        verdict = await self._stages.verify(self.prompt, checklist, render.image)
        return Attempt(candidate, render, verdict)


def shuffled(candidates: Sequence[Candidate], prompt: str, seed: int) -> tuple[Candidate, ...]:
    """Return candidates in an order that nothing but prompt, seed and their words determines."""

    def draw(candidate: Candidate) -> bytes:
        return hashlib.sha256(f"{seed}\n{prompt}\n{candidate.negative.text}".encode()).digest()

    return tuple(sorted(candidates, key=draw))


def _try(shot: Shot, attempt: Attempt) -> Try:
    candidate, verdict = attempt.candidate, attempt.verdict
    return Try(
        shot,
        verdict.correct,
        verdict.score,
        attempt.render.forwards,
        None if candidate is None else candidate.negative.kind,
        None if candidate is None else candidate.score,
        attempt.render.fallbacks,
    )
