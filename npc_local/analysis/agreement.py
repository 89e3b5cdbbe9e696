"""What the journal of a benchmark says about the method: ranking, kinds of negatives, the caption.

The score is the verifier's. How the searches are found is left to `searches`, tables to
`agreement_tables`. Source of the measures: the paper's "Reported results" (arXiv 2512.07702).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from npc_local.analysis.searches import KeptSearch, Tried, searches
from npc_local.bench.analysis import statistics
from npc_local.bench.analysis.statistics import Interval, Observation
from npc_local.bench.suites.scoring import mean
from npc_local.core.records import Candidate, Kind, Proposals
from npc_local.run.journal.journal import Journal

Rescore = Callable[[Sequence[tuple[str, Sequence[str]]]], Sequence[Sequence[float]]]
"""Scores of the negative prompts of each (prompt, negative prompts)."""
_ALL = {"": 1.0}  # one group: these measures are not split by tag


@dataclass(frozen=True, slots=True)
class PairCounts:
    """How often the better-ranked of two tried candidates has the better verifier score.

    `agreement` leaves ties apart.
    """

    pairs: int
    better: int
    worse: int
    ties: int
    agreement: float | None
    interval_95: Interval | None


@dataclass(frozen=True, slots=True)
class Effort:
    """How many images it took and how often one was right, over the searches run to the end."""

    searches: int
    incomplete: int
    images_per_failing_prompt: float | None
    images_interval_95: Interval | None
    corrected: float | None
    corrected_interval_95: Interval | None


@dataclass(frozen=True, slots=True)
class KindShare:
    """How many images with a kind of negative prompt there were, and which share was right."""

    images: int
    right: float | None
    interval_95: Interval | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two ways of proposing on the same wrong base images; the difference is second less first."""

    first: Proposals
    second: Proposals
    searches: int
    corrected: tuple[float | None, float | None]
    only_first: int
    only_second: int
    p: float
    images_difference: float | None
    images_difference_95: Interval | None


@dataclass(frozen=True, slots=True)
class AgreementReport:
    """All measures; `asdict` gives the JSON.

    An order counts if every search was run to its end in it, else its measures are None and its arm
    is in `missing_arms`: the tries of one arm complete the order of another mostly where all were
    wrong.

    Attributes:
        failing: wrong base images.
        missing_arms: arms that were not run, or not to the end.
        ranking: by which pairs, in which order, are compared.
        effort: of npc's candidates, ranked and in random order.
        kinds: tried in random order, whatever their rank.
        proposals: the effort of the other ways of proposing, ranked.
        caption: from the prompt alone against from the caption.
        kind_arms: untargeted only against targeted only.
    """

    failing: int
    missing_arms: tuple[str, ...]
    ranking: Mapping[str, PairCounts | None]
    effort: Mapping[str, Effort | None]
    kinds: Mapping[Kind, KindShare] | None
    proposals: Mapping[Proposals, Effort]
    caption: Comparison | None
    kind_arms: Comparison | None


Worth = Callable[[KeptSearch, Candidate], float]
Walk = list[Tried] | None  # None: not run to its end
Walks = Sequence[tuple[KeptSearch, list[Tried]]]


def report(journal: Journal, other: Mapping[str, Rescore] | None = None) -> AgreementReport:
    """Return the measures; errors as `searches`.

    `other` names further ways of scoring, to be compared on the same pairs.
    """
    kept = sorted(searches(journal), key=lambda search: (search.prompt, search.seed))
    ways = sorted({search.proposals for search in kept})
    by_way = {way: [search for search in kept if search.proposals == way] for way in ways}
    ours = by_way.get("caption", [])
    ranked, at_random = [s.ranked() for s in ours], [s.at_random() for s in ours]
    complete = {
        arm: None not in walks and bool(ours or not kept)
        for arm, walks in (("npc", ranked), ("random-rank", at_random))
    }
    unbiased: Walks | None = None
    if complete["random-rank"]:
        unbiased = [(search, walk or []) for search, walk in zip(ours, at_random, strict=True)]
    worths: dict[str, Worth] = {"targeted before untargeted": _targeted_first}
    worths |= {name: _rescored(ours, rescore) for name, rescore in (other or {}).items()}
    return AgreementReport(
        failing=len({(search.prompt, search.seed) for search in kept}),
        missing_arms=tuple(arm for arm, is_complete in complete.items() if not is_complete),
        ranking={
            "tried in random order": (None if unbiased is None else _pairs(unbiased, _salience)),
            "all tried": _pairs([(search, search.tried()) for search in ours], _salience),
            **{
                f"tried in random order, if ranked otherwise: {name}": (
                    None if unbiased is None else _pairs(unbiased, worth)
                )
                for name, worth in worths.items()
            },
        },
        effort={
            "ranked": _effort(ours, ranked) if complete["npc"] else None,
            "random order": _effort(ours, at_random) if complete["random-rank"] else None,
        },
        kinds=None if unbiased is None else _kinds(unbiased),
        proposals={
            way: _effort(of_way, [search.ranked() for search in of_way])
            for way, of_way in by_way.items()
            if way != "caption"
        },
        caption=_compared(by_way, "prompt-only", "caption") if complete["npc"] else None,
        kind_arms=_compared(by_way, "untargeted-only", "targeted-only"),
    )


