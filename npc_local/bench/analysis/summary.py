"""From results to numbers, as plain data: what the judge says, how sure, and at what cost.

A number that a failed step would enter is withheld (None) and the failures counted. The paper's
figures are in a place of their own. How the numbers are shown is `tables`' matter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

from npc_local.bench.analysis import statistics
from npc_local.bench.arms import ARMS
from npc_local.bench.results import ArmResult, TriedShot
from npc_local.bench.suites.scoring import mean
from npc_local.bench.suites.suite import Suite
from npc_local.run.journal.journal import Ledger

_Key = tuple[int, int]  # a prompt's number and a seed


def summary(
    suite: Suite,
    results: Sequence[ArmResult],
    arms: Sequence[str],
    *,
    judge: str,
    costs: Mapping[str, Ledger],
) -> dict[str, Any]:
    """Return everything that the tables show.

    Args:
        suite: the benchmark.
        results: of every arm for the same tasks, in any order.
        arms: the arms, in the order to show them.
        judge: who judged, in words.
        costs: what the whole run has cost.
    """
    by_arm = {arm: [result for result in results if result.arm == arm] for arm in arms}
    tasks = by_arm[arms[0]]
    failing = {_key(result) for result in results if result.tried and not result.tried[0].correct}
    return {
        "suite": suite.name,
        "title": suite.title,
        "headline": suite.headline,
        "best": suite.best,
        "groups": list(suite.groups),
        "judge": judge,
        "prompts": len({result.task.item.number for result in tasks}),
        "of_prompts": len(suite.items()),
        "different_prompts": len({result.task.item.prompt for result in tasks}),
        "seeds": sorted({result.task.seed for result in tasks}),
        "failing": len(failing),
        "errors": _errors(results),
        "arms": {arm: _arm(suite, arm, by_arm[arm], failing) for arm in arms},
        "pairs": [_pair(suite, a, b, by_arm[a], by_arm[b]) for a, b in combinations(arms, 2)],
        "agreement": _agreement(results),
        "costs": {
            kind: {"steps": spent.steps, "failures": spent.failures, **asdict(spent.cost)}
            for kind, spent in costs.items()
        },
        "published": [asdict(figure) for figure in suite.published],
    }


def _arm(
    suite: Suite, arm: str, results: Sequence[ArmResult], failing: set[_Key]
) -> dict[str, Any]:
    score = suite.score([(result.task.item, result.judgement) for result in results])
    judged = [
        (result.task.item.group, result.task.item.prompt, result.judgement.score)
        for result in results
        if result.judgement is not None
    ]
    groups = {}
    for group, found in score.groups.items():
        of_group = [one for one in judged if one[0] == group]
        sure = statistics.interval(of_group, {group: 1.0}) if found.value is not None else None
        groups[group] = {**asdict(found), "interval_95": sure}
    ended = [result for result in results if result.answer is not None]
    wrong = [result for result in ended if _key(result) in failing]
    complete = len(ended) == len(results)
    return {
        "about": ARMS[arm].about if arm in ARMS else "images made elsewhere",
        "images": score.images,
        "errors": {
            work: sum(result.failed == work for result in results) for work in ("loop", "judge")
        },
        "score": score.headline,
        "interval_95": (
            None if score.headline is None else statistics.interval(judged, suite.weights)
        ),
        "groups": groups,
        "others": dict(score.others),
        "verifier": _verifier(suite, results) if complete else None,
        "corrected": mean(float(r.answer.correct) for r in wrong if r.answer) if complete else None,
        "images_per_failing_prompt": mean(float(len(r.more)) for r in wrong) if complete else None,
        "forwards_per_failing_prompt": (
            mean(float(sum(shot.forwards for shot in r.more)) for r in wrong) if complete else None
        ),
        "by_number": _by_number([result.more for result in wrong]),
        "by_kind": _by_kind([shot for result in wrong for shot in result.more]),
        "fallbacks": _fallbacks(ended),
    }


def _fallbacks(results: Iterable[ArmResult]) -> dict[str, int]:
    """Return how many results have an image made with each way of getting along with less memory.

    The images before the result count as well: the arm would have stopped at another.
    """
    counted: Counter[str] = Counter()
    for result in results:
        counted.update({name for shot in result.tried for name in shot.fallbacks})
    return dict(sorted(counted.items()))


def _verifier(suite: Suite, results: Iterable[ArmResult]) -> dict[str, Any] | None:
    """Return how often the verifier finds the result correct, by group and over the groups."""
    shares: dict[str, float] = {}
    for group in suite.groups:
        right = [
            float(result.answer.correct)
            for result in results
            if result.answer is not None and result.task.item.group == group
        ]
        if (share := mean(right)) is not None:
            shares[group] = share
    weight = sum(suite.weights[group] for group in shares)
    if not weight:
        return None
    over_all = sum(suite.weights[group] * share for group, share in shares.items()) / weight
    return {"groups": shares, "mean_of_groups": over_all}


def _pair(
    suite: Suite, a: str, b: str, first: Sequence[ArmResult], second: Sequence[ArmResult]
) -> dict[str, Any]:
    """Compare two arms on the same prompts and seeds; nothing while a judgement is missing."""
    found: dict[str, Any] = {
        "first": a,
        "second": b,
        "difference": None,
        "interval_95": None,
        "only_first": None,
        "only_second": None,
        "p": None,
    }
    others = {_key(result): result.judgement for result in second}
    differences, verdicts = [], []
    for result in first:
        one, other = result.judgement, others.get(_key(result))
        if one is None or other is None:
            return found
        item = result.task.item
        differences.append((item.group, item.prompt, other.score - one.score))
        if one.correct is not None and other.correct is not None:
            verdicts.append((one.correct, other.correct))
    scores = [
        suite.score([(result.task.item, result.judgement) for result in results]).headline
        for results in (first, second)
    ]
    if scores[0] is not None and scores[1] is not None:
        found["difference"] = scores[1] - scores[0]
    found["interval_95"] = statistics.interval(differences, suite.weights)
    if verdicts:
        only_first = sum(one and not other for one, other in verdicts)
        only_second = sum(other and not one for one, other in verdicts)
        found |= {
            "only_first": only_first,
            "only_second": only_second,
            "p": statistics.mcnemar(only_first, only_second),
        }
    return found


def _agreement(results: Iterable[ArmResult]) -> dict[str, Any]:
    """Compare judge and verifier over the different images that both have judged."""
    seen = {}
    for result in results:
        if result.answer is not None and result.judgement is not None:
            seen[_key(result), result.answer.shot] = result.answer, result.judgement
    verdicts = [
        (verdict.correct, judgement.correct)
        for verdict, judgement in seen.values()
        if judgement.correct is not None
    ]
    grades = [(verdict.score, judgement.score) for verdict, judgement in seen.values()]
    return {
        "images": len(seen),
        "both_correct": sum(one and other for one, other in verdicts),
        "both_wrong": sum(not one and not other for one, other in verdicts),
        "only_verifier": sum(one and not other for one, other in verdicts),
        "only_judge": sum(other and not one for one, other in verdicts),
        "kappa": statistics.kappa(verdicts),
        "rank_correlation": statistics.rank_correlation(grades) if not verdicts else None,
    }


def _errors(results: Sequence[ArmResult]) -> list[dict[str, Any]]:
    """Return what failed, the most frequent first, with how many results lack it."""
    counted = Counter((result.failed, result.error) for result in results if result.error)
    ordered = sorted(counted.items(), key=lambda one: (-one[1], str(one[0])))
    return [{"in": work, "error": error, "results": number} for (work, error), number in ordered]


def _by_number(tries: Sequence[Sequence[TriedShot]]) -> list[dict[str, Any]]:
    """How often an arm's first, second, ... image was right; for npc that is rank by salience."""
    longest = max(map(len, tries), default=0)
    columns = [[one[i].correct for one in tries if len(one) > i] for i in range(longest)]
    return [{"images": len(column), "right": mean(map(float, column))} for column in columns]


def _by_kind(tries: Iterable[TriedShot]) -> dict[str, Any]:
    """How often one image with a negative prompt of a kind was right."""
    kinds: dict[str, list[float]] = {}
    for one in tries:
        kinds.setdefault(one.kind or "no negative", []).append(float(one.correct))
    return {
        kind: {"images": len(right), "right": mean(right)} for kind, right in sorted(kinds.items())
    }


def _key(result: ArmResult) -> _Key:
    return result.task.item.number, result.task.seed
