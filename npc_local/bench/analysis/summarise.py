"""From results to numbers: what the judge says, how sure, and at what cost.

A number that a failed stage would enter is withheld (None) and the failures counted. The paper's
figures are in a place of their own. How the numbers are shown is left to `tables`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations

from npc_local.bench.analysis import statistics
from npc_local.bench.analysis.summary import (
    Agreement,
    ArmErrors,
    ArmSummary,
    ErrorCount,
    GroupSummary,
    Pair,
    RightShare,
    StageCosts,
    Summary,
    VerifierSummary,
)
from npc_local.bench.arms import ARMS
from npc_local.bench.results import ArmResult, TriedShot
from npc_local.bench.suites.scoring import mean
from npc_local.bench.suites.suite import Suite
from npc_local.run.journal.journal import Ledger

_Key = tuple[int, int]  # a prompt's number and a seed


def summarise(
    suite: Suite,
    results: Sequence[ArmResult],
    arms: Sequence[str],
    *,
    judge: str,
    costs: Mapping[str, Ledger],
) -> Summary:
    """Return everything that the tables show, but for what the network was used for.

    Args:
        suite: the benchmark.
        results: of every arm for the same tasks, in any order.
        arms: the arms, in the order to show them.
        judge: who judged, in words.
        costs: what the whole run has cost.
    """
    by_arm = {arm: [result for result in results if result.arm == arm] for arm in arms}
    of_first = by_arm[arms[0]]
    failing = {_key(result) for result in results if result.tried and not result.tried[0].correct}
    return Summary(
        suite=suite.name,
        title=suite.title,
        headline=suite.headline,
        best=suite.best,
        groups=tuple(suite.groups),
        judge=judge,
        prompts=len({result.task.item.number for result in of_first}),
        of_prompts=len(suite.items()),
        different_prompts=len({result.task.item.prompt for result in of_first}),
        seeds=tuple(sorted({result.task.seed for result in of_first})),
        failing=len(failing),
        errors=_errors(results),
        arms={arm: _arm(suite, arm, by_arm[arm], failing) for arm in arms},
        pairs=tuple(_pair(suite, a, b, by_arm[a], by_arm[b]) for a, b in combinations(arms, 2)),
        agreement=_agreement(results),
        costs={
            kind: StageCosts(spent.steps, spent.failures, **asdict(spent.cost))
            for kind, spent in costs.items()
        },
        published=suite.published,
    )


def _arm(suite: Suite, arm: str, results: Sequence[ArmResult], failing: set[_Key]) -> ArmSummary:
    score = suite.score([(result.task.item, result.judgement) for result in results])
    judged = [
        (result.task.item.group, result.task.item.prompt, result.judgement.score)
        for result in results
        if result.judgement is not None
    ]
    groups = {}
    for name, group in score.groups.items():
        of_group = [observation for observation in judged if observation[0] == name]
        sure = None if group.value is None else statistics.interval(of_group, {name: 1.0})
        groups[name] = GroupSummary(group.value, group.images, group.errors, sure)
    headline = score.headline
    ended = [result for result in results if result.answer is not None]
    complete = len(ended) == len(results)
    wrong = [result for result in ended if _key(result) in failing]
    corrected = mean(float(result.answer.correct) for result in wrong if result.answer)
    images = mean(float(len(result.more)) for result in wrong)
    forwards = mean(float(sum(shot.forwards for shot in result.more)) for result in wrong)
    return ArmSummary(
        about=ARMS[arm].about if arm in ARMS else "images made elsewhere",
        images=score.images,
        errors=ArmErrors(
            loop=sum(result.failed == "loop" for result in results),
            judge=sum(result.failed == "judge" for result in results),
        ),
        score=headline,
        interval_95=None if headline is None else statistics.interval(judged, suite.weights),
        groups=groups,
        others=dict(score.others),
        verifier=_verifier(suite, results) if complete else None,
        corrected=corrected if complete else None,
        images_per_failing_prompt=images if complete else None,
        forwards_per_failing_prompt=forwards if complete else None,
        by_number=_by_number([result.more for result in wrong]),
        by_kind=_by_kind([shot for result in wrong for shot in result.more]),
        fallbacks=_fallbacks(ended),
    )


def _fallbacks(results: Iterable[ArmResult]) -> dict[str, int]:
    """Return how many results have an image made with each way of getting along with less memory.

    The images before the result count as well: the arm would have stopped at another.
    """
    counted: Counter[str] = Counter()
    for result in results:
        counted.update({name for shot in result.tried for name in shot.fallbacks})
    return dict(sorted(counted.items()))


def _verifier(suite: Suite, results: Iterable[ArmResult]) -> VerifierSummary | None:
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
    return VerifierSummary(shares, over_all)


def _pair(
    suite: Suite, a: str, b: str, first: Sequence[ArmResult], second: Sequence[ArmResult]
) -> Pair:
    """Compare two arms on the same prompts and seeds; nothing while a judgement is missing."""
    others = {_key(result): result.judgement for result in second}
    differences, verdicts = [], []
    for result in first:
        judgement, other = result.judgement, others.get(_key(result))
        if judgement is None or other is None:
            return Pair(a, b)
        item = result.task.item
        differences.append((item.group, item.prompt, other.score - judgement.score))
        if judgement.correct is not None and other.correct is not None:
            verdicts.append((judgement.correct, other.correct))
    before, after = (
        suite.score([(result.task.item, result.judgement) for result in results]).headline
        for results in (first, second)
    )
    difference = None if before is None or after is None else after - before
    interval = statistics.interval(differences, suite.weights)
    if not verdicts:
        return Pair(a, b, difference, interval)
    only_first = sum(left and not right for left, right in verdicts)
    only_second = sum(right and not left for left, right in verdicts)
    p = statistics.mcnemar(only_first, only_second)
    return Pair(a, b, difference, interval, only_first, only_second, p)


def _agreement(results: Iterable[ArmResult]) -> Agreement:
    """Compare judge and verifier over the different images that both have judged."""
    seen = {
        (_key(result), result.answer.shot): (result.answer, result.judgement)
        for result in results
        if result.answer is not None and result.judgement is not None
    }
    verdicts = [
        (shot.correct, judgement.correct)
        for shot, judgement in seen.values()
        if judgement.correct is not None
    ]
    grades = [(shot.score, judgement.score) for shot, judgement in seen.values()]
    return Agreement(
        images=len(seen),
        both_correct=sum(verifier and judge for verifier, judge in verdicts),
        both_wrong=sum(not verifier and not judge for verifier, judge in verdicts),
        only_verifier=sum(verifier and not judge for verifier, judge in verdicts),
        only_judge=sum(judge and not verifier for verifier, judge in verdicts),
        kappa=statistics.kappa(verdicts),
        rank_correlation=None if verdicts else statistics.rank_correlation(grades),
    )


def _errors(results: Iterable[ArmResult]) -> tuple[ErrorCount, ...]:
    """Return what failed, the most frequent first, with how many results lack it."""
    counted = Counter(
        (result.failed, result.error) for result in results if result.failed and result.error
    )
    ordered = sorted(counted.items(), key=lambda item: (-item[1], str(item[0])))
    return tuple(ErrorCount(work, error, number) for (work, error), number in ordered)


def _by_number(tried: Sequence[Sequence[TriedShot]]) -> tuple[RightShare, ...]:
    """How often an arm's first, second, ... image was right; for npc that is rank by salience."""
    longest = max(map(len, tried), default=0)
    return tuple(
        _right([shots[number] for shots in tried if len(shots) > number])
        for number in range(longest)
    )


def _by_kind(shots: Iterable[TriedShot]) -> dict[str, RightShare]:
    """How often one image with a negative prompt of a kind was right."""
    kinds: dict[str, list[TriedShot]] = {}
    for shot in shots:
        kinds.setdefault(shot.kind or "no negative", []).append(shot)
    return {kind: _right(of_kind) for kind, of_kind in sorted(kinds.items())}


def _right(shots: Sequence[TriedShot]) -> RightShare:
    return RightShare(len(shots), mean(float(shot.correct) for shot in shots))


def _key(result: ArmResult) -> _Key:
    return result.task.item.number, result.task.seed
