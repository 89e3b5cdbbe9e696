"""What plans have in common; what each of them makes is tested with the arms of the benchmarks."""

from __future__ import annotations

from npc_local.bench.runner import MAX_SEED, Task
from npc_local.bench.suites.suite import BenchItem
from npc_local.core.records import Candidate, Negative
from npc_local.loop import Search
from npc_local.plans import new_seeds, shuffled

PROMPT, SEED = "two circles", 7


def test_the_random_order_depends_on_prompt_seed_and_words_alone():
    candidates = [
        Candidate(Negative(text, "targeted"), score) for score, text in enumerate("abcdef")
    ]
    once = shuffled(candidates, PROMPT, SEED)
    assert shuffled(candidates[::-1], PROMPT, SEED) == once
    assert sorted(once, key=lambda candidate: candidate.score) == candidates
    others = {shuffled(candidates, PROMPT, seed) for seed in range(20)}
    assert len(others) > 15


def test_a_search_has_as_many_new_seeds_as_it_may_make_images_and_its_own_is_none():
    seeds = list(new_seeds(Search(PROMPT, None, SEED, count=5)))
    assert len(set(seeds)) == 5
    assert SEED not in seeds


def test_no_new_seed_is_the_seed_of_another_base_image():
    last = Task(BenchItem(9_999, PROMPT, "", {}), MAX_SEED).image_seed
    first = Task(BenchItem(1, PROMPT, "", {}), 0).image_seed
    assert min(new_seeds(Search(PROMPT, None, first, count=5))) > last
