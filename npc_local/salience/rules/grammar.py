"""A prompt as words with their grammar: what `parser` needs of spaCy, and no more.

Which words are salient is left to the rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from npc_local.salience.rules.content import spaced

# The parser's memory grows with the text; sentences of prompts are far shorter than this.
_PIECE = 20_000  # characters
_HYPHENS = "-\u2010\u2011\u2013"


@dataclass(frozen=True, slots=True)
class Word:
    """A word of the prompt, hyphenated ones whole, or a mark of punctuation.

    `text` is in lower case, with typographic quotes as plain ones. `tag` and `dep` are spaCy's
    fine-grained tag and dependency label, `head` the index of the word it depends on (its own for
    the root). `capital`: written with a capital letter.
    """

    text: str
    start: int
    end: int
    tag: str
    dep: str
    head: int
    capital: bool

    @property
    def is_word(self) -> bool:
        """Whether it has a letter or a digit."""
        return any(map(str.isalnum, self.text))

    @property
    def is_noun(self) -> bool:
        """Whether it is tagged as a noun, common or proper."""
        return self.tag.startswith("NN")


def parse(prompt: str, model: Any) -> list[Word]:
    """Return the words of a prompt, parsed by a spaCy model, in order.

    Args:
        prompt: any text, of any length.
        model: a spaCy `Language` with a tagger and a parser.
    """
    words: list[Word] = []
    for start, piece in _pieces(_calm(prompt)):
        words.extend(_words(model(piece), start, len(words)))
    return words


def _calm(prompt: str) -> str:
    """Return a text of the same length that the model understands better.

    Capitals throughout are lowered, since the model takes them for names; typographic quotes, line
    breaks and what has no width would be taken for parts of words.
    """
    text = spaced(prompt).translate(
        {0x2019: "'", 0x2018: "'", **dict.fromkeys(map(ord, "\u201c\u201d\u201e\xab\xbb"), '"')}
        | {10: " ", 13: " "}
    )
    letters = [letter for letter in text if letter.isalpha()]
    if len(letters) > 3 and sum(map(str.isupper, letters)) > 0.7 * len(letters):
        text = "".join(map(_lowered, text))
    return text


def _lowered(letter: str) -> str:
    """Return a letter in lower case, unless that would be two characters."""
    return letter.lower() if len(letter.lower()) == 1 else letter


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """Yield parts that the parser can hold, cut behind a sentence or a word, with their places."""
    start = 0
    while start < len(text):
        end = start + _PIECE
        if end < len(text):
            window = text[start:end]
            cut = max(window.rfind(mark) for mark in (". ", "! ", "? ", "; ")) + 1
            end = start + (cut or window.rfind(" ") + 1 or _PIECE)
        yield start, text[start:end]
        start = end


def _words(doc: Any, offset: int, first: int) -> Iterator[Word]:
    """Yield the words of a parsed text, with hyphenated ones joined.

    Args:
        doc: spaCy's `Doc` of a part of the prompt.
        offset: where that part begins, in characters.
        first: the index of its first word.
    """
    groups = _groups(doc)
    group_of = {at: number for number, group in enumerate(groups) for at in group}
    for number, group in enumerate(groups):
        root = _root(doc, group)
        above = doc[root].head.i
        start, end = doc[group[0]].idx, doc[group[-1]].idx + len(doc[group[-1]])
        yield Word(
            text=doc.text[start:end].lower(),
            start=offset + start,
            end=offset + end,
            tag=doc[root].tag_,
            dep=doc[root].dep_,
            # What hangs on white space, which is no word, hangs on nothing.
            head=first + group_of.get(above, number),
            capital=doc[group[0]].text[:1].isupper(),
        )


def _groups(doc: Any) -> list[list[int]]:
    """Return the indices of the tokens of each word: one, or all of a hyphenated word."""
    groups: list[list[int]] = []
    joined = False
    for at, token in enumerate(doc):
        if token.is_space:
            joined = False
            continue
        attached = at > 0 and not doc[at - 1].whitespace_ and not doc[at - 1].is_space
        hyphen = token.text in _HYPHENS
        follows = at + 1 < len(doc) and not token.whitespace_ and doc[at + 1].text[:1].isalnum()
        if (
            groups
            and attached
            and (
                joined
                or (hyphen and follows and doc[at - 1].text.isalnum())
                or (doc[at - 1].text.isdecimal() and token.text.isalpha())  # 35mm
            )
        ):
            groups[-1].append(at)
        else:
            groups.append([at])
        joined = hyphen and follows and len(groups[-1]) > 1
    return groups


def _root(doc: Any, group: Sequence[int]) -> int:
    """Return the token of a group that depends on something outside it."""
    inside = set(group)
    outward = [at for at in group if doc[at].head.i not in inside or doc[at].head.i == at]
    named = [at for at in outward if re.search(r"\w", doc[at].text)]
    return (named or outward or list(group))[-1]
