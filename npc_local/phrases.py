"""The only cleaner of negative prompts: what a proposer wrote, made usable or refused by name.

Synonyms of what the prompt asks for are beyond it: the proposer's instructions rule those out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from npc_local.prompts import is_control
from npc_local.records import Negative

MAX_WORDS = 6

_NUMBERING = re.compile(r"^(?:\(?\d+[.):]|[-*\u2022\u2013\u2014])\s+")
_QUOTES = "\"'`\u201c\u201d\u2018\u00ab\u00bb"
_TRAILING = ".,;:!?\u2026"
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_NEGATIONS = frozenset({"no", "not", "non", "none", "nor", "never", "without", "cannot"})
_ARTICLES = frozenset({"a", "an", "any", "the"})
_IRREGULAR = {
    "people": "person",
    "men": "man",
    "women": "woman",
    "children": "child",
    "feet": "foot",
    "teeth": "tooth",
    "geese": "goose",
    "mice": "mouse",
    "leaves": "leaf",
    "knives": "knife",
    "shelves": "shelf",
    "loaves": "loaf",
    "wolves": "wolf",
}


@dataclass(frozen=True, slots=True)
class Rejected:
    """A proposal that cannot be used, as it was written, and why."""

    text: str
    reason: str


def clean(
    negatives: Iterable[Negative], prompt: str
) -> tuple[tuple[Negative, ...], tuple[Rejected, ...]]:
    """Split proposals into usable negative prompts, in order, and rejected ones with the reason.

    Kept texts are lower-case, of 1 to `MAX_WORDS` words, positive in wording, distinct up to
    singular and plural, and nothing that `prompt` asks for in the same words.
    """
    asked = _stems(prompt)
    kept: list[Negative] = []
    rejected: list[Rejected] = []
    seen: set[tuple[str, ...]] = set()
    for negative in negatives:
        text = _tidy(negative.text)
        stems = _stems(text)
        reason = _fault(text)
        if reason is None and stems in seen:
            reason = "duplicate"
        if reason is None and _asks_for(asked, stems):
            reason = "the prompt asks for it"
        if reason is None:
            seen.add(stems)
            kept.append(replace(negative, text=text))
        else:
            rejected.append(Rejected(negative.text, reason))
    return tuple(kept), tuple(rejected)


def _tidy(text: str) -> str:
    """Lower-case, and peel off numbering, quotes, trailing punctuation and spare whitespace."""
    text = _plain(text)
    while True:
        peeled = _NUMBERING.sub("", text.strip()).strip(_QUOTES).rstrip(_TRAILING).strip()
        if peeled == text:
            return re.sub(" +", " ", text)
        text = peeled


def _plain(text: str) -> str:
    """Lower-case, with the typewriter's apostrophe in place of the printer's."""
    return text.lower().replace("\u2019", "'")


def _fault(text: str) -> str | None:
    """Say what is wrong with a tidied phrase taken alone; None if nothing is."""
    if any(is_control(character) for character in text):
        return "control character"
    words = _WORD.findall(text)
    if not words:
        return "no words"
    if len(text.split()) > MAX_WORDS:
        return f"{len(text.split())} words; at most {MAX_WORDS}"
    if any(_negates(word) for word in words):
        return "negation: a negative prompt names what should be absent"
    return None


def _negates(word: str) -> bool:
    return word in _NEGATIONS or word.endswith("n't")


def _asks_for(asked: Sequence[str], wanted: Sequence[str]) -> bool:
    """Tell whether `wanted` is a contiguous run of `asked` that no negation precedes."""
    size = len(wanted)
    for start in range(len(asked) - size + 1):
        if tuple(asked[start : start + size]) == tuple(wanted):
            before = [stem for stem in asked[:start] if stem not in _ARTICLES]
            if not (before and _negates(before[-1])):
                return True
    return False


def _stems(text: str) -> tuple[str, ...]:
    return tuple(_stem(word) for word in _WORD.findall(_plain(text)))


def _stem(word: str) -> str:
    """Return a spelling that a word's singular and plural share; not always a word itself."""
    word = _IRREGULAR.get(word, word.removesuffix("'s"))
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    # "boxes" has lost its s by now: box(e) and hous(e) end alike in both numbers.
    if len(word) > 3 and word.endswith(("se", "xe", "ze", "che", "she", "oe")):
        word = word[:-1]
    return f"{word[:-1]}ie" if len(word) > 3 and word.endswith("y") else word
