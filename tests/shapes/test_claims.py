from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from npc_local.shapes.claims import check, demands, in_region, on_side
from npc_local.shapes.reading import read
from npc_local.shapes.scene import Background, Group, Relation, Scene, Thing
from npc_local.shapes.wording import Reading
from tests.shapes.strategies import WILD_SCENES, readings

PLACES = {"left": (11, 32), "right": (53, 32), "top": (32, 11), "bottom": (32, 53)}
PLACES |= {"middle": (32, 32)}
RADII = {"small": 5.6, "medium": 7.8, "large": 10.0}


def thing(words, place="middle"):
    """'red star', 'large red star'."""
    *size, color, shape = words.split()
    return Thing(shape, color, *PLACES[place], RADII[size[0] if size else "medium"])


def scene(*things, ground=("white", "plain")):
    made = [one if isinstance(one, Thing) else thing(one) for one in things]
    return Scene(tuple(made), Background(*ground))


def reason(prompt, seen):
    return "; ".join(f.wrong for f in check(read(prompt), seen) if not f.holds)


def claims(prompt, seen):
    return {f.claim: f.holds for f in check(read(prompt), seen)}


# ---------------------------------------------------------------- number, colour, anything else


def test_number():
    two = scene("red circle", "blue circle")
    assert claims("two circles", two) == {"two circles": True, "nothing else": True}
    assert reason("three circles", two) == "expected three circles, found two"
    assert reason("one circle", two) == "expected one circle, found two"
    assert reason("two circles", scene()) == "expected two circles, found none"
    assert reason("12 circles", two) == "expected 12 circles, found two"


def test_more_than_nine():
    many = scene(*["red circle"] * 12)
    assert reason("nine circles", many) == "expected nine circles, found 12"
    assert reason("12 circles", many) == ""
    assert reason("a star", many) == "expected one star, found none; 12 extra red circles"


def test_nothing_else():
    seen = scene("red circle", "red circle", "red circle", "green star")
    assert reason("two circles", seen) == "expected two circles, found three; an extra green star"
    seen = scene("red circle", "blue cross", "blue cross", "green star")
    assert reason("a circle", seen) == "two extra blue crosses and an extra green star"


def test_colour():
    prompt = "two red circles"
    assert reason(prompt, scene("red circle", "red circle")) == ""
    assert reason(prompt, scene("red circle", "blue circle")) == (
        "expected two red circles, found one but one blue"
    )
    assert reason("a red circle", scene("blue circle")) == (
        "expected one red circle, found none but one blue"
    )
    assert claims(prompt, scene("red circle", "blue circle")) == {
        "two circles": True,
        "two red circles": False,
        "nothing else": True,
    }


def test_an_open_colour_takes_any():
    assert reason("three circles", scene("red circle", "blue circle", "black circle")) == ""


# ---------------------------------------------------------------- place and size


@pytest.mark.parametrize(
    ("prompt", "place"),
    [
        ("a star on the left", "left"),
        ("a star on the right", "right"),
        ("a star at the top", "top"),
        ("a star at the bottom", "bottom"),
    ],
)
def test_place(prompt, place):
    for other in PLACES:
        wrong = reason(prompt, scene(thing("red star", other)))
        assert (wrong == "") == (other == place)
        if wrong:
            assert wrong == prompt.replace("a star", "the star should be")


def test_the_middle_is_neither_left_nor_right():
    for x, left, right in ((27, True, False), (29, False, False), (37, False, True)):
        one = Thing("star", "red", x, 32, 8)
        assert (in_region("left", one), in_region("right", one)) == (left, right)


def test_place_of_what_is_not_there():
    assert reason("two stars on the left", scene()) == (
        "expected two stars, found none; there are no stars on the left"
    )


def test_all_of_a_group_must_be_in_place():
    seen = scene(thing("red star", "left"), thing("red star", "right"))
    assert reason("two stars on the left", seen) == "the stars should be on the left"


def test_size_against_each_other():
    prompt = "a larger star on the left and a smaller circle on the right"

    def seen(star, circle):
        return scene(thing(f"{star} red star", "left"), thing(f"{circle} red circle", "right"))

    assert reason(prompt, seen("large", "medium")) == ""
    assert reason(prompt, seen("medium", "small")) == ""
    assert reason(prompt, seen("medium", "medium")) == (
        "the star should be larger; the circle should be smaller"
    )
    assert claims(prompt, seen("small", "large"))["larger star"] is False


