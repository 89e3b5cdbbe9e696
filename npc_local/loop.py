"""The paper's algorithm for one prompt (arXiv 2512.07702, "The loop").

Generate and verify; if the image is wrong: caption, propose, rank, and regenerate with one negative
prompt after the other until an image is correct. `correct` is the way in, `npc` the paper's plan,
and `Search` what every plan shares; plans to compare it with are in `plans`. Who does a stage, and
whether it has been done before, is left to the stages; files, servers and screens to callers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from time import perf_counter
from typing import Literal, Protocol, TypeVar

from PIL.Image import Image

from npc_local.core.errors import NpcError, as_error
from npc_local.core.records import (
    Attempt,
    Candidate,
    Caption,
    Checklist,
    Correction,
    Negative,
    Proposal,
    Proposals,
    Rejected,
    Render,
    Shot,
    Status,
    Verdict,
)

StageName = Literal["checklist", "generate", "verify", "caption", "propose", "rank"]
StageValue = Checklist | Render | Verdict | Caption | Proposal | tuple[Candidate, ...]
T = TypeVar("T", bound=StageValue)


class MethodStages(Protocol):
    """The stages of the method, as a search needs them; each raises `NpcError` if it fails."""

    @property
    def proposals(self) -> Proposals:
        """What negative prompts are proposed from, where a plan does not say."""
        ...

    def accepts(self, prompt: str) -> None:
        """Raise `PromptError` unless all who have to read the prompt can work from it."""
        ...

    async def checklist(self, prompt: str) -> Checklist:
        """Derive from the prompt alone what its images are checked for."""
        ...

    async def generate(self, shot: Shot) -> Render:
        """Make one image."""
        ...

    async def verify(self, prompt: str, checklist: Checklist, image: Image) -> Verdict:
        """Judge one image."""
        ...

    async def describe(self, image: Image) -> Caption:
        """Describe one image, without knowing the prompt."""
        ...

    async def propose(
        self,
        prompt: str,
        caption: Caption | None,
        reason: str,
        count: int,
        proposals: Proposals | None = None,
    ) -> Proposal:
        """Propose at most `count` negative prompts; `proposals` None takes the stages' own rule."""
        ...

    async def rank(self, prompt: str, negatives: Sequence[Negative]) -> tuple[Candidate, ...]:
        """Sort negative prompts by salience, the highest first."""
        ...


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A stage begins. `index` is the attempt it belongs to; 0 is the original image."""

    name: StageName
    index: int


@dataclass(frozen=True, slots=True)
class StageFinished:
    """A stage has ended well, after `seconds`, with the record it made."""

    name: StageName
    index: int
    seconds: float
    value: StageValue


Watch = Callable[[StageStarted | StageFinished], None]


def ignore(event: StageStarted | StageFinished) -> None:
    """Watch nothing."""


@dataclass(frozen=True, slots=True)
class NextShot:
    """The image to make next: with which negative prompt, and seed; None: without, the search's."""

    candidate: Candidate | None = None
    seed: int | None = None


Plan = Callable[["Search", Attempt], AsyncGenerator[NextShot, None]]
"""Which images follow a wrong original, one after the other, until one is correct.

Called with the search and the original. When it is resumed, the image that it asked for last has
been judged and is `search.attempts[-1]`.
"""


async def npc(
    search: Search, original: Attempt, proposals: Proposals | None = None
) -> AsyncGenerator[NextShot, None]:
    """Plan as the paper does; `proposals` None takes the stages' own rule."""
    # 2.-4. Describe what came out; propose what to steer away from; rank by salience.
    candidates = await search.candidates_about(original, proposals)
    # 5. Regenerate in rank order, with the same seed, up to the first correct image.
    for candidate in candidates:
        yield NextShot(candidate)


async def correct(
    prompt: str,
    stages: MethodStages,
    *,
    seed: int,
    candidates: int = 5,
    plan: Plan = npc,
    checklist: Checklist | None = None,
    watch: Watch = ignore,
    on_unfinished: Callable[[Correction], object] | None = None,
) -> Correction:
    """Look for an image that matches `prompt`.

    An error of one stage is in what is returned: status "error", everything judged so far, no
    answer. An image whose verification failed has no verdict and is in no attempt: it went to
    `watch`, as the value of its "generate" stage, and counts in `forwards`.

    All else propagates: errors that end a run, cancellation, an interrupt, a bug, and what `watch`
    raises. `on_unfinished` is then handed what there is so far, status "error" and no answer,
    before the exception goes on: whoever keeps results need not collect them from events. An image
    in the making is finished by its thread and dropped.

    Args:
        prompt: has passed `prompts.check_prompt`.
        stages: do the work.
        seed: of the original image, and of all that a plan asks for without one.
        candidates: how many images a plan may ask for.
        plan: which images follow a wrong original.
        checklist: what the images are checked for, where that is known already, from a benchmark's
            metadata for example; None asks the verifier, before the first image.
        watch: is told when each stage begins and ends, in the event loop's thread.
        on_unfinished: takes the result of a search that does not return one.

    Raises:
        StorageError, ConfigError, DeviceLostError: another prompt would fail as well.
    """
    search = Search(prompt, stages, seed, candidates, watch, checklist)
    try:
        status, answer = await search.run(plan)
        return search.correction(status, answer)
    except (Exception, asyncio.CancelledError, KeyboardInterrupt) as failure:
        unfinished = search.correction("error", error=as_error(failure))
        if isinstance(failure, NpcError) and not failure.ends_run:
            return unfinished
        if on_unfinished is not None:
            on_unfinished(unfinished)
        raise


