"""Which words of a prompt say what must not be there: they are not salient."""

from __future__ import annotations

from collections.abc import Sequence

from npc_local.salience.rules.grammar import Word
from npc_local.salience.rules.words import NEGATIONS, RELATIONS

_CLAUSE_ENDS = frozenset(".;:!?()")
# Where a negated phrase ends, however the tree goes on.
_TURNS = frozenset({"but", "and", "while", "with", "whose", "which", "that"})
_LINKS = frozenset({"or", "nor", "and"})


def negated(words: Sequence[Word]) -> set[int]:
    """Return the indices of negations and of all that they rule out.

    That is the noun phrase behind the negation, with what is listed after it by "or" ("no cars or
    people"); behind "not", a predicate ("not gray").
    """
    hidden: set[int] = set()
    listed = _listed(words)
    for at in range(len(words)):
        if at in hidden:
            continue
        length = _negation(words, at)
        if length:
            end = _end(words, at, at + length, listed)
            hidden |= set(range(at, end))
    return hidden


def _negation(words: Sequence[Word], at: int) -> int:
    """Return how many words the negation has that begins here; 0 if none does."""
    for phrase in NEGATIONS:
        if tuple(word.text for word in words[at : at + len(phrase)]) == phrase:
            return len(phrase)
    return 0


def _end(words: Sequence[Word], at: int, start: int, listed: Sequence[bool]) -> int:
    """Return the index behind what a negation at `at` rules out, its words ending at `start`."""
    noun = verb = False
    for index in range(start, len(words)):
        word = words[index]
        if word.text in _CLAUSE_ENDS:
            return index
        if word.text == "," and noun and not listed[index]:
            return index
        if noun and word.text in _LINKS and _same_phrase(words, at, index):
            noun = False
            continue
        # A preposition or a verb begins another phrase; behind "not wearing", all of it is negated.
        begins = word.text in _TURNS | RELATIONS or word.tag.startswith(("VB", "IN"))
        if noun and begins and word.text != "of" and not (verb and word.tag == "IN"):
            return index
        verb = verb or word.tag.startswith("VB")
        noun = noun or verb or word.is_noun or word.tag in {"JJ", "JJR", "PRP"}
    return len(words)


def _listed(words: Sequence[Word]) -> list[bool]:
    """Tell for each word whether it begins or goes on with a list that has an "or" to come.

    So that "people" in "no cars, people or dogs" is ruled out too. From the end, since each word
    depends on the next.
    """
    listed = [False] * (len(words) + 1)
    for at in range(len(words) - 1, -1, -1):
        word = words[at]
        inside = word.text == "," or word.is_noun or word.tag in {"DT", "JJ", "VBN", "VBG"}
        listed[at] = word.text in {"or", "nor"} or (inside and listed[at + 1])
    return listed


def _same_phrase(words: Sequence[Word], at: int, link: int) -> bool:
    """Tell whether the words behind "or" or "and" are ruled out with those before.

    "or" continues a negation; "and" does so only without a new article or number, and where the
    next is no negation of its own.
    """
    if words[link].text in {"or", "nor"}:
        return True
    return (
        link + 1 < len(words)
        and words[at].text in {"without", "no", "free", "devoid"}
        and words[link + 1].is_noun
    )
