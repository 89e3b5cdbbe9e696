"""Which words of a prompt say what the picture is, not what it shows: medium, style, request.

A picture, a painting or a photo that is a thing in the scene ("a painting on the wall", "a wooden
picture frame", "two dogs and one portrait") is none of these words, nor is one that is all there is
("a small framed photograph").
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from npc_local.salience.rules.grammar import Word
from npc_local.salience.rules.words import (
    ART,
    ART_MODIFIERS,
    ARTICLES,
    FUNCTION_WORDS,
    HUNG,
    LOOKS,
    MADE,
    MEDIA,
    PICTURE_GROUNDS,
    PICTURE_HEADS,
    PICTURE_KEEPERS,
    PICTURE_VERBS,
    QUALITY_PHRASES,
    QUALITY_WORDS,
    REQUESTS,
    STYLE_NOUNS,
    STYLE_WORDS,
    SURFACES,
    VIEWS,
    is_colour,
    is_number,
)

_PICTURES = MEDIA | ART | LOOKS | VIEWS
_APERTURE = re.compile(r"f/[0-9]")
_STOPS = frozenset(",.;:!?()|[]")
_ENDS = frozenset({".", "!", "?", ";"})
_REACH = 8  # words between "in" and "style", and before the picture that a prompt begins with
_EXTENT = frozenset({"size", "shape", "form", "shapes", "style", "width", "height", "length"})
_SHOWING = PICTURE_VERBS | {"of", "where", "with", "from", "for", ":"}
# "the image should have", "the photo is taken": a whole sentence about the picture.
_SPEAKING = PICTURE_VERBS | MADE | {"should", "must", "has", "needs", "includes"}
_ASKING = frozenset({"please", "generate", "create", "want", "need", "give"})
_INSIDE = frozenset({"in", "of", "within", "throughout", "across", "for"})


def depicting(words: Sequence[Word]) -> set[int]:
    """Return the indices of words about the picture itself, and of "the size of" and its like."""
    segments = list(_segments(words))
    styles = {first: last for first, last in segments if _is_style(words, segments, first, last)}
    openings = _openings(words, segments, styles)
    hidden = {at for first, last in styles.items() for at in range(first, last)}
    hidden |= {at for at in openings if words[at].text in REQUESTS} | _mentions(words)
    credited = 0  # the words before it are done with, to the end of a segment
    for at, word in enumerate(words):
        after = _text(words, at + 1)
        # "creating a masterpiece" is in the scene; but a selfie is what it shows
        done = word.dep == "dobj" and word.text != "selfie"
        looks = word.text in LOOKS and not done and not _is_compound(words, at)
        viewed = word.text in VIEWS and (after == "of" or word.text == "scene")
        quality = word.text in QUALITY_WORDS and not done
        if looks or viewed or quality or _APERTURE.match(word.text):
            hidden.add(at)
        if word.text in _EXTENT and after in {"of", "like"}:
            hidden.add(at)
        for phrase in QUALITY_PHRASES:
            if tuple(part.text for part in words[at : at + len(phrase)]) == phrase:
                hidden |= set(range(at, at + len(phrase)))
        if word.text == "style":
            hidden |= set(range(_style_start(words, at), at + 1))
        credits = (word.text == "style" and after == "of") or (
            word.text == "by" and _is_credit(words, at)
        )
        if credits and at >= credited:
            credited = _segment_end(words, at)
            hidden |= set(range(at, credited))
    shown = (word for at, word in enumerate(words) if at not in hidden | openings and word.is_word)
    return hidden | openings if any(word.text not in FUNCTION_WORDS for word in shown) else hidden


def _text(words: Sequence[Word], at: int) -> str:
    """Return the word at an index; nothing beyond the ends."""
    return words[at].text if 0 <= at < len(words) else ""


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


def _is_style(
    words: Sequence[Word], segments: Sequence[tuple[int, int]], first: int, last: int
) -> bool:
    """Tell whether a segment names a medium or a quality and nothing else: "oil painting".

    "a painting" among things that are listed is one of them: "a dog, a painting, and a cup".
    """
    texts = [words[at].text for at in range(first, last)]
    naming = [text for text in texts if text not in ARTICLES | {"in", "and"}]
    known = _PICTURES | ART_MODIFIERS | QUALITY_WORDS | STYLE_NOUNS
    telling = _PICTURES | QUALITY_WORDS | STYLE_NOUNS | STYLE_WORDS
    if not naming or naming[-1] not in telling or any(text not in known for text in naming):
        return False
    if len(naming) > 1 or naming[0] not in MEDIA | ART or not ARTICLES & set(texts):
        return True
    if first == 0:
        return not _lists(words, last)
    return not (texts[0] == "and" or (last, first) != (segments[-1][1], segments[-1][0]))


def _lists(words: Sequence[Word], comma: int) -> bool:
    """Tell whether a comma and what follows it list things: ", a lamp and a chair"."""
    listed = joined = False
    for at in range(comma, len(words)):
        if words[at].text in _ENDS:
            break
        if words[at].text in {",", "and"} and _text(words, at + 1) != "and":
            listed = _text(words, at + 1) in ARTICLES or is_number(_text(words, at + 1))
            joined = joined or words[at].text == "and"
            if not listed:
                return False
    return listed and joined


def _openings(
    words: Sequence[Word], segments: Sequence[tuple[int, int]], styles: dict[int, int]
) -> set[int]:
    """Return the words up to the picture that a prompt begins with: "A detailed oil painting of".

    A request ("generate an image of", "I want a photo where") goes with it, in any sentence. Words
    about quality may stand before it.
    """
    hidden: set[int] = set()
    for start in _sentence_starts(words):
        at = start
        while at < len(words) and words[at].text in REQUESTS:
            at += 1
        if any(word.tag.startswith("VB") or word.text in _ASKING for word in words[start:at]):
            hidden |= set(range(start, at))
        elif start > 0:
            continue
        else:
            at = start
        hidden |= _opening(words, at)
    for first, _ in segments:
        if first not in styles:
            return hidden | _opening(words, first)
    return hidden


def _opening(words: Sequence[Word], start: int) -> set[int]:
    """Return the words of a noun phrase that names the picture itself; none if it names a thing."""
    for at in range(start, min(start + _REACH, len(words))):
        word = words[at]
        if word.text in _PICTURES and _text(words, at + 1) not in _PICTURES:
            if _is_compound(words, at) or not _is_itself(words, start, at):
                return set()
            return set(range(start, at + 1))
        before = _text(words, at - 1) if at > start else ""
        if word.text in {"and", "of"} and (is_colour(before) or before in _PICTURES):
            continue  # "a black and white photo", "a close-up of"
        if (
            is_number(word.text)
            or word.text in _STOPS
            or (word.text in ARTICLES and at > start)
            or word.tag in {"IN", "CC", "VBZ", "VBD", "VBP", "MD"}
            or (word.tag == "VBG" and at > start and words[at - 1].is_noun)
        ) and word.text not in _PICTURES:
            return set()
    return set()


def _is_compound(words: Sequence[Word], at: int) -> bool:
    """Tell whether a word for a picture describes the noun behind it: "picture frame"."""
    if at + 1 >= len(words):
        return False
    after = words[at + 1]
    made = after.text in MADE | _PICTURES | STYLE_NOUNS | QUALITY_WORDS
    return after.text in PICTURE_HEADS or (after.is_noun and not made)


def _is_itself(words: Sequence[Word], start: int, at: int) -> bool:
    """Tell whether the picture that a noun phrase names is the one to be made.

    Args:
        words: the prompt's.
        start: where the noun phrase begins.
        at: its last word, the picture.
    """
    after, beyond = _text(words, at + 1), _text(words, at + 2)
    reach = {word.text for word in words[at + 2 : at + 6]}
    if after == "with":
        return "frame" not in reach  # "a painting with a golden frame"
    if after == "of" and _hangs(words, start, at):
        return False
    if after in _SHOWING | MADE or not after:
        return True
    if after == "in":
        if words[at].text in MEDIA | LOOKS:
            return not reach & PICTURE_KEEPERS
        return _is_manner(words, at + 2)
    if after == "on":
        return beyond in PICTURE_GROUNDS
    if after == "by":
        return at + 2 < len(words) and words[at + 2].capital
    if after in {"that", "which"}:
        return beyond in _SPEAKING
    if after == ",":
        described = at - start > 1 and words[at - 1].text not in ART_MODIFIERS
        named = words[start].text in ARTICLES
        named = named and (described or words[at].text not in {"photo", "photograph"})
        return not (named and _lists(words, at + 1))
    return after in _STOPS


def _hangs(words: Sequence[Word], start: int, at: int) -> bool:
    """Tell whether a picture of something is fixed to a wall: "a poster of a band on a wall".

    Of a painting or a photo, what it shows may be there instead: "a photo of a clock on a wall".
    """
    if any(word.text == "framed" for word in words[start:at]):
        return True
    if words[at].text not in HUNG:
        return False
    behind = range(at + 2, min(at + 2 + _REACH, len(words)))
    for index in behind:
        word = words[index]
        if word.text in _STOPS or word.tag.startswith("VB"):
            return False
        if word.text == "on":
            return bool({word.text for word in words[index + 1 : index + 6]} & SURFACES)
    return False


def _is_manner(words: Sequence[Word], at: int) -> bool:
    """Tell whether words behind "in" say how something is made: "in oil", "in the style of"."""
    for index in range(at, min(at + _REACH, len(words))):
        text = words[index].text
        if text in _STOPS or (index > at and words[index].tag == "IN"):
            return False
        if text in ART_MODIFIERS | {"style", "watercolors", "oils"} or is_colour(text):
            return True
    return False


def _mentions(words: Sequence[Word]) -> set[int]:
    """Return the words for the picture where the prompt speaks of it later: "in the picture"."""
    hidden: set[int] = set()
    for at, word in enumerate(words):
        if word.text not in MEDIA | ART or _text(words, at - 1) not in {"the", "this"}:
            continue
        before, after = _text(words, at - 2), _text(words, at + 1)
        opens = at < 2 or before in _ENDS
        closes = after in _STOPS | {"", "and", "is", "are"}
        inside = before in _INSIDE and word.text in MEDIA and closes
        if inside or (opens and (after in _SPEAKING or _text(words, at + 2) in MADE | _SPEAKING)):
            hidden |= {at - 1, at}
    return hidden


def _sentence_starts(words: Sequence[Word]) -> Iterator[int]:
    for at in range(len(words)):
        if at == 0 or words[at - 1].text in {".", "!", "?"}:
            yield at


def _is_credit(words: Sequence[Word], at: int) -> bool:
    """Tell whether "by" names an artist: a name behind it, and no verb or thing it belongs to."""
    named = at + 1 < len(words) and words[at + 1].capital
    before = words[at - 1].text if at else ","
    return named and (before in _STOPS or before in _PICTURES | {"style"})


def _style_start(words: Sequence[Word], at: int) -> int:
    """Return where "in anime style" or "in the style" begins, given the index of "style"."""
    first = at
    while first > max(0, at - _REACH) and words[first - 1].text not in _STOPS | {"of", "with"}:
        first -= 1
        if words[first].text == "in":
            return first
    return at


def _segment_end(words: Sequence[Word], at: int) -> int:
    """Return the index of the next mark of punctuation behind a word, or of what is shown.

    That ends "by Monet", and "by Monet" alone in "a painting by Monet of a pond".
    """
    named = words[at].text == "by" and _text(words, at - 1) in _PICTURES
    ends = _STOPS | ({"of", "showing", "depicting"} if named else set())
    while at + 1 < len(words) and words[at + 1].text not in ends:
        at += 1
    return at + 1