@dataclass
class Search:
    """One prompt's search, and what it has found so far.

    Attributes:
        prompt: what the images should show.
        stages: do the work.
        seed: of the original image.
        count: how many images a plan may ask for.
        watch: is told of each stage.
        checklist: what the images are checked for, once it is known.
        original: the first image, once it is judged.
        attempts: the images after it that are judged.
        caption: of the image that was described last.
        candidates: the negative prompts so far, as they were ranked.
        rejected: what was proposed and cannot be used.
        forwards: of the denoiser, for all images made, judged or not.
    """

    prompt: str
    stages: MethodStages
    seed: int
    count: int
    watch: Watch = ignore
    checklist: Checklist | None = None
    original: Attempt | None = None
    attempts: list[Attempt] = field(default_factory=list)
    caption: Caption | None = None
    candidates: tuple[Candidate, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    forwards: int = 0
    _begun: float = field(default_factory=perf_counter)

    async def run(self, plan: Plan) -> tuple[Status, Attempt]:
        """Return how the search ended, and with which image."""
        self.stages.accepts(self.prompt)

        # 1. What must hold, from the words alone; generate and verify. Nothing else runs for an
        # image that is right at once.
        if self.checklist is None:
            self.checklist = await self._stage("checklist", 0, self.stages.checklist(self.prompt))
        self.original = original = await self._attempt(NextShot(), self.checklist, index=0)
        if original.verdict.correct:
            return "already-correct", original

        # 2.-5. The plan's images, up to the first correct one.
        async with aclosing(plan(self, original)) as shots:
            async for shot in shots:
                index = len(self.attempts) + 1
                self.attempts.append(await self._attempt(shot, self.checklist, index))
                if self.attempts[-1].verdict.correct:
                    return "corrected", self.attempts[-1]
                if index == self.count:  # a plan that asks for more is no cheaper than it says
                    break

        # None is correct: the best-scored one. max() keeps the earliest on ties.
        judged = [original, *self.attempts]
        return "best-effort", max(judged, key=lambda attempt: attempt.verdict.score)

    async def candidates_about(
        self, attempt: Attempt, proposals: Proposals | None = None
    ) -> tuple[Candidate, ...]:
        """Return negative prompts against what is wrong in an image, the highest salience first.

        `proposals` says what they are proposed from; None takes the stages' own rule.
        """
        proposals = proposals or self.stages.proposals
        stages, index = self.stages, len(self.attempts)

        # 2. Describe what came out.
        caption = None
        if proposals != "prompt-only":
            caption = await self._stage("caption", index, stages.describe(attempt.render.image))
            self.caption = caption

        # 3. Propose what to steer away from, knowing why it failed.
        reason = attempt.verdict.reason
        work = stages.propose(self.prompt, caption, reason, self.count, proposals)
        proposal = await self._stage("propose", index, work)
        self.rejected += proposal.rejected
        if not proposal.negatives:
            return ()

        # 4. Rank by salience, in text space: no image is made.
        ranked = await self._stage("rank", index, stages.rank(self.prompt, proposal.negatives))
        self.candidates += ranked
        return ranked

    def correction(
        self, status: Status, answer: Attempt | None = None, error: NpcError | None = None
    ) -> Correction:
        """Return what has been found until now as the record of a search that ended like this."""
        return Correction(
            prompt=self.prompt,
            seed=self.seed,
            status=status,
            original=self.original,
            attempts=tuple(self.attempts),
            candidates=self.candidates,
            caption=self.caption,
            answer=answer,
            forwards=self.forwards,
            seconds=perf_counter() - self._begun,
            error=None if error is None else str(error),
            exit_code=None if error is None else error.exit_code,
            checklist=self.checklist,
            rejected=self.rejected,
        )

    async def _attempt(self, wanted: NextShot, checklist: Checklist, index: int) -> Attempt:
        """Make one image and have it judged."""
        negative = None if wanted.candidate is None else wanted.candidate.negative.text
        seed = self.seed if wanted.seed is None else wanted.seed
        shot = Shot(self.prompt, negative, seed)
        render = await self._stage("generate", index, self.stages.generate(shot))
        self.forwards += render.forwards
        work = self.stages.verify(self.prompt, checklist, render.image)
        verdict = await self._stage("verify", index, work)
        return Attempt(shot, wanted.candidate, render, verdict)

    async def _stage(self, name: StageName, index: int, work: Awaitable[T]) -> T:
        """Await one stage, telling `watch` before and after."""
        self.watch(StageStarted(name, index))
        begun = perf_counter()
        value = await work
        self.watch(StageFinished(name, index, perf_counter() - begun, value))
        return value
