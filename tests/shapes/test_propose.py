from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npc_local.agents import clean_negatives as phrases
from npc_local.core.errors import PromptError
from npc_local.core.records import Negative
from npc_local.shapes.caption import describe, read_caption
from npc_local.shapes.claims import check
from npc_local.shapes.prompts import TAGS, sample_record
from npc_local.shapes.propose import _numbers, propose
from npc_local.shapes.reading import read
from npc_local.shapes.scene import Background, Group, Scene, sample_scene
from npc_local.shapes.wording import Reading, benchmark_prompt
from tests.shapes.strategies import PROMPTS, WILD_SCENES
from tests.shapes.test_claims import scene, thing


def proposals(prompt, seen):
    """What the proposer says of a picture, through verifier and captioner, by kind."""
    reading = read(prompt)
    reason = "; ".join(f.wrong for f in check(reading, seen) if not f.holds)
    return dict(propose(reading, read_caption(describe(seen)), reason))


def errors(found):
    """The targeted ones, in order, without those that name the error together with the ground."""
    return [text for text, kind in found.items() if kind == "targeted" and " on a " not in text]


def useful(prompt, found):
    """What the loop would get to see."""
    kept, rejected = phrases.clean([Negative(t, k) for t, k in found.items()], prompt)
    assert rejected == ()
    return [negative.text for negative in kept]


def test_extra_things_come_first():
    found = proposals("a red circle", scene("red circle", "green star", ground=("pink", "striped")))
    assert errors(found) == ["a green star", "one star", "two shapes"]
    assert {text for text, kind in found.items() if kind == "untargeted"} == {
        "a striped pink background",
        "green shapes",
    }


def test_the_wrong_number_is_named():
    seen = scene("red circle", "red circle", "red circle")
    found = proposals("two red circles", seen)
    assert errors(found)[:2] == ["three red circles", "three circles"]
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
    assert "a smaller star" in proposals("a large star", scene("medium red star"))


@pytest.mark.parametrize(
    ("prompt", "turned"),
    [
        ("a star to the left of a circle", "a star right of a circle"),
        ("a star right of a circle", "a star left of a circle"),
        ("a star above a circle", "a star below a circle"),
        # At most six words, so without articles.
        ("a red star left of a blue star", "red star right of blue star"),
    ],
)
def test_a_relation_is_turned_round(prompt, turned):
    *_, second = prompt.split()
    other = f"blue {second}"
    for places in (("left", "right"), ("right", "left"), ("top", "bottom"), ("bottom", "top")):
        seen = scene(thing("red star", places[0]), thing(other, places[1]))
        found = proposals(prompt, seen)
        right = all(finding.holds for finding in check(read(prompt), seen))
        assert (found.get(turned) == "targeted") is not right
        assert turned in useful(prompt, found) or right


@pytest.mark.parametrize(
    ("prompt", "turned"),
    [
        (
            "a larger circle to the left of a smaller circle",
            "larger circle right of smaller circle",
        ),
        (
            "a larger red circle to the left of a smaller red circle",
            "larger circle right of smaller circle",
        ),
        (
            "a larger red circle on the left and a smaller red circle",
            "larger red circle on the right",
        ),
    ],
)
def test_what_is_told_apart_by_size_is_named_by_it(prompt, turned):
    seen = scene(thing("small red circle", "left"), thing("large red circle", "right"))
    found = proposals(prompt, seen)
    assert found[turned] == "targeted"
    assert turned in useful(prompt, found)


def test_what_is_beside_has_no_other_side():
    seen = scene(thing("red star", "top"), thing("red circle", "bottom"))
    assert not all(finding.holds for finding in check(read("a star next to a circle"), seen))
    assert errors(proposals("a star next to a circle", seen)) == []


def test_a_relation_that_the_prompt_asks_for_is_not_proposed():
    reason = "the circle should be to the right of the star"  # somebody else's words
    for prompt in ("a circle to the left of a star", "a red star right of a blue circle"):
        assert "a circle left of a star" not in dict(propose(read(prompt), Reading(()), reason))
    found = dict(propose(read("a circle to the right of a star"), Reading(()), reason))
    assert found["a circle left of a star"] == "targeted"


