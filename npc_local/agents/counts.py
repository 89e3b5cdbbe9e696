"""Numbers up to their spelling: "a hundred", "100", "2x" and "two dozen" in digits."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_UNITS_TEXT = """
    one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen
"""
_UNITS = {word: number for number, word in enumerate(_UNITS_TEXT.split(), start=1)}
_TENS_TEXT = "twenty thirty forty fifty sixty seventy eighty ninety"
_TENS = {word: 10 * number for number, word in enumerate(_TENS_TEXT.split(), start=2)}
_FACTORS = {"dozen": 12, "hundred": 100, "thousand": 1_000, "million": 1_000_000}
_SIMPLE = {**_UNITS, **_TENS}
_DIGITS = re.compile(r"([1-9][0-9]{0,2}(?:,[0-9]{3})+|[1-9][0-9]*)x?")  # "2x cats"


def in_digits(word: str) -> str:
    """Return a word for a number in digits ("twelve", "1,000", "2x"); others as they are."""
    if match := _DIGITS.fullmatch(word):
        return match[1].replace(",", "")
    number = _SIMPLE.get(word) or _FACTORS.get(word)
    return str(number) if number else word


def is_count(word: str) -> bool:
    """Tell whether a word says how many; not for years and the like."""
    digits = in_digits(word)
    return digits.isdecimal() and not (len(digits) == 4 and 1100 <= int(digits) < 2100)


def counted(words: Sequence[str]) -> list[str]:
    """Return words with each number as one word, in digits: "a", "hundred" is "100"."""
    return list(_counted(words))


def _counted(words: Sequence[str]) -> Iterator[str]:
    at = 0
    while at < len(words):
        opens = words[at] in {"a", "an"} and words[at + 1 : at + 2] and words[at + 1] in _FACTORS
        start = at + 1 if opens else at
        end, value = _number(words, start)
        if end > start:
            yield str(value)
            by = end + 1 < len(words) and words[end] == "x" and words[end + 1].isalpha()
            at = end + 1 if by and words[end - 1].isdecimal() else end  # "2 x cats"
        else:
            yield words[at]
            at += 1


def _number(words: Sequence[str], start: int) -> tuple[int, int]:
    """Return where a number that begins at an index ends, and what it is; (start, 0) if none."""
    total, group, at = 0, 0, start
    while at < len(words):
        word = words[at]
        joined = word == "and" and at > start and words[at - 1] in {"hundred", "thousand"}
        if joined and words[at + 1 : at + 2] and words[at + 1] in _SIMPLE:
            at += 1
            continue
        if word in _FACTORS:
            factor = _FACTORS[word]
            if word in {"hundred", "dozen"}:
                group = max(group, 1) * factor
            else:
                total, group = total + max(group, 1) * factor, 0
        elif at > start and not _goes_on(words[at - 1], word):
            break
        elif word in _SIMPLE:
            group += _SIMPLE[word]
        elif at == start and _DIGITS.fullmatch(word):
            group = int(in_digits(word))
        else:
            break
        at += 1
    return at, total + group


def _goes_on(before: str, word: str) -> bool:
    """Tell whether two words can be one number: "twenty one", "hundred five", not "two three"."""
    if before in _TENS:
        return _UNITS.get(word, 10) < 10
    return before in {"hundred", "thousand", "million", "and"} and word in _SIMPLE