def test_size_when_there_is_nothing_to_compare_with():
    prompt = "a larger star and a smaller circle"
    assert reason(prompt, scene("large red star")) == (
        "there is nothing that the star is larger than; "
        "expected one circle, found none; there is no smaller circle"
    )


def test_size_by_itself_is_the_word():
    assert reason("a larger star", scene("large red star")) == ""
    assert reason("a larger star", scene("medium red star")) == "the star should be larger"
    assert reason("a smaller star", scene("small red star")) == ""
    assert reason("a smaller star", scene("medium red star")) == "the star should be smaller"


def test_a_size_that_is_not_compared_is_the_thing_s_own():
    seen = scene(thing("medium red star", "left"), thing("small red circle", "right"))
    assert reason("a larger star and a smaller circle", seen) == ""
    assert reason("a large star and a small circle", seen) == "the star should be large"
    assert reason("a large star", scene("medium red star")) == "the star should be large"
    assert reason("a big star", scene("large red star")) == ""


# ---------------------------------------------------------------- one seen from the other


def pair(one, other):
    """A red circle and a blue star at two points."""
    return scene(Thing("circle", "red", *one, 5.6), Thing("star", "blue", *other, 5.6))


@pytest.mark.parametrize(
    ("one", "other", "sides"),
    [
        # Both in one half of the picture, or one of them in its middle.
        ((9, 32), (25, 32), {"left", "beside"}),
        ((25, 32), (9, 32), {"right", "beside"}),
        ((40, 20), (58, 20), {"left", "beside"}),
        ((32, 9), (32, 25), {"above", "beside"}),
        ((32, 58), (32, 40), {"below", "beside"}),
        ((30, 12), (30, 30), {"above", "beside"}),
        ((20, 20), (34, 34), {"left", "above", "beside"}),
        # Opposite places, and both at once on a diagonal.
        ((9, 32), (50, 32), {"left"}),
        ((11, 32), (53, 32), {"left"}),
        ((11, 53), (53, 11), {"left", "below"}),
        ((11, 28), (53, 11), {"left", "below"}),
        # Not clear of each other.
        ((30, 10), (34, 50), {"above"}),
        ((32, 32), (32, 32), set()),
    ],
)
def test_a_relation_compares_the_two_wherever_they_are(one, other, sides):
    words = {
        "left": "to the left of",
        "right": "to the right of",
        "above": "above",
        "below": "below",
        "beside": "next to",
    }
    for side, said in words.items():
        prompt = f"a red circle {said} a blue star"
        expected = "" if side in sides else f"the circle should be {said} the star"
        assert reason(prompt, pair(one, other)) == expected


def test_places_in_much_the_same_words_stay_places():
    seen = pair((9, 32), (25, 32))
    assert reason("a red circle on the left of a blue star", seen) == ""
    assert reason("a red circle on the left and a blue star on the right", seen) == (
        "the star should be on the right"
    )


def test_every_one_of_a_group_lies_to_that_side_of_every_other():
    prompt = "two circles to the left of a star"
    left, middle, right = (thing("red circle", place) for place in ("left", "middle", "right"))
    star = thing("red star", "middle")
    assert reason(prompt, scene(left, left, star)) == ""
    assert reason(prompt, scene(left, right, star)) == (
        "the circles should be to the left of the star"
    )
    assert reason(prompt, scene(left, middle, thing("red star", "right"))) == ""


def test_a_relation_of_what_is_not_there():
    prompt = "two circles to the left of a star"
    star, circle = thing("red star", "right"), thing("red circle", "left")
    assert reason(prompt, scene(star)).endswith("there are no circles to the left of the star")
    assert reason(prompt, scene(circle, circle)).endswith(
        "there is no star that the circles are to the left of"
    )


def test_a_relation_between_two_of_a_kind():
    left, right = thing("red circle", "left"), thing("blue circle", "right")
    for order in ((left, right), (right, left)):
        seen = scene(*order)
        assert reason("a circle to the left of a circle", seen) == ""
        assert reason("a red circle to the left of a blue circle", seen) == ""
        assert reason("a red circle left of a circle", seen) == ""
        assert reason("a blue circle left of a red circle", seen) == (
            "the blue circle should be to the left of the red circle"
        )
    upright = scene(thing("red circle", "top"), thing("red circle", "bottom"))
    assert reason("a circle to the left of a circle", upright) == (
        "the circle should be to the left of another circle"
    )


def test_a_relation_is_a_claim_of_its_own():
    assert demands(read("a larger red circle next to two stars")) == (
        ("one circle", "count"),
        ("one red circle", "colour"),
        ("larger circle", "size"),
        ("two stars", "count"),
        ("circle next to stars (near, in any direction)", "relation"),
        ("nothing else", "other"),
    )


