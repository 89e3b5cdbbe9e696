"""What a benchmark is: numbered prompts, a judgement of every image, a score over all of them.

Making the images, keeping the judgements and printing tables are left to others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL.Image import Image

from npc_local.backends.base import Backend
from npc_local.bench.suites.published import Figure
from npc_local.core.records import Checklist


@dataclass(frozen=True, slots=True)
class BenchItem:
    """One prompt of a benchmark.

    `number` counts from 1 in the order of publication and names the image file. `group` is the tag
    or the merged type that the score is split by, `record` the record as published. `checklist` is
    what the loop's verifier may be given; None leaves the checklist to the verifier.
    """

    number: int
    prompt: str
    group: str
    record: Mapping[str, Any]
    checklist: Checklist | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the judge says of one image. A judge call that failed has none.

    `correct` is None where a benchmark only grades. `score` is 0 or 1, or a grade from 0 to 10, as
    the suite's `best` says; `parts` holds what it is made of.
    """

    correct: bool | None
    score: float
    parts: Mapping[str, float]
    reason: str


JudgedImage = tuple[BenchItem, Judgement | None]
"""An image of a prompt with its judgement; None where the judge call failed."""


@dataclass(frozen=True, slots=True)
class GroupScore:
    """The mean score of one tag or type: None without images, or while a judge call is missing."""

    value: float | None
    images: int
    errors: int


@dataclass(frozen=True, slots=True)
class Score:
    """The score of many images. `headline` is None while any judge call is missing.

    A failed call is never a wrong answer: it is counted in `errors`, and what it would have entered
    is withheld. `others` are further numbers, each under the name that tells it from the headline.
    """

    headline: float | None
    groups: Mapping[str, GroupScore]
    others: Mapping[str, float | None]
    images: int
    errors: int


class Suite(Protocol):
    """A benchmark: its prompts, its judge, its formula."""

    name: str
    title: str
    headline: str
    """What the headline number is."""
    best: float
    """The score of a perfect image: 1 or 10."""
    groups: tuple[str, ...]
    published: tuple[Figure, ...]
    weights: Mapping[str, float]
    """What each group counts for in the headline."""
    metadata: str
    """The name under which the published harness reads the records."""
    asks: bool
    """Whether judging takes a backend."""

    def items(self) -> tuple[BenchItem, ...]:
        """Every prompt, in the order of publication."""
        ...

    def fingerprint(self) -> str:
        """Return a digest of the records: other prompts are another benchmark."""
        ...

    def judgement_key(self, backend: Backend | None, item: BenchItem) -> Mapping[str, Any]:
        """Return, as JSON data, all but the image that decides the judgement of an item."""
        ...

    async def judge(self, backend: Backend | None, item: BenchItem, image: Image) -> Judgement:
        """Judge one image.

        Raises:
            BackendError: the judge gave no valid answer. That is no judgement, and no wrong one.
            ConfigError: the suite asks a backend, and there is none.
        """
        ...

    def score(self, judged: Sequence[JudgedImage]) -> Score:
        """Score images, in any order; an item may come more than once, with another seed."""
        ...
