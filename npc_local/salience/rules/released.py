"""The salient words of the authors' released code, weaknesses included: for parity alone.

"dining table" gives only "dining", "two red apples" gives "red" and no apples, and "a photo" is a
quantity. What reads a prompt better: `quantity` and `parser`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from npc_local.core.records import SalientToken, Span, TokenKind

_NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve"),
)
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS)} | {"a": "1", "an": "1"}
_DEFAULT_QUANTITIES = ("one", "two", "three", "1", "2", "3")
_DEFAULT_OBJECT = "object"
_STOPPED = frozenset(
    ("a", "an", "the", "and", "or", "with", "of", "in", "on", "at", "to", "for", "from")
) | {"photo", "picture", "image", "scene", "view", "close-up", "closeup", "shot"}
# A word begins with a letter: "a 3 cats" counts once. Where nothing follows an "of", it is the word
# itself.
_COUNTED = re.compile(rf"\b([0-9]+|{'|'.join(_DIGITS)})\b +(?:of +)?\b([a-z][a-z-]*)")
_FOREIGN = re.compile("[^0-9a-z -]")


def released(prompt: str) -> tuple[SalientToken, ...]:
    """Return the quantities, then the objects, each text once, as the released code finds them.

    Without any object, and without any word that can stand in for one, the last word does ("object"
    for no word at all), as there. Both spellings of an object share its span.
    """
    text, origin = _cleaned(prompt)
    quantities: list[tuple[str, Span | None]] = []
    objects: list[tuple[str, Span | None]] = []
    for match in _COUNTED.finditer(text):
        number, word = match.groups()
        quantities.append((number, match.span(1)))
        if number in _DIGITS:
            quantities.append((_DIGITS[number], match.span(1)))
        if word not in _STOPPED and len(word) > 1:
            objects.append((word, match.span(2)))
    if not quantities:
        quantities = [(word, None) for word in _DEFAULT_QUANTITIES]
    if not objects:
        objects = _uncounted(text)
    # The singular of a lone "s" is nothing.
    spellings = [(each, span) for word, span in objects for each in _both_numbers(word) if each]
    return (
        *_tokens(quantities, "number", origin),
        *_tokens(spellings, "thing", origin),
    )


def _cleaned(prompt: str) -> tuple[str, list[int]]:
    """Return the prompt in lower case with spaces for foreign characters, and where each was.

    One character may become two: the second list gives its place in the prompt for each.
    """
    lowered = [(letter, at) for at, given in enumerate(prompt) for letter in given.lower()]
    text = _FOREIGN.sub(" ", "".join(each for each, _ in lowered))
    return text, [at for _, at in lowered]


def _uncounted(text: str) -> list[tuple[str, Span | None]]:
    """Return what stands in for objects where none is counted."""
    words: list[tuple[str, Span | None]] = [
        (match.group(), match.span()) for match in re.finditer("[^ ]+", text)
    ]
    chosen = [
        (word, span)
        for word, span in words
        if word.isalpha() and word not in _STOPPED and len(word) > 2
    ]
    return chosen or words[-1:] or [(_DEFAULT_OBJECT, None)]


def _both_numbers(word: str) -> tuple[str, str]:
    """Return the singular and the plural that the released rules make of a word."""
    if word.endswith("ies"):
        singular = f"{word[:-3]}y"
    elif word.endswith(("xes", "ches", "shes", "ses", "zes")):
        singular = word[:-2]
    elif word.endswith("s") and not word.endswith("ss"):
        singular = word[:-1]
    else:
        singular = word
    if singular.endswith(("s", "x", "z", "ch", "sh")):
        return singular, f"{singular}es"
    if re.search("[^aeiou]y$", singular):
        return singular, f"{singular[:-1]}ies"
    return singular, f"{singular}s"


def _tokens(
    texts: list[tuple[str, Span | None]], kind: TokenKind, origin: list[int]
) -> Iterator[SalientToken]:
    """Yield one token a text, at its first place."""
    seen: set[str] = set()
    for text, span in texts:
        if text not in seen:
            seen.add(text)
            place = None if span is None else (origin[span[0]], origin[span[1] - 1] + 1)
            yield SalientToken(text, kind, place)
