"""How sure a number is: bootstrap intervals, McNemar's test, Cohen's kappa, rank correlation.

Prompts are what is drawn anew, each with all its seeds: two images of one prompt are not two
independent trials. The same data gives the same digits, in any order. What is compared with what,
and when a number is withheld, is left to `summary`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Interval = tuple[float, float]
Observation = tuple[str, str, float]
"""The group and the prompt that a value belongs to, and the value."""

_RESAMPLES = 10_000
_SEED = 20_251_207


def interval(observed: Iterable[Observation], weights: Mapping[str, float]) -> Interval | None:
    """Return the 95 % percentile bootstrap interval of a weighted mean of group means.

    Prompts are drawn with replacement within their groups. Given differences of two arms on the
    same images, it is the paired interval of the difference.

    Args:
        observed: the values, in any order.
        weights: of the groups; those without values are left out of the mean.

    Returns:
        Low and high; equal where no prompt differs from the others of its group. None of nothing,
        and where no group has a second prompt: drawing anew would always draw the same.
    """
    import numpy as np

    groups: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for group, prompt, value in observed:
        groups[group][prompt].append(value)
    if not any(len(prompts) > 1 for group, prompts in groups.items() if group in weights):
        return None
    total, weight = np.zeros(_RESAMPLES), 0.0
    for stream, group in enumerate(weights):
        if group not in groups:
            continue
        prompts = [groups[group][prompt] for prompt in sorted(groups[group])]
        sums = np.array([math.fsum(values) for values in prompts])
        numbers = np.array([float(len(values)) for values in prompts])
        drawn = _drawn(len(prompts), stream)
        total += weights[group] * (drawn @ sums) / (drawn @ numbers)
        weight += weights[group]
    low, high = np.percentile(total / weight, [2.5, 97.5])
    return float(low), float(high)


@lru_cache(maxsize=16)
def _drawn(prompts: int, stream: int) -> NDArray[np.float64]:
    """Return how often each prompt is drawn, resample by resample: the same for every arm."""
    import numpy as np

    rng = np.random.default_rng([_SEED, stream])
    return rng.multinomial(prompts, np.full(prompts, 1 / prompts), _RESAMPLES).astype(np.float64)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p of the exact McNemar test: a fair coin for each disagreement."""
    from scipy.stats import binomtest

    disagreements = only_first + only_second
    return float(binomtest(only_first, disagreements).pvalue) if disagreements else 1.0


def kappa(pairs: Sequence[tuple[bool, bool]]) -> float | None:
    """Return Cohen's kappa of two raters; None where chance alone makes them agree, or of nothing.

    Args:
        pairs: what each of the two said of an image.
    """
    number = len(pairs)
    if not number:
        return None
    first = sum(said for said, _ in pairs) / number
    second = sum(said for _, said in pairs) / number
    by_chance = first * second + (1 - first) * (1 - second)
    if by_chance == 1:
        return None  # both say the same of every image
    agreed = sum(said == other for said, other in pairs) / number
    return (agreed - by_chance) / (1 - by_chance)


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Return Spearman's rank correlation, ties at their mean rank; None where one never varies."""
    from scipy.stats import spearmanr

    if not pairs or any(len(set(column)) == 1 for column in zip(*pairs, strict=True)):
        return None
    first, second = zip(*pairs, strict=True)
    return float(spearmanr(first, second).statistic)
