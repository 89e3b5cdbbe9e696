"""What no score may depend on, and what no failed call may become."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_local.bench.suites import published
from npc_local.bench.suites.geneval_pp import GenEvalPlusPlus
from npc_local.bench.suites.imagine import ImagineBench
from npc_local.bench.suites.scoring import FAILED_AS_WRONG, accuracy, mean
from npc_local.bench.suites.shapes import ShapesBench
from tests.bench.suites.fakes import RECORDS, item, judged, write

BINARY = st.sampled_from([0.0, 1.0, None])
GRADE = st.builds(lambda a, b: (4 * a + b) / 5, st.integers(0, 10), st.integers(0, 10))


@pytest.fixture(scope="module")
def suites(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return {
        "geneval++": GenEvalPlusPlus(write(folder / "g", RECORDS["geneval++"]())),
        "imagine": ImagineBench(write(folder / "i", RECORDS["imagine"]())),
        "shapes": ShapesBench(1),
    }


@st.composite
def cases(draw):
    name = draw(st.sampled_from(["geneval++", "imagine", "shapes"]))
    scores = st.one_of(st.none(), GRADE) if name == "imagine" else BINARY
    return name, draw(st.lists(st.tuples(st.integers(0, 3), scores), max_size=25))


@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_images_changes_no_digit(suites, case, rng: random.Random):
    name, rows = case
    suite = suites[name]
    images = [one for group, score in rows for one in judged(suite.groups[group], score)]
    score = suite.score(images)
    rng.shuffle(images)
    assert suite.score(images) == score


@given(cases())
def test_any_missing_judgement_withholds_the_headline_and_only_that_does(suites, case):
    name, rows = case
    suite = suites[name]
    images = [one for group, score in rows for one in judged(suite.groups[group], score)]
    score = suite.score(images)
    failed = sum(judgement is None for _, judgement in images)
    assert score.errors == failed == sum(group.errors for group in score.groups.values())
    assert score.images == len(images) == sum(group.images for group in score.groups.values())
    assert (score.headline is None) == bool(failed or not images)
    if score.headline is not None:
        assert 0 <= score.headline <= suite.best
        assert FAILED_AS_WRONG not in score.others


def test_an_image_of_no_group_is_a_mistake_of_ours():
    with pytest.raises(ValueError, match="of no group: 'Colour'"):
        accuracy([(item("Colour"), None)], ["color_attr"])


def test_the_mean_of_nothing_is_none():
    assert mean([]) is None
    assert mean([0.1] * 10) == 0.1


def test_published_figures_name_their_source_and_only_known_arms():
    figures = (*published.GENEVAL_PP, *published.RANKING, *published.TIMES)
    assert all(figure.source.startswith("arXiv 2512.07702") for figure in figures)
    assert {figure.arm for figure in figures} == {"base", "prompt-only", "npc", None}
    by_what = {figure.what: figure.value for figure in published.GENEVAL_PP}
    assert by_what["base generator"] == 0.371
    assert by_what["NPC, GPT agents"] == 0.571


def test_no_published_figure_enters_a_score(suites):
    for suite in suites.values():
        values = {figure.value for figure in suite.published}
        score = suite.score(judged(suite.groups[0], 1.0))
        assert not values & {score.headline, *score.others.values()}
