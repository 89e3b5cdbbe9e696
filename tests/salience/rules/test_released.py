"""The rule of the released code: against its recorded output, and its corners by hand."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_local.salience.rules.released import released
from tests.salience.golden import GOLDEN, needs_golden


def found(prompt: str) -> tuple[list[str], list[str]]:
    tokens = released(prompt)
    numbers = [token.text for token in tokens if token.kind == "number"]
    return numbers, [token.text for token in tokens if token.kind == "thing"]


@needs_golden
def test_equals_the_released_code() -> None:
    records = json.loads((GOLDEN / "salience_released_code.json").read_text())
    assert len(records) == 24
    for record in records:
        quantities, objects = found(record["prompt"])
        assert (quantities, sorted(objects)) == (record["quantities"], record["objects"])


@pytest.mark.parametrize(
    ("prompt", "quantities", "objects"),
    [
        # A match consumes the word behind the number, be it a number.
        ("a one cat", ["a", "1"], ["one", "ones"]),
        ("two a cat", ["two", "2"], ["two", "twos", "cat", "cats"]),
        # "of" may stand between; at the end it is the word itself, and stopped.
        ("two of cats", ["two", "2"], ["cat", "cats"]),
        ("cats, two of", ["two", "2"], ["cat", "cats", "two", "twos"]),
        ("two of of cats", ["two", "2"], ["two", "twos", "cat", "cats"]),
        # A word begins with a letter and has no digits.
        ("a 3 cats", ["3"], ["cat", "cats"]),
        ("a b52 bomber", ["a", "1"], ["bomber", "bombers"]),
        ("a x-ray", ["a", "1"], ["x-ray", "x-rays"]),
        # Numbers end at a word boundary: not 2nd, but the second half of twenty-one.
        ("2nd cat", ["one", "two", "three", "1", "2", "3"], ["cat", "cats"]),
        ("twenty-one cats", ["one", "1"], ["cat", "cats"]),
        ("2.5 cats", ["5"], ["cat", "cats"]),
        ("12 cats and 2 cats", ["12", "2"], ["cat", "cats"]),
        (
            "thirteen cats",
            ["one", "two", "three", "1", "2", "3"],
            ["thirteen", "thirteens", "cat", "cats"],
        ),
        # What is not ASCII is a space.
        ("a café", ["a", "1"], ["caf", "cafs"]),
        ("a \u0130stanbul", ["a", "1"], ["stanbul", "stanbuls"]),
        ("two\ncats", ["two", "2"], ["cat", "cats"]),
        # Spellings.
        ("two berries", ["two", "2"], ["berry", "berries"]),
        ("two boxes", ["two", "2"], ["box", "boxes"]),
        ("two noses", ["two", "2"], ["nos", "noses"]),
        ("two glass", ["two", "2"], ["glass", "glasses"]),
        ("two toys", ["two", "2"], ["toy", "toys"]),
        # Stopped words, no object: all words of three letters or more.
        ("a photo of the red cat", ["a", "1"], ["red", "reds", "cat", "cats"]),
        # No such word either: the last one, and for no word at all "object".
        ("a photo", ["a", "1"], ["photo", "photos"]),
        ("", ["one", "two", "three", "1", "2", "3"], ["object", "objects"]),
        ("s", ["one", "two", "three", "1", "2", "3"], ["s"]),
    ],
)
def test_corners(prompt: str, quantities: list[str], objects: list[str]) -> None:
    numbers, things = found(prompt)
    assert numbers == quantities
    assert things == objects


def test_spans_are_those_of_the_source() -> None:
    prompt = "\u0130 two Teddies"
    spans = {token.text: token.span for token in released(prompt)}
    assert spans == {"two": (2, 5), "2": (2, 5), "teddy": (6, 13), "teddies": (6, 13)}


def test_what_the_rule_adds_has_no_span() -> None:
    spans = {token.text: token.span for token in released("cats")}
    assert spans["one"] is None
    assert spans["3"] is None
    assert spans["cat"] == (0, 4)


@given(st.text() | st.text(alphabet="a onetw12-s ,\u0130\u212a"))
def test_any_text(prompt: str) -> None:
    tokens = released(prompt)
    assert {token.kind for token in tokens} == {"number", "thing"}
    assert len({(token.text, token.kind) for token in tokens}) == len(tokens)
    for token in tokens:
        assert token.text
        assert token.span is None or 0 <= token.span[0] < token.span[1] <= len(prompt)
