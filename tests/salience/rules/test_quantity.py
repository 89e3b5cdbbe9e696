"""The rule without a parser, by cases; a case is the prompt with its tokens marked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_local.salience.rules.quantity import counted, covers
from tests.salience.rules.marking import check, marked, plain

WORDS = ("a", "red", "two", "cat", ",", "of", "sitting", "left", "no")


@pytest.mark.parametrize(
    "expected",
    [
        "[#three>clocks] [clocks]",
        "a [clock]",
        "An [apple].",
        "[#2>cats] [cats] and [#12>dogs] [dogs]",
        "[#two>apples] [~red>apples] [apples]",
        "a [dining table]",
        "[#three>stop signs] [~large>stop signs] [~green>stop signs] [stop signs]",
        "A photo of [#three>laptops] [laptops] and [#two>bears] [bears]",
        "A close-up shot of [#one>teddy bear] [teddy bear]",
        "a photo of [~white>cat] [cat] on the [@above] and [~green>car] [car] on the [@below]",
        # A colour may be the thing; which it is depends on what follows.
        "a [~purple>orange] [orange] and an [~orange>knife] [knife]",
        "[~red>frisbee] [frisbee] on the [@left] and [~orange>knife] [knife] on the [@right]",
        "a [~pale blue>boat] [boat] [@next to] a [~deep ocean blue>car] [car]",
        "a [~glass>vase] [vase] and a [~round>ball], [~wooden>ball] [ball]",
        "a [~heart-shaped>cookie] [cookie]",
        # So may a shape; it is where the phrase ends with it.
        "[#Three>circles] [~red>circles] [circles] [@above] [#one>square] [~blue>square] [square]",
        "[#two>squares] [~green>squares] [squares]",
        "a [~red>square] [square] and a [~blue>oval] [oval]",
        "a [~red>square] [square], [~blue>circles] [circles]",
        "a [~square>table] [table]",
        "a [~giant>square] [square]",
        "a [~large>table] [~round>table] [~wooden>table] [table]",
        "a [~round>room] [~crowded>room] [room]",
        "a [~round>orange] [orange] on the [@left]",
        "the [table] is [~round]",
        "[#one>square] [square], [#two>ovals] [ovals]",
        # Numbers of several digits or words are one.
        "[#1,000>balloons] [~red>balloons] [balloons]",
        "[#3.5>apples] [apples] and [#10000>dogs] [dogs]",
        "[#Twenty-one>cats] [cats] and [#thirty five>dogs] [dogs]",
        "[#two hundred and one>birds] [birds] and [#two>cats] [cats]",
        "a [#dozen>eggs] [eggs] and [#one>cup] [cup]",
        "in [1984], [#two>cats] [cats]",
        # A character of no width is a space.
        "[#two>cats] [~red>cats]\u200b [cats]",
        # A run ends where the phrase ends, and behind "a" a plural is a verb.
        "a [cat], dogs everywhere",
        "[#one>cat] [cat] sitting on the [sofa]",
        "a [dog] jumps",
        "a [car] parked [@outside]",
        "a [cat] without a hat",
        # Nothing counted: content words.
        "the [image]",
        "[~purple>grass] [grass]",
        "[dogs] [running]",
        "[\u041f\u044f\u0442\u044c] [\u0447\u0430\u0441\u043e\u0432]",
        "?! \U0001f408",
        "",
    ],
)
def test_cases(expected: str) -> None:
    prompt = plain(expected)
    assert marked(prompt, counted(prompt), nouns=True) == expected


@pytest.mark.parametrize(
    "prompt",
    [
        "A photo of a brown bus, a green truck, and a red skateboard",
        "a photo of three scissorses on the above and two dining tables on the below",
        "a larger stop sign on the left and a smaller skis on the right",
        "one wine glass, two tv remotes, and three suitcases",
        "seven sheeps",
        "Three red circles above one blue square",
        "1,000 red balloons and twenty-one cats",
    ],
)
def test_covers_what_it_understands(prompt: str) -> None:
    assert covers(prompt)


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "freedom",
        "a dog jumps",  # verb or compound?
        "a dog jumping over a fence",
        "two dogs sleep",
        "a car parked under a tree",
        "a red panda bear cub",
        "a cat without a hat",
        "the Eiffel Tower",
        'a sign that says "open"',
        "a cat and dogs",
        "the car is red",
        "a quietly sleeping cat",
    ],
)
def test_does_not_cover_what_it_would_guess(prompt: str) -> None:
    assert not covers(prompt)


@given(st.text() | st.lists(st.sampled_from(WORDS)).map(" ".join))
def test_any_text(prompt: str) -> None:
    check(prompt, counted(prompt))
    assert covers(prompt) in {True, False}