def test_a_missing_thing_has_no_wrong_place():
    found = proposals("a star on the left", scene("red circle"))
    assert "a star on the right" not in found


def test_the_wrong_background_is_named():
    seen = scene("red star", ground=("white", "plain"))
    # A plain background is no thing to steer away from, and no word that the generator knows.
    assert proposals("a red star on a striped pink background", seen) == {
        "a white background": "targeted",
    }
    assert proposals("a star on a striped background", seen) == {
        "a white background": "untargeted",
        "red shapes": "untargeted",
    }
    striped = scene("red star", ground=("pink", "striped"))
    assert proposals("a red star on a dotted white background", striped) == {
        "a pink background": "targeted",
        "a striped background": "targeted",
    }
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
    assert errors(found) == texts


_STARS_AND_CIRCLES = ["red star"] * 3 + ["red circle"] * 2


@pytest.mark.parametrize(
    ("prompt", "things", "text"),
    [
        # Each colour by itself says less than the number of all of them.
        ("two stars", ["red star", "blue star", "green star"], "three stars"),
        ("two stars", ["red star"], "one star"),
        ("a circle and two stars", _STARS_AND_CIRCLES, "three stars and two circles"),
        ("two red stars and one blue star", ["red star"] * 4, "four stars"),
        ("a circle", ["red star"] * 3 + ["red circle"], "three stars"),
        ("two red stars", ["red star", "blue star"], None),  # the colour is wrong, not the number
        ("a star and a circle", ["red star"], None),  # nothing there is wrong
        # More words than a negative prompt may have.
        (
            "a circle, a star, and a cross",
            ["red star"] * 2 + ["red circle"] * 2 + ["red cross"] * 2,
            None,
        ),
    ],
)
def test_the_numbers_are_named_whatever_the_colours(prompt, things, text):
    found = dict.fromkeys(_numbers(read(prompt), read_caption(describe(scene(*things)))))
    assert list(found) == ([] if text is None else [text])
    proposed = proposals(prompt, scene(*things))
    assert all(proposed[each] == "targeted" for each in found)


def test_a_number_that_the_prompt_asks_for_is_not_proposed():
    prompt = "two red stars and one blue star"
    assert "two stars" not in proposals(prompt, scene("red star", "red star"))
    found = proposals("a star, a star, and a red circle", scene("red star"))
    assert "one star" not in found
    assert "one shape" in found


def test_words_of_another_verifier_do_no_harm():
    reading = Reading((Group("star", 1),), (None, None))
    reason = "the dog should be on the left; the star should be at the back; the sky is too blue"
    assert propose(reading, Reading((Group("star", 1, "red"),), ("white", "plain")), reason) == [
        ("a white background", "untargeted"),
        ("red shapes", "untargeted"),
    ]


def _asks_for(prompt, text):
    """The other way round to `propose`: would all of a picture of just this keep to the prompt?"""
    try:
        said = read(text)
    except PromptError:
        return False
    return bool(said.groups) and all(
        any(
            (g.shape, g.count) == (said_group.shape, said_group.count)
            and said_group.color in (None, g.color)
            and said_group.region in (None, g.region)
            and said_group.size in (None, g.size)
            for g in read(prompt).groups
        )
        for said_group in said.groups
    )


@settings(max_examples=200)
@given(PROMPTS, WILD_SCENES)
def test_nothing_that_the_prompt_asks_for_is_proposed(groups, seen):
    prompt = benchmark_prompt(groups)
    found = proposals(prompt, seen)
    assert not [text for text in found if _asks_for(prompt, text)]
    assert "a plain background" not in found
    useful(prompt, found)


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


def test_the_error_is_named_with_its_surroundings_first():
    seen = scene("red circle", "red circle", "red circle", ground=("pink", "plain"))
    texts = list(proposals("two red circles", seen))
    assert texts[:2] == ["three circles on a pink background", "three shapes on a pink background"]
    assert texts[2] == "a pink background"
    named = proposals("two red circles on a pink background", seen)
    assert not any("background" in text for text in named)
