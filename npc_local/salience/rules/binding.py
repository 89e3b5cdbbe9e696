"""Salient parts of a prompt as tokens: attributes and numbers with the thing they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from npc_local.core.records import SalientToken, Span, TokenKind
from npc_local.salience.rules.content import token
from npc_local.salience.rules.grammar import Word
from npc_local.salience.rules.words import is_adverb

_REACH = 12  # words that a noun phrase may have
_BELONGING = frozenset({"number", "attribute"})
_PREDICATES = frozenset({"acomp", "attr", "oprd"})
_SUBJECTS = frozenset({"nsubj", "nsubjpass"})
_BETWEEN = {"number": frozenset({"of", "a", "the", "very"}), "attribute": frozenset({",", "and"})}


@dataclass(frozen=True, slots=True)
class Part:
    """Words [first, last] of a prompt that are one salient token."""

    first: int
    last: int
    kind: TokenKind

    @property
    def indices(self) -> range:
        """The indices of its words."""
        return range(self.first, self.last + 1)


def bound(prompt: str, words: Sequence[Word], parts: Sequence[Part]) -> Iterator[SalientToken]:
    """Yield the parts as tokens, in order, numbers and attributes with their noun."""
    things = {at: part for part in parts if part.kind == "thing" for at in part.indices}
    modifiers = {at for part in parts if part.kind in _BELONGING for at in part.indices}
    subjects = {
        word.head: at
        for at, word in reversed(list(enumerate(words)))
        if word.dep in _SUBJECTS and at in things
    }
    for part in parts:
        owner = None
        if part.kind in _BELONGING:
            owner = _ahead(words, part, things, modifiers) or _above(words, part, things, subjects)
        noun: Span | None = (words[owner.first].start, words[owner.last].end) if owner else None
        yield token(prompt, words[part.first].start, words[part.last].end, part.kind, noun)


def _ahead(
    words: Sequence[Word], part: Part, things: dict[int, Part], modifiers: set[int]
) -> Part | None:
    """Return the thing that a part stands before, with nothing between but further modifiers."""
    for at in range(part.last + 1, min(part.last + 1 + _REACH, len(words))):
        if at in things:
            return things[at]
        text = words[at].text
        if at not in modifiers and text not in _BETWEEN[part.kind] and not is_adverb(text):
            return None
    return None


def _above(
    words: Sequence[Word], part: Part, things: dict[int, Part], subjects: dict[int, int]
) -> Part | None:
    """Return the thing that a part is said of: its head, or the subject of its verb."""
    at = part.last
    for _ in range(4):
        head = words[at].head
        verbal = words[at].dep in _PREDICATES or words[head].tag.startswith("VB")
        if (verbal or head == at) and head in subjects:
            return things[subjects[head]]
        if head in things:
            return things[head]
        if head == at:
            return None
        at = head
    return None
