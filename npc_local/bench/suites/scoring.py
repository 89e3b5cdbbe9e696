"""Means a group, and the accuracy that is made of them; no order of images changes a digit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from npc_local.bench.suites.suite import GroupScore, JudgedImage, Score

ALL_PROMPTS = "accuracy over all images"
FAILED_AS_WRONG = "mean of tags, failed judge calls counted as wrong (the published harness)"


def group_scores(judged: Sequence[JudgedImage], groups: Sequence[str]) -> dict[str, GroupScore]:
    """Return the mean score of each group, in the order of `groups`.

    Raises:
        ValueError: an image belongs to none of them.
    """
    if strange := {item.group for item, _ in judged} - set(groups):
        raise ValueError(f"images of no group: {', '.join(map(repr, sorted(strange)))}")
    by_group = {}
    for group in groups:
        of_group = [judgement for item, judgement in judged if item.group == group]
        scores = [judgement.score for judgement in of_group if judgement is not None]
        errors = len(of_group) - len(scores)
        by_group[group] = GroupScore(None if errors else mean(scores), len(of_group), errors)
    return by_group


def accuracy(judged: Sequence[JudgedImage], tags: Sequence[str]) -> Score:
    """Score as GenEval++ does: the mean over the tags of each tag's accuracy.

    A tag without images is left out of the mean. `others` has the plain accuracy and, while judge
    calls are missing, what the published harness would print for them.
    """
    groups = group_scores(judged, tags)
    errors = sum(group.errors for group in groups.values())
    right = {
        tag: [j.score if j else 0.0 for item, j in judged if item.group == tag] for tag in tags
    }
    of_tags = mean(share for scores in right.values() if (share := mean(scores)) is not None)
    plain = mean(score for scores in right.values() for score in scores)
    others: dict[str, float | None] = {ALL_PROMPTS: None if errors else plain}
    if errors:
        others[FAILED_AS_WRONG] = of_tags
    return Score(None if errors else of_tags, groups, others, len(judged), errors)


def weighted(groups: Mapping[str, GroupScore], weights: Mapping[str, float]) -> float | None:
    """Return the weighted mean of those groups that have images; None if one lacks its value."""
    there = {name: groups[name] for name in weights if groups[name].images}
    values = [(weights[name], group.value) for name, group in there.items()]
    if not values or any(value is None for _, value in values):
        return None
    total = math.fsum(weight * value for weight, value in values if value is not None)
    return total / math.fsum(weight for weight, _ in values)


def mean(values: Iterable[float]) -> float | None:
    """Return the mean, exactly rounded; None of nothing."""
    numbers = list(values)
    return math.fsum(numbers) / len(numbers) if numbers else None
