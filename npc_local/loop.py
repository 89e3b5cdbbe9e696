"""The paper's algorithm for one prompt (arXiv 2512.07702, "The loop").

Generate, verify; if wrong: caption, propose, rank, and regenerate with one negative prompt after
the other until an image is correct. What a step is, who does it, and whether it
has been done before are `stages`' matter.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Literal, TypeVar

from npc_local.core.errors import NpcError
from npc_local.core.records import (
    Attempt,
    Candidate,
    Caption,
    Checklist,
    Correction,
    Proposal,
    Rejected,
    Render,
    Shot,
    Status,
    Verdict,
)
from npc_local.run.components import Components
from npc_local.run.stages import Stages

StageName = Literal["checklist", "generate", "verify", "caption", "propose", "rank"]
StageValue = Checklist | Render | Verdict | Caption | Proposal | tuple[Candidate, ...]
T = TypeVar("T", bound=StageValue)


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A step begins. `index` is the attempt it belongs to; 0 is the original image."""

    name: StageName
    index: int


@dataclass(frozen=True, slots=True)
class StageFinished:
    """A step has ended well, after `seconds`, with the record it made."""

    name: StageName
    index: int
    seconds: float
    value: StageValue


Watch = Callable[[StageStarted | StageFinished], None]


def ignore(event: StageStarted | StageFinished) -> None:
    """Watch nothing."""


async def correct(
    prompt: str,
    components: Components | None = None,
    *,
    stages: Stages | None = None,
    seed: int,
    candidates: int = 5,
    checklist: Checklist | None = None,
    watch: Watch = ignore,
) -> Correction:
    """Look for an image that matches `prompt`, with at most `candidates` negative prompts.

    Give either a `components`, or the `stages` that several prompts share. `prompt` has passed
    `prompts.check_prompt`. `checklist` says what its images are checked for, where that is known
    already, from a benchmark's metadata for example; None asks the verifier, before the first
    image. `watch` is told when each step begins and ends, in the event loop's thread; an exception
    it raises ends the search.

    An `NpcError` on the way gives status "error" with everything judged so far and no answer. An
    image whose verification failed has no verdict and is in no attempt: it went to `watch`, as the
    value of its "generate" step, before it was judged, and counts in `forwards`. Anything else
    propagates, cancellation included; an image in the making is then finished by its thread and
    dropped.
    """
    if stages is None:
        if components is None:
            raise TypeError("correct() takes a stages")
        stages = Stages(components)
    elif components is not None:
        raise TypeError("correct() takes a stages, not both")
    begun = perf_counter()
    search = _Search(prompt, stages, seed, candidates, watch, checklist)
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
    stages: Stages
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
        stages, prompt, components = self.stages, self.prompt, self.stages.components
        for part in (components.verifier, components.proposer, components.scorer):
            part.accepts(prompt)

        # 1. What must hold, from the words alone; generate and verify. Nothing else runs for an
        # image that is right at once.
        if self.checklist is None:
            self.checklist = await self._step("checklist", 0, stages.checklist(prompt))
        original = self.original = await self._attempt(None, self.checklist, index=0)
        if original.verdict.correct:
            return "already-correct", original

        # 2. Describe what came out; 3. propose what to steer away from, knowing why it failed.
        image, reason = original.render.image, original.verdict.reason
        if components.rules.proposals != "prompt-only":
            self.caption = await self._step("caption", 0, stages.describe(image))
        proposal = await self._step(
            "propose", 0, stages.propose(prompt, self.caption, reason, self.count)
        )
        self.rejected = proposal.rejected
        if not proposal.negatives:
            return "best-effort", original

        # 4. Rank by salience, in text space: no image is made.
        self.candidates = await self._step("rank", 0, stages.rank(prompt, proposal.negatives))

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
        negative = None if candidate is None else candidate.negative.text
        shot = Shot(self.prompt, negative, self.seed)
        render = await self._step("generate", index, self.stages.generate(shot))
        self.forwards += render.forwards
        verdict = await self._step(
            "verify", index, self.stages.verify(self.prompt, checklist, render.image)
        )
        return Attempt(candidate, render, verdict)

    async def _step(self, name: StageName, index: int, work: Awaitable[T]) -> T:
        """Await one step of the method, telling `watch` before and after."""
        self.watch(StageStarted(name, index))
        begun = perf_counter()
        value = await work
        self.watch(StageFinished(name, index, perf_counter() - begun, value))
        return value