_POINTS = st.tuples(st.integers(6, 58), st.integers(6, 58))
_TURNED = {"left": "right", "right": "left", "above": "below", "below": "above"}


@given(_POINTS, _POINTS, _POINTS, st.sampled_from([*_TURNED, "beside"]))
def test_a_relation_does_not_depend_on_where_the_two_stand_together(one, other, shift, side):
    first, second, *moved = (
        Thing("star", "red", x + dx, y + dy, 6)
        for dx, dy in ((0, 0), shift)
        for x, y in (one, other)
    )
    assert on_side(side, first, second) == on_side(side, *moved)
    assert on_side(side, first, second) == on_side(_TURNED.get(side, side), second, first)


_DRAWN = st.sampled_from([5.6, 7.8, 10.0])
_ANGLES = st.floats(0, 2 * math.pi)


def around(radius, other, gap, angle):
    """A thing so far from another, edge to edge, in a direction."""
    apart = radius + other.radius + gap
    x, y = other.x + apart * math.cos(angle), other.y + apart * math.sin(angle)
    return Thing("star", "red", x, y, radius)


@given(_DRAWN, _DRAWN, _ANGLES, st.floats(0, 1))
def test_next_to_is_nearness_in_any_direction(radius, other_radius, angle, share):
    other = Thing("circle", "blue", 32, 32, other_radius)
    # A quarter of the picture, or as much as the two measure if that is more.
    near = max(16, radius + other_radius)
    assert on_side("beside", around(radius, other, share * (near - 0.01), angle), other)
    assert not on_side("beside", around(radius, other, near + 0.01 + 20 * share, angle), other)


@given(_DRAWN, _DRAWN, st.floats(11, 53), st.floats(11, 53))
def test_things_at_opposite_edges_are_not_next_to_each_other(radius, other_radius, one, other):
    left = Thing("star", "red", radius, one, radius)
    right = Thing("star", "red", 64 - other_radius, other, other_radius)
    assert not on_side("beside", left, right)
    top, bottom = (replace(thing, x=thing.y, y=thing.x) for thing in (left, right))
    assert not on_side("beside", top, bottom)


def test_what_lies_on_a_thing_is_not_next_to_it():
    assert not on_side(
        "beside", Thing("star", "red", 34, 32, 4), Thing("circle", "blue", 32, 32, 9)
    )


def test_groups_are_next_to_each_other_when_they_hang_together():
    prompt = "two red circles next to a blue star"
    star = Thing("star", "blue", 53, 32, 7.8)
    near, row, far = (Thing("circle", "red", *at, 7.8) for at in ((32, 32), (11, 32), (11, 11)))
    above = Thing("circle", "red", 53, 11, 7.8)
    assert reason(prompt, scene(near, row, star)) == ""
    assert reason(prompt, scene(near, above, star)) == ""
    assert reason(prompt, scene(row, far, star)) == "the circles should be next to the star"
    assert reason(prompt, scene(above, far, star)) == "the circles should be next to the star"


# ---------------------------------------------------------------- background


def test_background():
    seen = scene("red star", ground=("pink", "striped"))
    assert reason("a star on a striped pink background", seen) == ""
    assert reason("a star on a striped background", seen) == ""
    assert reason("a star", seen) == ""
    assert reason("a star on a dotted white background", seen) == (
        "the background is pink, not white; the background is striped, not dotted"
    )
    assert claims("a dotted background", seen) == {"dotted background": False}


# ---------------------------------------------------------------- one shape named twice


def test_a_circle_and_a_circle_are_two_circles():
    assert claims("a red circle and a red circle", scene("red circle", "red circle")) == {
        "two circles": True,
        "two red circles": True,
        "nothing else": True,
    }
    assert reason("a circle and a circle", scene("red circle")) == (
        "expected two circles, found one"
    )


def test_two_red_circles_and_one_blue_circle():
    prompt = "two red circles and one blue circle"
    assert reason(prompt, scene("red circle", "blue circle", "red circle")) == ""
    assert reason(prompt, scene("red circle", "red circle", "red circle")) == (
        "expected two red circles, found three; expected one blue circle, found none"
    )


def test_an_open_colour_beside_a_named_one():
    prompt = "a red circle and a circle"
    assert reason(prompt, scene("red circle", "blue circle")) == ""
    assert reason(prompt, scene("red circle", "red circle")) == ""
    assert reason(prompt, scene("blue circle", "blue circle")) == (
        "expected one red circle, found none"
    )


