"""What came of each arm for each prompt, without images: what the tables are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from npc_local.bench.suites.suite import BenchItem, Judgement
from npc_local.core.records import Attempt, Kind, Shot


@dataclass(frozen=True, slots=True)
class Task:
    """One prompt under one benchmark seed."""

    item: BenchItem
    seed: int

    @property
    def image_seed(self) -> int:
        """The base image's seed: of its own, also where two items have one prompt."""
        return 10_000 * self.seed + self.item.number


@dataclass(frozen=True, slots=True)
class TriedShot:
    """One image of an arm as the verifier found it; an `Attempt` without the image.

    `kind` and `salience` are of its negative, `fallbacks` as in its `Render`.
    """

    shot: Shot
    correct: bool
    score: float
    forwards: int
    kind: Kind | None = None
    salience: float | None = None
    fallbacks: tuple[str, ...] = ()

    @classmethod
    def of(cls, attempt: Attempt) -> TriedShot:
        """Take over what an attempt says."""
        candidate, verdict, render = attempt.candidate, attempt.verdict, attempt.render
        return cls(
            attempt.shot,
            verdict.correct,
            verdict.score,
            render.forwards,
            None if candidate is None else candidate.negative.kind,
            None if candidate is None else candidate.score,
            render.fallbacks,
        )


@dataclass(frozen=True, slots=True)
class ArmResult:
    """What came of one arm for one task.

    Attributes:
        tried: its images, the base image first; none if a stage failed, or if the image was made
            elsewhere.
        answer: which of them the judge is shown.
        judgement: what it says; None if there is none, or the judge call failed.
        error: what failed; None if nothing did.
        failed: in whose work.
        exit_code: of that error; 0 if nothing failed.
    """

    task: Task
    arm: str
    tried: tuple[TriedShot, ...] = ()
    answer: TriedShot | None = None
    judgement: Judgement | None = None
    error: str | None = None
    failed: Literal["loop", "judge"] | None = None
    exit_code: int = 0

    @property
    def more(self) -> tuple[TriedShot, ...]:
        """Its images beyond the base image."""
        return self.tried[1:]
