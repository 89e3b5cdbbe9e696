"""Intervals in cases whose answer is known; tests, kappa and correlation by their definition."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from npc_local.bench.analysis.statistics import interval, kappa, mcnemar, rank_correlation

EQUAL = {"a": 1.0, "b": 1.0}


def observed(*values, group="a"):
    return [(group, f"prompt {number}", value) for number, value in enumerate(values)]


def test_nothing_has_no_interval():
    assert interval([], EQUAL) is None


def test_where_prompts_do_not_differ_the_interval_is_the_mean():
    assert interval(observed(1.0, 1.0, 1.0), EQUAL) == (1.0, 1.0)
    groups = observed(1.0, 1.0) + observed(0.0, 0.0, group="b")
    assert interval(groups, EQUAL) == (0.5, 0.5)
    assert interval(groups, {"a": 3.0, "b": 1.0}) == (0.75, 0.75)


def test_where_every_group_has_one_prompt_there_is_no_interval():
    """Drawn anew it is itself: an interval of no width would look sure."""
    assert interval(observed(0.25), EQUAL) is None
    groups = [("a", "p", 1.0), ("b", "p", 0.0), ("b", "p", 1.0)]  # two seeds of one prompt
    assert interval(groups, EQUAL) is None
    assert interval([*groups, ("b", "q", 0.0)], EQUAL) is not None


def test_a_fair_coin_has_the_interval_of_the_binomial():
    low, high = interval(observed(*[0.0, 1.0] * 50), EQUAL)
    # 95 % of Binomial(100, 0.5) lie from 40 to 60.
    assert low == pytest.approx(0.40, abs=0.011)
    assert high == pytest.approx(0.60, abs=0.011)


def test_two_prompts_are_drawn_together_or_apart():
    # Drawn: both the first (a quarter), both the second (a quarter), each once (half).
    assert interval(observed(0.0, 1.0), EQUAL) == (0.0, 1.0)


def test_more_seeds_of_the_same_prompts_are_no_more_prompts():
    once = observed(0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0)
    assert interval(once * 10, EQUAL) == interval(once, EQUAL)
    apart = [(group, f"{prompt} {n}", value) for n in range(10) for group, prompt, value in once]
    low, high = interval(once, EQUAL)
    narrow_low, narrow_high = interval(apart, EQUAL)
    assert narrow_high - narrow_low < (high - low) / 2


def test_an_interval_of_differences_is_paired():
    # Very different prompts, but the second arm is better by exactly 0.1 on each.
    first = observed(0.0, 0.5, 0.9)
    second = [(group, prompt, value + 0.125) for group, prompt, value in first]
    differences = [
        (group, prompt, other - value)
        for (group, prompt, value), (_, _, other) in zip(first, second, strict=True)
    ]
    assert interval(differences, EQUAL) == pytest.approx((0.125, 0.125))


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from("pqrs"), st.floats(0, 10)), min_size=1
    ),
    st.randoms(use_true_random=False),
)
def test_the_order_changes_no_digit(values, rng: random.Random):
    mixed = list(values)
    rng.shuffle(mixed)
    found = interval(values, EQUAL)
    assert interval(mixed, EQUAL) == found
    if found is None:
        assert all(len({p for g, p, _ in values if g == group}) < 2 for group in "ab")
        return
    low, high = found
    assert low <= high
    assert min(v for *_, v in values) - 1e-9 <= low
    assert high <= max(v for *_, v in values) + 1e-9


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_twice_the_tail_of_a_fair_coin(first, second):
    total = first + second
    tail = sum(math.comb(total, heads) for heads in range(min(first, second) + 1))
    assert mcnemar(first, second) == pytest.approx(min(1.0, 2 * tail / 2**total), rel=1e-12)


def test_mcnemar_by_hand():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(0, 10) == pytest.approx(2 / 2**10)  # twice the chance of ten heads
    assert mcnemar(1, 3) == pytest.approx(2 * (1 + 4) / 16)


def test_kappa_by_hand():
    # 20 both yes, 15 both no, 5 only the first, 10 only the second: agreed 0.7, by chance 0.5.
    pairs = [(True, True)] * 20 + [(False, False)] * 15
    pairs += [(True, False)] * 5 + [(False, True)] * 10
    assert kappa(pairs) == pytest.approx(0.4)
    assert kappa([(True, True), (False, False)]) == 1.0
    assert kappa([(True, False), (False, True)]) == -1.0
    assert kappa([(True, True), (True, False)]) == 0.0


def test_kappa_is_not_there_where_chance_alone_agrees():
    assert kappa([]) is None
    assert kappa([(True, True)] * 3) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2))
def test_rank_correlation_is_the_correlation_of_mean_ranks(pairs):
    first, second = zip(*pairs, strict=True)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert rank_correlation(pairs) is None
    else:
        of_ranks = np.corrcoef(rankdata(first), rankdata(second))[0, 1]
        assert rank_correlation(pairs) == pytest.approx(of_ranks, rel=1e-12, abs=1e-15)


def test_rank_correlation_of_nothing():
    assert rank_correlation([]) is None
