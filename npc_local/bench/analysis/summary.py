"""The numbers of one run of a benchmark, typed: what its tables show and its JSON holds.

None stands for a number that is withheld, because a failed stage would enter it, or that there is
none of. How they come about is left to `summarise`, how they look to `tables`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from npc_local.bench.analysis.statistics import Interval
from npc_local.bench.suites.published import Figure


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """One tag or type in one arm: its mean score, images, and failed judge calls."""

    value: float | None
    images: int
    errors: int
    interval_95: Interval | None


@dataclass(frozen=True, slots=True)
class ArmErrors:
    """Results that lack something, by whose work failed."""

    loop: int
    judge: int


@dataclass(frozen=True, slots=True)
class VerifierSummary:
    """The share of results that the verifier finds correct, by group and over the groups."""

    groups: Mapping[str, float]
    mean_of_groups: float


@dataclass(frozen=True, slots=True)
class RightShare:
    """How many images there were, and which share of them the verifier found correct."""

    images: int
    right: float | None


@dataclass(frozen=True, slots=True)
class ArmSummary:
    """One arm.

    Attributes:
        about: in words.
        images: results, judged or not.
        errors: what they lack.
        score: the headline, by the judge.
        interval_95: of the score.
        groups: by tag or type.
        others: further numbers by the judge, each under the name that tells it from the headline.
        verifier: what the verifier says of the results.
        corrected: the share of failing prompts whose result the verifier finds correct.
        images_per_failing_prompt: after the base image, on average.
        forwards_per_failing_prompt: denoiser forwards after the base image, on average.
        by_number: the first, second, ... image after a failing base image.
        by_kind: those images by the kind of their negative prompt.
        fallbacks: results with an image made with each way of getting along with less memory.
    """

    about: str
    images: int
    errors: ArmErrors
    score: float | None
    interval_95: Interval | None
    groups: Mapping[str, GroupSummary]
    others: Mapping[str, float | None]
    verifier: VerifierSummary | None
    corrected: float | None
    images_per_failing_prompt: float | None
    forwards_per_failing_prompt: float | None
    by_number: tuple[RightShare, ...]
    by_kind: Mapping[str, RightShare]
    fallbacks: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two arms on the same prompts and seeds: the second less the first, and who alone was right.

    `p` is of McNemar's exact test.
    """

    first: str
    second: str
    difference: float | None = None
    interval_95: Interval | None = None
    only_first: int | None = None
    only_second: int | None = None
    p: float | None = None


@dataclass(frozen=True, slots=True)
class Agreement:
    """Judge and verifier on the different images that both have judged.

    `kappa` is Cohen's, for a judge that says right or wrong; `rank_correlation` Spearman's, for one
    that grades.
    """

    images: int
    both_correct: int
    both_wrong: int
    only_verifier: int
    only_judge: int
    kappa: float | None
    rank_correlation: float | None


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """What failed, in whose work, and how many results lack it."""

    in_: Literal["loop", "judge"]
    error: str
    results: int


@dataclass(frozen=True, slots=True)
class StageCosts:
    """What all stages of a kind took: `journal.Ledger` in one row."""

    steps: int
    failures: int
    forwards: int
    calls: int
    tokens_in: int
    tokens_out: int
    seconds: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Summary:
    """One selection of a benchmark's prompts, arms and seeds.

    Attributes:
        suite: the benchmark's name.
        title: and how it is written.
        headline: what the headline number is.
        best: the score of a perfect image: 1 or 10.
        groups: tags or types, in the order to show them.
        judge: who judged, in words.
        prompts: how many were run.
        of_prompts: how many there are.
        different_prompts: how many of those that were run are not the same words.
        seeds: benchmark seeds.
        failing: base images that the verifier finds wrong.
        errors: the most frequent first.
        arms: by name, in the order to show them.
        pairs: every two arms.
        agreement: of judge and verifier.
        costs: of the whole run, by kind of stage.
        published: the paper's figures.
        network: what was refused or allowed beyond this machine (`egress.report`).
    """

    suite: str
    title: str
    headline: str
    best: float
    groups: tuple[str, ...]
    judge: str
    prompts: int
    of_prompts: int
    different_prompts: int
    seeds: tuple[int, ...]
    failing: int
    errors: tuple[ErrorCount, ...]
    arms: Mapping[str, ArmSummary]
    pairs: tuple[Pair, ...]
    agreement: Agreement
    costs: Mapping[str, StageCosts]
    published: tuple[Figure, ...]
    network: Mapping[str, Any] = field(default_factory=dict)

    def data(self) -> dict[str, Any]:
        """Return it as what becomes JSON; the names of the fields are those of its keys."""
        return asdict(self, dict_factory=_keys)


def _keys(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Name keys as fields, but for `in_`: `in` can be no field's name."""
    return {name.removesuffix("_"): value for name, value in items}
