"""ShapesBench as a benchmark: its prompts, and a judge that never reads them."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npc_local.bench.suites.geneval_pp import Record as GenEvalRecord
from npc_local.bench.suites.registry import open_suite
from npc_local.bench.suites.shapes import ShapesBench, judge_scene
from npc_local.bench.suites.suite import BenchItem
from npc_local.core.errors import ConfigError
from npc_local.core.hashing import code_digest
from npc_local.shapes.claims import check
from npc_local.shapes.draw import draw
from npc_local.shapes.prompts import TAGS, held_out
from npc_local.shapes.prompts import Record as ShapesRecord
from npc_local.shapes.reading import read
from npc_local.shapes.scene import Background, Group, Scene, Thing, sample_scene
from tests.shapes.strategies import WILD_SCENES

SIDES = st.booleans()


def test_forty_a_tag_from_the_test_side():
    suite = open_suite("shapes")
    assert Counter(item.group for item in suite.items()) == dict.fromkeys(TAGS, 40)
    assert suite.items() == ShapesBench(40, 0, test=True).items()
    assert [item.number for item in suite.items()] == list(range(1, 281))
    assert all(item.checklist is None for item in suite.items())


@settings(deadline=None, max_examples=30)
@given(per_tag=st.integers(1, 12), seed=st.integers(0, 10**6), test=SIDES)
def test_any_size_by_seed_in_geneval_pp_format_on_its_own_side(per_tag, seed, test):
    items = ShapesBench(per_tag, seed, test=test).items()
    assert Counter(item.group for item in items) == dict.fromkeys(TAGS, per_tag)
    for item in items:
        record = GenEvalRecord.model_validate(item.record)
        assert record.tag == item.group == item.record["tag"]
        assert record.prompt == item.prompt
        assert held_out(groups_of(item.record)) is test
        assert held_out(read(item.prompt).groups) is test


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_test_and_training_prompts_have_none_in_common(seed, other_seed):
    test, train = ShapesBench(10, seed, test=True), ShapesBench(10, other_seed, test=False)
    key = [{frozenset(groups_of(item.record)) for item in s.items()} for s in (test, train)]
    assert not key[0] & key[1]
    prompts = [{item.prompt for item in suite.items()} for suite in (test, train)]
    assert not prompts[0] & prompts[1]


def test_the_same_seed_gives_the_same_prompts_and_another_one_others():
    assert ShapesBench(5, 3).fingerprint() == ShapesBench(5, 3).fingerprint()
    assert ShapesBench(5, 3).fingerprint() != ShapesBench(5, 4).fingerprint()


def test_no_prompts_at_all():
    with pytest.raises(ConfigError, match="at least 1"):
        ShapesBench(0)


# -------------------------------------------------------------------------------------- the judge


def groups_of(record):
    return tuple(
        Group(e["class"], e["count"], e.get("color"), e.get("region"), e.get("size"))
        for e in record["include"]
    )


def thing(shape, color="red", x=32.0, y=32.0, radius=7.8):
    return Thing(shape, color, x, y, radius)


def judged(groups, *things):
    record = ShapesRecord("counting", tuple(groups)).to_json()
    return judge_scene(record, Scene(things, Background()))


CASES = {
    "count": ([Group("circle", 2)], [thing("circle")], "circle: 1 instead of 2"),
    "color": ([Group("circle", 1, "blue")], [thing("circle")], "circle: not blue"),
    "region": ([Group("star", 1, None, "left")], [thing("star", x=31)], "star: not left"),
    "size": (
        [Group("star", 1, None, None, "larger"), Group("cross", 1, None, None, "smaller")],
        [thing("star"), thing("cross")],
        "sizes are not as asked for",
    ),
    "nothing else": ([Group("star", 1)], [thing("star"), thing("cross")], "cross: not asked for"),
}


@pytest.mark.parametrize("part", list(CASES))
def test_each_demand_can_fail_alone(part):
    groups, things, reason = CASES[part]
    found = judged(groups, *things)
    assert (found.correct, found.score, found.reason) == (False, 0.0, reason)
    assert {key for key, value in found.parts.items() if value == 0} == {part}


def test_a_picture_that_shows_all_of_it():
    groups = [
        Group("star", 2, "red", "above", "larger"),
        Group("cross", 1, "blue", "below", "smaller"),
    ]
    things = [
        *(thing("star", "red", x, 11, 10) for x in (11, 53)),
        thing("cross", "blue", 32, 53, 5.6),
    ]
    found = judged(groups, *things)
    assert found.correct
    assert (found.score, found.reason) == (1.0, "")
    assert set(found.parts) == {"count", "color", "region", "size", "nothing else"}
    assert set(found.parts.values()) == {1.0}


def test_more_than_asked_for_is_wrong_with_and_without_exclude():
    for tag in ("counting", "multi_object_count_attr"):
        record = ShapesRecord(tag, (Group("circle", 1),)).to_json()
        scene = Scene((thing("circle", x=11), thing("circle", x=53)), Background())
        assert not judge_scene(record, scene).correct


def test_a_thing_that_is_not_there_fails_all_that_is_asked_of_it():
    found = judged([Group("star", 1, "red", "left")])
    assert found.parts == {"count": 0.0, "color": 0.0, "region": 0.0, "nothing else": 1.0}


def verifier_says(prompt, scene):
    return all(finding.holds for finding in check(read(prompt), scene))


SCENES = st.one_of(WILD_SCENES, st.none())


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_judge_and_verifier_agree_on_any_scene_though_they_share_no_code(data):
    items = ShapesBench(3, data.draw(st.integers(0, 50)), test=data.draw(SIDES)).items()
    item = data.draw(st.sampled_from(items))
    scene = data.draw(SCENES)
    if scene is None:  # one that is right, or off by a single thing
        rng = random.Random(data.draw(st.integers(0, 10**6)))
        scene = sample_scene(groups_of(item.record), rng)
        index = data.draw(st.integers(0, len(scene.things)))
        change = data.draw(
            st.sampled_from([{"color": "red"}, {"shape": "star"}, {"x": 32.0}, {"radius": 7.8}, {}])
        )
        if index < len(scene.things):
            things = list(scene.things)
            things[index] = dataclasses.replace(things[index], **change)
            scene = Scene(tuple(things), scene.background)
    assert judge_scene(item.record, scene).correct is verifier_says(item.prompt, scene)


@pytest.mark.parametrize("region", ["left", "right", "above", "below"])
def test_the_borders_of_places_are_the_verifiers(region):
    record = ShapesRecord("color_spatial_attr", (Group("star", 1, None, region),))
    outcomes = set()
    for place in np.arange(20, 44.1, 0.25):
        scene = Scene((thing("star", x=float(place), y=float(place)),), Background())
        outcomes.add(right := judge_scene(record.to_json(), scene).correct)
        assert right is verifier_says(record.prompt, scene), place
    assert outcomes == {True, False}


def test_the_border_of_larger_is_the_verifiers():
    groups = Group("star", 1, None, None, "larger"), Group("cross", 1, None, None, "smaller")
    record = ShapesRecord("size_spatial_attr", groups)
    outcomes = set()
    for radius in np.arange(5, 12, 0.05):
        scene = Scene((thing("star", radius=float(radius)), thing("cross", x=50)), Background())
        outcomes.add(right := judge_scene(record.to_json(), scene).correct)
        assert right is verifier_says(record.prompt, scene), radius
    assert outcomes == {True, False}


def test_pictures_that_show_the_record_are_right_and_of_another_record_wrong():
    suite = ShapesBench(4, 1)
    for item in suite.items():
        picture = draw(sample_scene(groups_of(item.record), random.Random(item.number)))
        assert asyncio.run(suite.judge(None, item, picture)).correct, item.prompt
        other = BenchItem(1, item.prompt, item.group, item.record | {"include": OTHER})
        assert not asyncio.run(suite.judge(None, other, picture)).correct
        # The prompt is never read.
        renamed = dataclasses.replace(item, prompt="zzz")
        assert asyncio.run(suite.judge(None, renamed, picture)).correct


OTHER = [{"class": "circle", "count": 9}]


def test_what_decides_a_judgement_besides_the_image():
    suite = ShapesBench(2, 1)
    first, second, *_ = suite.items()
    key = suite.judgement_key(None, first)
    json.dumps(key)
    assert key == suite.judgement_key(None, first)
    assert key["code"] == code_digest("bench/suites/shapes.py", "shapes/*.py")
    assert key != suite.judgement_key(None, second)


def test_the_score_is_that_of_geneval_pp():
    suite = ShapesBench(2, 1)
    right = judged([Group("star", 1)], thing("star"))
    wrong = judged([Group("star", 1)], thing("cross"))
    counting = [item for item in suite.items() if item.group == "counting"]
    color = [item for item in suite.items() if item.group == "color_attr"]
    images = [(counting[0], right), (counting[1], wrong), (color[0], right)]
    assert suite.score(images).headline == 0.75
    assert suite.score([*images, (color[1], None)]).headline is None