def _salience(_search: KeptSearch, candidate: Candidate) -> float:
    return candidate.score


def _targeted_first(_search: KeptSearch, candidate: Candidate) -> float:
    return float(candidate.negative.kind == "targeted")


def _rescored(kept: Sequence[KeptSearch], rescore: Rescore) -> Worth:
    """Return the worth of candidates by another scorer, asked for all of them at once."""
    texts = [[candidate.negative.text for candidate in search.candidates] for search in kept]
    scores = rescore([(search.prompt, each) for search, each in zip(kept, texts, strict=True)])
    known = {
        (search.prompt, text): score
        for search, each, row in zip(kept, texts, scores, strict=True)
        for text, score in zip(each, row, strict=True)
    }
    return lambda search, candidate: known[search.prompt, candidate.negative.text]


def _pairs(walks: Walks, worth: Worth) -> PairCounts:
    """Compare every two tries of each search. Two of the same worth are no pair."""
    better = worse = ties = 0
    observed: list[Observation] = []
    for search, tries in walks:
        for (candidate, verdict), (other, other_verdict) in combinations(tries, 2):
            ahead = worth(search, candidate) - worth(search, other)
            if not ahead:
                continue
            first, second = verdict.score, other_verdict.score
            if ahead < 0:
                first, second = second, first
            if first == second:
                ties += 1
                continue
            better += first > second
            worse += first < second
            observed.append(("", search.prompt, float(first > second)))
    return PairCounts(
        pairs=better + worse + ties,
        better=better,
        worse=worse,
        ties=ties,
        agreement=better / (better + worse) if better + worse else None,
        interval_95=statistics.interval(observed, _ALL),
    )


def _effort(kept: Sequence[KeptSearch], walks: Sequence[Walk]) -> Effort:
    complete = [
        (search.prompt, walk) for search, walk in zip(kept, walks, strict=True) if walk is not None
    ]
    images = [("", prompt, float(len(walk))) for prompt, walk in complete]
    corrected = [("", prompt, float(_is_corrected(walk))) for prompt, walk in complete]
    return Effort(
        searches=len(complete),
        incomplete=len(kept) - len(complete),
        images_per_failing_prompt=_mean(images),
        images_interval_95=statistics.interval(images, _ALL),
        corrected=_mean(corrected),
        corrected_interval_95=statistics.interval(corrected, _ALL),
    )


def _kinds(walks: Walks) -> dict[Kind, KindShare]:
    """How often an image with a negative prompt of a kind was right, whatever its rank."""
    kinds: dict[Kind, list[Observation]] = {"targeted": [], "untargeted": []}
    for search, tries in walks:
        for candidate, verdict in tries:
            kinds[candidate.negative.kind].append(("", search.prompt, float(verdict.correct)))
    return {
        kind: KindShare(len(right), _mean(right), statistics.interval(right, _ALL))
        for kind, right in kinds.items()
    }


def _compared(
    by_way: Mapping[Proposals, Sequence[KeptSearch]], first: Proposals, second: Proposals
) -> Comparison | None:
    """Compare two ways of proposing on the base images that both were complete for."""
    before, after = (
        {
            (search.prompt, search.seed): walk
            for search in by_way.get(way, ())
            if (walk := search.ranked())
        }
        for way in (first, second)
    )
    shared = sorted(before.keys() & after.keys())
    if not shared:
        return None
    right = [(_is_corrected(before[place]), _is_corrected(after[place])) for place in shared]
    images = [("", place[0], float(len(after[place]) - len(before[place]))) for place in shared]
    only_first = sum(left and not other for left, other in right)
    only_second = sum(other and not left for left, other in right)
    return Comparison(
        first=first,
        second=second,
        searches=len(shared),
        corrected=(mean(float(left) for left, _ in right), mean(float(r) for _, r in right)),
        only_first=only_first,
        only_second=only_second,
        p=statistics.mcnemar(only_first, only_second),
        images_difference=_mean(images),
        images_difference_95=statistics.interval(images, _ALL),
    )


def _is_corrected(walk: Sequence[Tried]) -> bool:
    return bool(walk) and walk[-1][1].correct


def _mean(observed: Iterable[Observation]) -> float | None:
    return mean(value for _, _, value in observed)
