"""The paper's algorithm for one prompt (arXiv 2512.07702, "The loop").

Generate, verify; if wrong: caption, propose, rank, and regenerate with one negative prompt after
the other until an image is correct. It speaks to protocols only: how images are made, who judges
them, and where anything is kept are left to others.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Literal, TypeVar

from npc_local import roles
from npc_local.backends.base import Backend
from npc_local.diffusion.base import Generator
from npc_local.errors import NpcError
from npc_local.records import (
    Attempt,
    Candidate,
    Caption,
    Checklist,
    Correction,
    Negative,
    Proposal,
    Rejected,
    Render,
    Shot,
    Status,
    Verdict,
)
from npc_local.salience.base import Scorer

StepName = Literal["checklist", "generate", "verify", "caption", "propose", "rank"]
StepValue = Checklist | Render | Verdict | Caption | Proposal | tuple[Candidate, ...]
T = TypeVar("T", bound=StepValue)


@dataclass(frozen=True, slots=True)
class Cast:
    """Who plays: the generator, the three agents, and the scorer that ranks; and by which rules."""

    generator: Generator
    verifier: Backend
    captioner: Backend
    proposer: Backend
    scorer: Scorer
    rules: roles.Rules = field(default_factory=roles.Rules)


@dataclass(frozen=True, slots=True)
class Begin:
    """A step begins. `index` is the attempt it belongs to; 0 is the original image."""

    name: StepName
    index: int


@dataclass(frozen=True, slots=True)
class Step:
    """A step has ended well, after `seconds`, with the record it made."""

    name: StepName
    index: int
    seconds: float
    value: StepValue


Watch = Callable[[Begin | Step], None]


def ignore(event: Begin | Step) -> None:
    """Watch nothing."""


async def correct(
    prompt: str,
    cast: Cast,
    *,
    seed: int,
    candidates: int = 5,
    checklist: Checklist | None = None,
    watch: Watch = ignore,
) -> Correction:
    """Look for an image that matches `prompt`, with at most `candidates` negative prompts.

    `prompt` has passed `prompts.check_prompt`. `checklist` says what its images are checked for,
    where that is known already, from a benchmark's metadata for example; None asks the verifier,
    before the first image. `watch` is told when each step begins and ends, in the event loop's
    thread; an exception it raises ends the search.

    An `NpcError` on the way gives status "error" with everything judged so far and no answer. An
    image whose verification failed has no verdict and is in no attempt: it went to `watch`, as the
    value of its "generate" step, before it was judged, and counts in `forwards`. Anything else
    propagates, cancellation included; an image in the making is then finished by its thread and
    dropped.
    """
    begun = perf_counter()
    search = _Search(prompt, cast, seed, candidates, watch, checklist)
    status: Status
    answer: Attempt | None
    failure: NpcError | None = None
    try:
        status, answer = await search.run()
    except NpcError as error:
        status, answer, failure = "error", None, error
    return Correction(
        prompt=prompt,
        seed=seed,
        status=status,
        original=search.original,
        attempts=tuple(search.attempts),
        candidates=search.candidates,
        caption=search.caption,
        answer=answer,
        forwards=search.forwards,
        seconds=perf_counter() - begun,
        error=None if failure is None else str(failure),
        exit_code=None if failure is None else failure.exit_code,
        checklist=search.checklist,
        rejected=search.rejected,
    )


@dataclass
class _Search:
    """One prompt's search, and what it has found so far (kept when a step fails)."""

    prompt: str
    cast: Cast
    seed: int
    count: int
    watch: Watch
    checklist: Checklist | None = None
    original: Attempt | None = None
    caption: Caption | None = None
    rejected: tuple[Rejected, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    attempts: list[Attempt] = field(default_factory=list)
    forwards: int = 0

    async def run(self) -> tuple[Status, Attempt]:
        """Return how the search ended, and with which image."""
        cast, prompt = self.cast, self.prompt
        for agent in (cast.verifier, cast.proposer):
            agent.accepts(prompt)

        # 1. What must hold, from the words alone; generate and verify. Nothing else runs for an
        # image that is right at once.
        if self.checklist is None:
            self.checklist = await self._step(
                "checklist", 0, roles.checklist(cast.verifier, prompt)
            )
        original = self.original = await self._attempt(None, self.checklist, index=0)
        if original.verdict.correct:
            return "already-correct", original

        # 2. Describe what came out; 3. propose what to steer away from, knowing why it failed.
        image, reason, mode = original.render.image, original.verdict.reason, cast.rules.proposals
        if mode != "prompt-only":
            self.caption = await self._step("caption", 0, roles.describe(cast.captioner, image))
        proposal = await self._step(
            "propose",
            0,
            roles.propose(cast.proposer, prompt, self.caption, reason, self.count, mode),
        )
        self.rejected = proposal.rejected
        if not proposal.negatives:
            return "best-effort", original

        # 4. Rank by salience, in text space: no image is made.
        ranking = asyncio.to_thread(self._rank, proposal.negatives)
        self.candidates = await self._step("rank", 0, ranking)

        # 5. Regenerate in rank order, with the same seed, up to the first correct image.
        for index, candidate in enumerate(self.candidates, start=1):
            attempt = await self._attempt(candidate, self.checklist, index)
            self.attempts.append(attempt)
            if attempt.verdict.correct:
                return "corrected", attempt

        # None is correct: the best-scored one. max() keeps the earliest on ties.
        judged = [original, *self.attempts]
        return "best-effort", max(judged, key=lambda attempt: attempt.verdict.score)

    async def _attempt(
        self, candidate: Candidate | None, checklist: Checklist, index: int
    ) -> Attempt:
        """Make one image and have it judged."""
        # The generator blocks: in a thread of its own it leaves the agents cancellable.
        render = await self._step("generate", index, asyncio.to_thread(self._generate, candidate))
        self.forwards += render.forwards
        verdict = await self._step(
            "verify",
            index,
            roles.verify(self.cast.verifier, self.prompt, checklist, render.image, self.cast.rules),
        )
        return Attempt(candidate, render, verdict)

    def _generate(self, candidate: Candidate | None) -> Render:
        negative = None if candidate is None else candidate.negative.text
        [render] = self.cast.generator.generate([Shot(self.prompt, negative, self.seed)])
        return render

    def _rank(self, negatives: Sequence[Negative]) -> tuple[Candidate, ...]:
        """Sort from the highest salience score down; ties keep the proposer's order."""
        texts = [negative.text for negative in negatives]
        scores = self.cast.scorer.score(self.prompt, texts)
        ranked = [Candidate(*pair) for pair in zip(negatives, scores, strict=True)]
        for candidate in ranked:
            if not math.isfinite(candidate.score):
                raise NpcError(f"salience score of {candidate.negative.text!r} is not a number")
        return tuple(sorted(ranked, key=lambda candidate: candidate.score, reverse=True))

    async def _step(self, name: StepName, index: int, work: Awaitable[T]) -> T:
        """Await one step of the method, telling `watch` before and after."""
        self.watch(Begin(name, index))
        begun = perf_counter()
        value = await work
        self.watch(Step(name, index, perf_counter() - begun, value))
        return value
