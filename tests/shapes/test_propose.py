from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npc_local import phrases
from npc_local.errors import PromptError
from npc_local.records import Negative
from npc_local.shapes.caption import describe, read_caption
from npc_local.shapes.claims import check
from npc_local.shapes.prompts import TAGS, sample_record
from npc_local.shapes.propose import propose
from npc_local.shapes.scene import Background, Group, Scene, sample_scene
from npc_local.shapes.wording import Reading, benchmark_prompt, read
from tests.shapes.strategies import PROMPTS, WILD_SCENES
from tests.shapes.test_claims import scene, thing


def proposals(prompt, seen):
    """What the proposer says of a picture, through verifier and captioner, by kind."""
    reading = read(prompt)
    reason = "; ".join(f.wrong for f in check(reading, seen) if not f.holds)
    return dict(propose(reading, read_caption(describe(seen)), reason))


def useful(prompt, found):
    """What the loop would get to see."""
    kept, rejected = phrases.clean([Negative(t, k) for t, k in found.items()], prompt)
    assert rejected == ()
    return [negative.text for negative in kept]


def test_extra_things_come_first():
    seen = scene("red circle", "green star", ground=("pink", "striped"))
    assert proposals("a red circle", seen) == {
        "a green star": "targeted",
        "one star": "targeted",
        "two shapes": "targeted",
        "a striped pink background": "untargeted",
        "green shapes": "untargeted",
    }
    assert next(iter(proposals("a red circle", seen))) == "a green star"


def test_the_wrong_number_is_named():
    seen = scene("red circle", "red circle", "red circle")
    found = proposals("two red circles", seen)
    assert list(found)[:2] == ["three red circles", "three circles"]
    assert found["three red circles"] == "targeted"
    assert "red shapes" not in found


def test_the_wrong_colour_is_named():
    found = proposals("a red circle", scene("blue circle"))
    assert found["a blue circle"] == "targeted"
    assert found["blue shapes"] == "untargeted"


def test_the_wrong_place_and_size_are_named():
    prompt = "a larger star on the left and a smaller circle on the right"
    seen = scene(thing("small red star", "right"), thing("large red circle", "left"))
    assert [text for text, kind in proposals(prompt, seen).items() if kind == "targeted"] == [
        "a star on the right",
        "a circle on the left",
        "a smaller star",
        "a larger circle",
    ]
    found = proposals("a star at the top", scene(thing("red star", "bottom")))
    assert found["a star at the bottom"] == "targeted"


def test_a_missing_thing_has_no_wrong_place():
    found = proposals("a star on the left", scene("red circle"))
    assert "a star on the right" not in found


def test_the_wrong_background_is_named():
    seen = scene("red star", ground=("white", "plain"))
    assert proposals("a red star on a striped pink background", seen) == {
        "a white background": "targeted",
        "a plain background": "targeted",
    }
    assert proposals("a star on a striped background", seen) == {
        "a plain background": "targeted",
        "a white background": "untargeted",
        "red shapes": "untargeted",
    }
    striped = scene("red star", ground=("pink", "striped"))
    assert proposals("two red stars on a pink background", striped)["a striped background"] == (
        "untargeted"
    )


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("a circle and a circle", ["four circles", "three blue circles", "four shapes"]),
        (
            "two red circles and one blue circle",
            ["a red circle", "three blue circles", "four circles", "four shapes"],
        ),
        (
            "a red circle and one blue circle",
            ["three blue circles", "four circles", "four shapes"],
        ),
    ],
)
def test_a_shape_named_twice(prompt, texts):
    found = proposals(prompt, scene("red circle", "blue circle", "blue circle", "blue circle"))
    assert [text for text, kind in found.items() if kind == "targeted"] == texts


def test_words_of_another_verifier_do_no_harm():
    reading = Reading((Group("star", 1),), (None, None))
    reason = "the dog should be on the left; the star should be at the back; the sky is too blue"
    assert propose(reading, Reading((Group("star", 1, "red"),), ("white", "plain")), reason) == [
        ("a white background", "untargeted"),
        ("red shapes", "untargeted"),
    ]


def _asks_for(prompt, text):
    """The other way round to `propose`: would a picture of just this keep a claim of the prompt?"""
    try:
        said = read(text)
    except PromptError:
        return False
    return any(
        (g.shape, g.count) == (said_group.shape, said_group.count)
        and said_group.color in (None, g.color)
        and said_group.region in (None, g.region)
        and said_group.size in (None, g.size)
        for g in read(prompt).groups
        for said_group in said.groups
    )


@settings(max_examples=200, deadline=None)
@given(PROMPTS, WILD_SCENES)
def test_nothing_that_the_prompt_asks_for_is_proposed(groups, seen):
    prompt = benchmark_prompt(groups)
    found = proposals(prompt, seen)
    assert not [text for text in found if _asks_for(prompt, text)]
    assert len(found) == len(set(found))
    useful(prompt, found)


@settings(deadline=None)
@given(st.sampled_from(list(TAGS)), st.integers(0, 10**6))
def test_a_wrong_picture_leaves_the_loop_something_to_try(tag, seed):
    """For benchmark prompts over scenes of the world, all of it survives the cleaner."""
    rng = random.Random(seed)
    wanted, shown = (sample_record(tag, rng, test=True).groups for _ in range(2))
    seen = sample_scene(shown, rng)
    prompt = benchmark_prompt(wanted)
    texts = useful(prompt, proposals(prompt, seen))
    assert texts
    if any(not f.holds for f in check(read(prompt), seen)):
        assert "targeted" in proposals(prompt, seen).values() or _only_missing(wanted, seen)


def _only_missing(wanted, seen):
    """Nothing in the picture is wrong, there is only too little of it or it is out of place."""
    return sum(g.count for g in wanted) == len(seen.things)


def test_an_empty_picture_still_gives_something():
    found = proposals("a star", Scene((), Background("mint", "plain")))
    assert found == {"a mint background": "untargeted"}
