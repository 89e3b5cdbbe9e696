"""The cleaner of negative prompts: what it keeps, what it refuses and why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_local.phrases import MAX_WORDS, clean
from npc_local.prompts import is_control
from npc_local.records import Negative

PROMPT = "two red circles and a blue square on a wooden table"


def kept(*texts, prompt=PROMPT):
    return [
        negative.text
        for negative in clean([Negative(text, "targeted") for text in texts], prompt)[0]
    ]


def reason(text, prompt=PROMPT):
    (_, (rejected,)) = clean([Negative(text, "untargeted")], prompt)
    assert rejected.text == text
    return rejected.reason


@pytest.mark.parametrize(
    ("written", "tidy"),
    [
        ("One Circle", "one circle"),
        ("  green   triangle ", "green triangle"),
        ('"green triangle."', "green triangle"),
        ("“green triangle”", "green triangle"),
        ("1. green triangle", "green triangle"),
        ("(2) 'green triangle',", "green triangle"),
        ("- 3) green triangle!", "green triangle"),
        ("\u2022 green triangle;", "green triangle"),
        ("2 cats", "2 cats"),
        ("three-legged dog", "three-legged dog"),
        ("一只猫", "一只猫"),
    ],
)
def test_tidying(written, tidy):
    assert kept(written) == [tidy]


def test_kind_and_order_stay():
    wanted = (Negative("pink cat", "untargeted"), Negative("green dog", "targeted"))
    assert clean(wanted, PROMPT) == (wanted, ())


@pytest.mark.parametrize("text", ["", "  ", "...", "- ", '""'])
def test_no_words(text):
    assert reason(text) == "no words"


def test_word_limit():
    assert kept("a b c d e f") == ["a b c d e f"]
    assert reason("a b c d e f g") == "7 words; at most 6"


@pytest.mark.parametrize(
    "text",
    ["no dog", "not blue", "cat without hat", "never night", "non-slip mat", "isn't red", "don’t"],  # noqa: RUF001
)
def test_negation(text):
    assert reason(text).startswith("negation")


@pytest.mark.parametrize("text", ["notebook", "knot", "noon light", "nonagon"])
def test_negation_only_as_a_word(text):
    assert kept(text) == [text]


@pytest.mark.parametrize("text", ["red\ncat", "red\tcat", "red\x00cat", "red \ud800"])
def test_control_characters(text):
    assert reason(text) == "control character"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("green box", "Green Boxes"),
        ("houses", "house"),
        ("bus", "buses"),
        ("glass", "glasses"),
        ("cherries", "cherry"),
        ("cookie", "cookies"),
        ("tomato", "tomatoes"),
        ("shoes", "shoe"),
        ("child", "children"),
        ("knives", "knife"),
        ("dog's bowl", "dog’s bowls"),  # noqa: RUF001
    ],
)
def test_duplicates_up_to_number(first, second):
    negatives = [Negative(first, "targeted"), Negative(second, "targeted")]
    (only,), (rejected,) = clean(negatives, PROMPT)
    assert only.text == first
    assert (rejected.text, rejected.reason) == (second, "duplicate")


@pytest.mark.parametrize("pair", [("cap", "cape"), ("plan", "plane"), ("star", "stars at night")])
def test_not_duplicates(pair):
    assert kept(*pair) == list(pair)


@pytest.mark.parametrize(
    "text", ["two red circles", "red circle", "Red Circles", "circle", "wooden tables", "table"]
)
def test_what_the_prompt_asks_for(text):
    assert reason(text) == "the prompt asks for it"


@pytest.mark.parametrize(
    "text", ["three red circles", "red square", "one red circle", "circles red", "table leg"]
)
def test_what_the_prompt_does_not_ask_for(text):
    assert kept(text) == [text]


@pytest.mark.parametrize("prompt", ["a room with no chairs", "a room without any chairs"])
def test_what_the_prompt_rules_out_is_not_asked_for(prompt):
    assert kept("chair", prompt=prompt) == ["chair"]
    assert kept("room", prompt=prompt) == []


def test_asked_for_once_is_enough():
    assert kept("chair", prompt="no chairs outside, two chairs inside") == []


words = st.sampled_from(["red", "no", "cat", "cats", "box", "boxes", "one", "2", "n't", "a", "1."])
phrase = st.one_of(st.text(max_size=20), st.lists(words, max_size=8).map(" ".join))


@given(st.lists(phrase, max_size=6), phrase)
def test_invariants(texts, prompt):
    negatives = [Negative(text, "targeted") for text in texts]
    good, bad = clean(negatives, prompt)
    assert len(good) + len(bad) == len(texts)
    assert len({negative.text for negative in good}) == len(good)
    for negative in good:
        assert negative.text == negative.text.strip()
        assert 1 <= len(negative.text.split()) <= MAX_WORDS
        assert not any(is_control(character) for character in negative.text)
        assert not {"no", "not", "never", "without"} & set(negative.text.split())
    # Cleaning what is clean changes nothing.
    assert clean(good, prompt) == (good, ())


@given(st.lists(words, min_size=1, max_size=6).map(" ".join))
def test_the_prompt_itself_is_never_kept(prompt):
    assert kept(prompt, prompt=prompt) == []
