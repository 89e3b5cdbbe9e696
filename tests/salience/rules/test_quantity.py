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
