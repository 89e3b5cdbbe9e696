from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings

from npc_local.core.errors import PromptError
from npc_local.shapes.caption import FEWEST, MOST, describe, place, read_caption
from npc_local.shapes.scene import Background, Group, Scene, Thing, groups_of
from npc_local.shapes.wording import Reading
from tests.shapes.strategies import BACKDROPS, WILD_SCENES, lone_scenes


@settings(max_examples=300)
@given(WILD_SCENES)
def test_captions_have_90_to_160_words_and_read_back(scene):
    text = describe(scene)
    assert FEWEST <= len(text.split()) <= MOST
    ground = scene.background
    assert read_caption(text) == Reading(groups_of(scene), (ground.color, ground.pattern))
    assert describe(scene) == text


@given(lone_scenes())
def test_a_lone_thing_is_described(scene):
    (thing,) = scene.things
    text = describe(scene)
    assert f"{thing.size} {thing.color} {thing.shape}" in text
    assert place(thing) in text
    assert "shapes" not in text  # there are no shapes to speak of
    assert FEWEST <= len(text.split()) <= MOST


@given(BACKDROPS)
def test_an_empty_picture_is_described(background):
    text = describe(Scene((), background))
    assert text.startswith("The picture shows nothing but a ")
    assert background.color in text
    assert FEWEST <= len(text.split()) <= MOST
    assert "differ" not in text
    assert read_caption(text) == Reading((), (background.color, background.pattern))


def test_things_together_are_described():
    things = [Thing("star", "red", x, 11, radius) for x, radius in ((11, 8), (32, 8), (53, 8))]
    text = describe(Scene(tuple(things), Background("pink", "dotted")))
    assert text.startswith("The picture shows three red stars on a dotted pink background. ")
    assert "three separate shapes" in text
    assert "All of them are medium in size" in text
    assert "dots" in text
    mixed = (*things[:2], Thing("star", "red", 53, 11, 10))
    assert "They differ in size" in describe(Scene(mixed, Background()))


def test_other_scenes_get_other_words():
    one, other = (Scene((), Background("white", p)) for p in ("plain", "striped"))
    assert Counter(describe(one).split()) != Counter(describe(other).split())


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (0, 0, "top left"),
        (32, 1, "top"),
        (64, 0, "top right"),
        (2, 32, "left"),
        (32, 32, "centre"),
        (60, 30, "right"),
        (0, 64, "bottom left"),
        (32, 63, "bottom"),
        (64, 64, "bottom right"),
    ],
)
def test_place(x, y, words):
    assert place(Thing("star", "red", x, y, 8)) == words


def test_a_reading_gives_groups_and_background():
    text = "The picture shows two red circles and a star on a striped mint background. And so on."
    groups = Group("circle", 2, "red"), Group("star", 1)
    assert read_caption(text) == Reading(groups, ("mint", "striped"))


def test_captions_say_more_than_prompts_may():
    """More things than a prompt can ask for, numbers in digits, and a pattern that is none."""
    many = Scene((Thing("star", "red", 11, 11, 8),) * 12, Background("pink", "plain"))
    text = describe(many)
    assert text.startswith("The picture shows 12 red stars on a pink background. ")
    assert read_caption(text) == Reading((Group("star", 12, "red"),), ("pink", "plain"))


@pytest.mark.parametrize("text", ["A cat sleeps on a sofa. It is red.", "", ".", "The picture"])
def test_other_captions_are_refused(text):
    with pytest.raises(PromptError):
        read_caption(text)
