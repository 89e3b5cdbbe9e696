"""Which words of a prompt say what the picture is, not what it shows: medium, style, request."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from npc_local.salience.rules.grammar import Word
from npc_local.salience.rules.words import (
    ART,
    ART_MODIFIERS,
    MEDIA,
    QUALITY_PHRASES,
    QUALITY_WORDS,
    REQUESTS,
    STYLE_NOUNS,
    STYLE_WORDS,
    is_colour,
)

_APERTURE = re.compile(r"f/[0-9]")
_STOPS = frozenset(",.;:!?()|[]")
_SHOWING = frozenset(
    ("of", "showing", "shows", "depicting", "depicts", "with", "featuring", "where", "that", "in")
) | {"from", ":", ",", "."}
_INSIDE = frozenset({"of", "close-up"})
_REACH = 8  # words between "in" and "style"
_EXTENT = frozenset({"size", "shape", "form", "shapes", "style", "width", "height", "length"})


def depicting(words: Sequence[Word]) -> set[int]:
    """Return the indices of words about the picture itself, and of "the size of" and its like."""
    hidden: set[int] = set()
    for first, last in _segments(words):
        if _is_style(words[first:last]):
            hidden |= set(range(first, last))
    hidden |= _opening(words)
    credited = 0  # the words before it are done with, to the end of a segment
    for at, word in enumerate(words):
        after = words[at + 1].text if at + 1 < len(words) else ""
        compound = at + 1 < len(words) and words[at + 1].is_noun and word.dep == "compound"
        if (
            word.text in QUALITY_WORDS
            or (word.text in MEDIA and not compound)
            or _APERTURE.match(word.text)
        ):
            hidden.add(at)
        if word.text in ART and (after in {"of", "depicting", "showing"} or word.text == "scene"):
            hidden.add(at)
        if word.text in _EXTENT and after in {"of", "like"}:
            hidden.add(at)
        for phrase in QUALITY_PHRASES:
            if tuple(one.text for one in words[at : at + len(phrase)]) == phrase:
                hidden |= set(range(at, at + len(phrase)))
        if word.text == "style":
            hidden |= set(range(_style_start(words, at), at + 1))
        credits = (word.text == "style" and after == "of") or (
            word.text == "by" and _is_credit(words, at)
        )
        if credits and at >= credited:
            credited = _segment_end(words, at)
            hidden |= set(range(at, credited))
    return hidden


def _segments(words: Sequence[Word]) -> Iterator[tuple[int, int]]:
    """Yield the ranges between marks of punctuation."""
    start = 0
    for at, word in enumerate(words):
        if word.text in _STOPS:
            if start < at:
                yield start, at
            start = at + 1
    if start < len(words):
        yield start, len(words)


def _is_style(segment: Sequence[Word]) -> bool:
    """Tell whether a segment names a medium or a quality and nothing else: "oil painting"."""
    texts = [word.text for word in segment if word.text not in {"a", "an", "the", "in", "and"}]
    known = MEDIA | ART | ART_MODIFIERS | QUALITY_WORDS | STYLE_NOUNS
    telling = MEDIA | ART | QUALITY_WORDS | STYLE_NOUNS | STYLE_WORDS
    return bool(texts) and all(text in known for text in texts) and texts[-1] in telling


def _opening(words: Sequence[Word]) -> set[int]:
    """Return the words up to the picture that the prompt begins with: "A detailed oil painting of".

    A request ("generate an image of", "I want a photo where") goes with it.
    """
    hidden: set[int] = set()
    for start in _sentence_starts(words):
        at = start
        while at < len(words) and words[at].text in REQUESTS:
            at += 1
        if at > start and any(
            words[index].tag.startswith("VB") or words[index].text == "please"
            for index in range(start, at)
        ):
            hidden |= set(range(start, at))
        else:
            at = start
        for index in range(at, min(at + 8, len(words))):
            word = words[index]
            after = words[index + 1].text if index + 1 < len(words) else "."
            if word.text in MEDIA | ART and (after in _SHOWING or word.text in MEDIA):
                hidden |= set(range(at, index + 1))
            elif word.text not in _INSIDE and (
                word.tag in {"IN", "VBZ", "VBD", "VBP"}
                or (word.tag == "CC" and not is_colour(words[index - 1].text))
                or (word.tag == "VBG" and index and words[index - 1].is_noun)
            ):
                break
    return hidden


def _sentence_starts(words: Sequence[Word]) -> Iterator[int]:
    for at in range(len(words)):
        if at == 0 or words[at - 1].text in {".", "!", "?"}:
            yield at


def _is_credit(words: Sequence[Word], at: int) -> bool:
    """Tell whether "by" names an artist: a name behind it, and no verb or thing it belongs to."""
    named = at + 1 < len(words) and words[at + 1].capital
    before = words[at - 1].text if at else ","
    return named and (before in _STOPS or before in MEDIA | ART | {"art", "artwork", "style"})


def _style_start(words: Sequence[Word], at: int) -> int:
    """Return where "in anime style" or "in the style" begins, given the index of "style"."""
    first = at
    while first > max(0, at - _REACH) and words[first - 1].text not in _STOPS | {"of", "with"}:
        first -= 1
        if words[first].text == "in":
            return first
    return at


def _segment_end(words: Sequence[Word], at: int) -> int:
    """Return the index of the next mark of punctuation behind a word; of "by Monet" the end."""
    while at + 1 < len(words) and words[at + 1].text not in _STOPS:
        at += 1
    return at + 1