def test_one_shape_at_two_places():
    prompt = "a circle on the left and a circle on the right"
    left, right = thing("red circle", "left"), thing("blue circle", "right")
    assert reason(prompt, scene(left, right)) == ""
    assert reason(prompt, scene(right, left)) == ""
    assert reason(prompt, scene(left, left)) == "the circle should be on the right"


def test_things_are_shared_out_so_that_the_claims_hold_if_they_can():
    prompt = "a circle on the left and a larger red circle"
    seen = scene(thing("large red circle", "left"), thing("blue circle", "left"))
    assert reason(prompt, seen) == ""
    both = "a red circle on the left and a red circle on the right"
    assert reason(both, scene(thing("red circle", "right"), thing("red circle", "left"))) == ""
    one = scene(thing("red circle", "left"), thing("blue circle", "right"))
    # No one thing can be both the circle on the left and the red circle on the left.
    assert reason("a circle on the left and a red circle on the left", one) != ""


def test_one_shape_in_two_sizes():
    prompt = "a larger circle and a smaller circle"
    assert reason(prompt, scene("small red circle", "large blue circle")) == ""
    assert reason(prompt, scene("medium red circle", "medium blue circle")) != ""


def test_where_sizes_are_right_the_relation_or_place_is_what_is_wrong():
    seen = scene(thing("small red circle", "left"), thing("large red circle", "right"))
    assert claims("a larger circle to the left of a smaller circle", seen) == {
        "two circles": True,
        "larger circle": True,
        "smaller circle": True,
        "larger circle to the left of smaller circle": False,
        "nothing else": True,
    }
    assert reason("a larger circle to the left of a smaller circle", seen) == (
        "the larger circle should be to the left of the smaller circle"
    )
    assert reason("a larger circle on the left and a smaller circle on the right", seen) == (
        "the larger circle should be on the left; the smaller circle should be on the right"
    )
    assert reason("a larger circle on the left and a smaller circle", seen) == (
        "the larger circle should be on the left"
    )
    same = scene(thing("red circle", "left"), thing("red circle", "right"))
    assert reason("a larger circle to the left of a smaller circle", same) == (
        "the circle should be larger; the circle should be smaller"
    )


def test_a_size_that_both_have_does_not_decide_who_is_who():
    left, right = Thing("circle", "red", 11, 32, 10.0), Thing("circle", "red", 53, 32, 10.3)
    assert reason("a larger circle on the left and a circle on the right", scene(left, right)) == ""
    assert reason("a large circle to the left of a circle", scene(left, right)) == ""


_KINDS = st.builds(
    Group,
    st.just("circle"),
    st.just(1),
    st.sampled_from([None, "red", "blue"]),
    st.sampled_from([None, "left", "right", "above", "below"]),
    st.sampled_from([None, "larger", "smaller", "large", "small"]),
)
_CIRCLES = st.builds(
    Thing,
    st.just("circle"),
    st.sampled_from(["red", "blue"]),
    st.floats(6, 58),
    st.floats(6, 58),
    st.floats(5, 11),
)


@settings(max_examples=300)
@given(_KINDS, _KINDS, _CIRCLES, _CIRCLES, st.sampled_from([None, *_TURNED, "beside"]))
def test_two_of_a_shape_are_told_apart_with_the_fewest_faults(one, other, thing, rival, side):
    """Who is who, decided by hand both ways: each gets another shape, so nothing is left open."""
    assume(one != other or side)  # 'a circle and a circle' are two circles
    colors = {group.color for group in (one, other)} - {None}
    assume(all({thing.color, rival.color} == {color} for color in colors))
    relation = Relation(one, side, other) if side else None
    found = check(Reading((one, other), relation=relation), scene(thing, rival))
    star = replace(other, shape="star")
    apart = Reading((one, star), relation=Relation(one, side, star) if side else None)
    ways = (
        check(apart, scene(first, replace(second, shape="star")))
        for first, second in ((thing, rival), (rival, thing))
    )
    faults = [[f for f in way if not f.holds and f.kind in ("relation", "size")] for way in ways]
    ours = [f for f in found if not f.holds and f.kind in ("relation", "size")]
    assert len(ours) == min(map(len, faults))


# ---------------------------------------------------------------- any of it


@given(readings(), WILD_SCENES)
def test_any_prompt_can_be_checked_against_any_scene(reading, seen):
    findings = check(reading, seen)
    assert findings
    for finding in findings:
        assert finding.claim
        assert finding.holds or finding.wrong
    if reading.groups and all(finding.holds for finding in findings):
        assert len(seen.things) == sum(group.count for group in reading.groups)
