"""That no rule's work grows faster than the prompt: looks at words are counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from npc_local.salience.rules import parser, quantity
from npc_local.salience.rules.grammar import Word


class Counting(Sequence[Word]):
    """Words, with the number of times that one was looked at."""

    def __init__(self, words: Sequence[Word]) -> None:
        self.words = words
        self.looks = 0

    def __len__(self) -> int:
        return len(self.words)

    def __iter__(self) -> Iterator[Word]:
        for word in self.words:
            self.looks += 1
            yield word

    def __getitem__(self, at: Any) -> Any:
        found = self.words[at]
        self.looks += len(found) if isinstance(at, slice) else 1
        return found


def looks(rule: Any, words: Sequence[Word]) -> int:
    counting = Counting(words)
    rule._read(counting)
    return counting.looks


def tagged(text: str) -> list[Word]:
    """Return words written as text/tag, each the root of a sentence of its own."""
    words = []
    for at, one in enumerate(text.split()):
        word, tag = one.rsplit("/", 1)
        words.append(Word(word.lower(), at, at + 1, tag, "ROOT", at, word[0].isupper()))
    return words


@pytest.mark.parametrize(
    "text",
    [
        "style by Monet ",
        "in the style of Monet ",
        '"cat" ',
        "no cat, ",
        "deep ",
        "square red ",
        "2 ",
    ],
)
def test_quantity(text: str) -> None:
    few, many = (looks(quantity, quantity._tagged(text * times)) for times in (400, 800))
    assert many < 2.2 * few


@pytest.mark.parametrize(
    "text",
    [
        "style/NN by/IN Monet/NNP ",
        "\"/`` cat/NN \"/'' ",
        "jump/VB ",
        "no/DT cat/NN ,/, ",
        "dark/JJ ",
        "Quietly/RB ",
        "cat/NN cat/NN left/JJ ",
        "and/CC hundred/CD ",
    ],
)
def test_parser(text: str) -> None:
    few, many = (looks(parser, tagged(text * times)) for times in (400, 800))
    assert many < 2.2 * few
