"""The quantity rule, by cases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_local.salience.tokens import salient_tokens


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("three clocks", ["three", "clocks"]),
        ("a clock", ["clock"]),
        ("An apple.", ["apple"]),
        ("2 cats and 12 dogs", ["2", "cats", "12", "dogs"]),
        # Attributes stay beside the head noun, the last word of the run.
        ("two red apples", ["two", "red", "apples"]),
        ("a dining table", ["dining", "table"]),
        ("three stop signs on the left", ["three", "stop", "signs", "left"]),
        # A photo is not what the image should contain.
        ("a photo of three laptops and two bears", ["three", "laptops", "two", "bears"]),
        ("A close-up shot of one teddy bear", ["one", "teddy", "bear"]),
        # Punctuation, prepositions, verbs and the next quantity end a run.
        ("a cat, dogs everywhere", ["cat"]),
        ("one cat sitting on the sofa", ["one", "cat"]),
        ("a cat a dog", ["cat", "dog"]),
        # Relations count wherever they stand, and the noun behind them too.
        ("a larger dog above a smaller cat", ["larger", "dog", "above", "smaller", "cat"]),
        ("two cats on the right", ["two", "cats", "right"]),
        # Each token once, where it first stands.
        ("one red cat and one red dog", ["one", "red", "cat", "dog"]),
        # Nothing counted: content words.
        ("purple grass under the sky", ["purple", "grass", "sky"]),
        ("A photo of dogs left of cats", ["dogs", "left", "cats"]),
        ("the image", []),
        ("", []),
        ("?! 🐈", []),
        # Other alphabets have words too.
        ("one café", ["one", "café"]),
        ("Пять часов", ["пять", "часов"]),
    ],
)
def test_cases(prompt: str, expected: list[str]) -> None:
    assert salient_tokens(prompt) == expected


@given(st.text())
def test_tokens_are_unique_words_of_the_prompt(prompt: str) -> None:
    tokens = salient_tokens(prompt)
    assert len(set(tokens)) == len(tokens)
    assert all(token in prompt.lower() and token.strip() for token in tokens)
