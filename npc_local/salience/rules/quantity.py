"""The paper's rule without a parser: what is counted, with its attributes kept apart.

Numbers and articles open a noun phrase, and so do known attributes ("white cat") and prepositions;
a function word, a mark or a participle ends it. What is no attribute in it is the thing, compound
and head. Relations count wherever they stand. Verbs and nouns cannot be told apart here: `covers`
says whether that matters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from npc_local.core.records import SalientToken
from npc_local.salience.rules.binding import bound
from npc_local.salience.rules.content import WORD, content_words, spaced
from npc_local.salience.rules.grammar import Word
from npc_local.salience.rules.reading import Reading
from npc_local.salience.rules.words import (
    ADJECTIVE_THINGS,
    ARTICLES,
    COLOUR_THINGS,
    FUNCTION_WORDS,
    GERUND_NOUNS,
    MATERIALS,
    NEGATIONS,
    PLACES,
    PLACING,
    RELATIONS,
    is_adjective,
    is_adverb,
    is_colour,
    is_compound,
    is_number,
)

_TOKEN = re.compile(rf"{WORD.pattern}|\S")
_OPENERS = ARTICLES | {"its", "his", "her", "their", "my", "your", "our", "this", "these", "those"}
_PLAIN = re.compile(r"[a-z-]+")
_PREPOSITIONS = frozenset({"of", "with", "in", "on", "at", "from", "like"}) | RELATIONS
_MARKS = frozenset({'"', "\u201c", "\u201e", "\xab", "\xbb", "(", "["})
_NOUNS_IN_ED = frozenset({"seaweed", "steed", "speed", "breed", "tweed", "hundred", "biped"})
_MODIFYING = frozenset({"JJ", "VBN", "VBG", "RB"})  # tags of what may stand before a noun
_REACH = 12  # words that a noun phrase may have
_OUTSIDE = "UH"  # the tag of words outside a noun phrase


def counted(prompt: str) -> tuple[SalientToken, ...]:
    """Return T(p) in the prompt's order; empty only if the prompt has no word.

    Where no noun phrase is counted or described, the content words stand in.
    """
    reading = _read(_tagged(prompt))
    if not any(part.kind == "thing" for part in reading.parts):
        reading.read(reading.content)
    return tuple(bound(prompt, reading.words, reading.parts)) or content_words(prompt)


def covers(prompt: str) -> bool:
    """Tell whether the rule leaves nothing out and need not have guessed.

    Each word must be a number, a relation, a known attribute, a function word, about the picture
    itself, or a thing: one word, or a compound from the list, in a phrase that something opened.
    """
    reading = _read(_tagged(prompt))
    words = reading.words
    texts = tuple(word.text for word in words)
    if reading.has_verb or any(
        texts[at : at + len(phrase)] == phrase for at in range(len(texts)) for phrase in NEGATIONS
    ):
        return False
    for at, word in enumerate(words):
        uncertain = word.text in PLACING or word.text not in FUNCTION_WORDS or is_adverb(word.text)
        if (reading.free[at] and uncertain) or (at and word.capital) or word.text in _MARKS:
            return False
    tokens = tuple(bound(prompt, words, reading.parts))
    things = [part for part in reading.parts if part.kind == "thing"]
    return (
        bool(things)
        and all(token.noun for token in tokens if token.kind in {"number", "attribute"})
        and all(_is_certain(texts[part.first : part.last + 1]) for part in things)
    )


def _is_certain(words: tuple[str, ...]) -> bool:
    """Tell whether words taken for a thing are one."""
    if len(words) > 1:
        return is_compound(words)
    return bool(_PLAIN.fullmatch(words[0])) and not _is_participle(words[0])


def _is_participle(word: str) -> bool:
    """Tell whether a word looks like a form of a verb."""
    if word.endswith("ing"):
        return len(word) > 5 and word not in GERUND_NOUNS
    return word.endswith("ed") and len(word) > 4 and word not in _NOUNS_IN_ED


class _Reading(Reading):
    """Adds attributes and things by lists alone."""

    has_verb = False

    def attribute(self, at: int) -> None:
        """Take an adjective or a material before a noun, or an adjective said of one."""
        text, before_noun = self.text(at), self.noun_after(at) is not None
        adjective = is_adjective(text) or self.words[at].tag == "VBN"
        if text in ADJECTIVE_THINGS and self.words[at].tag == "NN":
            return
        if (adjective or text in MATERIALS) and (before_noun or self.words[at].tag == "JJ"):
            self.take(at, at, "attribute")

    def thing(self, at: int) -> None:
        """Take the words of a noun phrase that are nothing else."""
        last = at
        while last + 1 < len(self.words) and self.free[last + 1] and self.joins(last):
            last += 1
        if self.words[at].tag != "NN":
            return
        # "a dog jumps": behind "a", a plural is a verb.
        if last > at and self.text(last).endswith("s") and self._is_single(at):
            self.free[last] = False
            self.has_verb = True
            last -= 1
        self.take(at, last, "thing")

    def content(self, at: int) -> None:
        """Take a word for a thing that is nothing else."""
        text = self.text(at)
        if text not in FUNCTION_WORDS | PLACING and not is_adverb(text):
            self.take(at, at, "thing")

    def _is_single(self, at: int) -> bool:
        start = at - 1
        while (part := self.part_at(start)) is not None and part.kind == "attribute":
            start -= 1
        return self.text(start) in {"a", "an"} and not self.text(at).endswith("s")


def _read(words: Sequence[Word]) -> _Reading:
    reading = _Reading(words)
    reading.read(reading.compound, reading.relation, reading.colour, reading.number)
    reading.read(reading.attribute, reading.thing)
    return reading


def _tagged(prompt: str) -> list[Word]:
    """Return the words and marks of a prompt with the tags that lists can give."""
    spans = [match.span() for match in _TOKEN.finditer(spaced(prompt))]
    texts = [prompt[start:end].lower() for start, end in spans]
    tags = [*map(_tag, texts), "."]
    for at in range(len(texts) - 1, -1, -1):
        if texts[at] in ADJECTIVE_THINGS and _closes_phrase(texts, tags, at):
            tags[at] = "NN"  # "a blue square", but "a square table"
    words, is_open = [], False
    for at, (text, (start, end)) in enumerate(zip(texts, spans, strict=True)):
        tag, before = tags[at], texts[at - 1] if at else ""
        describes = is_colour(before) or is_adjective(before)
        if tag == "NN" and is_colour(text) and tags[at + 1] in {"NN", "JJ"}:
            tag = "JJ"  # "orange knife", but "an orange"
        if tag == "VBN" and (describes or tags[at - 1] in {"DT", "CD"}) and tags[at + 1] == "NN":
            is_open = True  # "a crowded supermarket", but "a car parked"
        elif tag == "VBN":
            tag, is_open = _OUTSIDE, False
        elif tag in {"DT", "CD", "JJ"}:
            is_open = True
        elif tag == "NN":
            is_open = is_open or before in _PREPOSITIONS
            tag = "NN" if is_open else _OUTSIDE
        elif tag != "RB" and (text not in {"and", ","} or not describes):
            is_open = False  # it goes on after "a red, round ball"
        words.append(Word(text, start, end, tag, "", at, prompt[start].isupper()))
    return words


def _closes_phrase(texts: Sequence[str], tags: Sequence[str], at: int) -> bool:
    """Tell whether a word stands behind other words of a noun phrase, and no noun is behind it.

    Args:
        texts: the prompt's words and marks.
        tags: theirs, and "." for the end.
        at: the index of the word.
    """
    if at == 0 or tags[at - 1] not in {"DT", "CD", "JJ"}:
        return False
    behind = at + 1
    if behind + 1 < len(texts) and texts[behind] in {"and", ","}:
        # "a red square, blue circles", but "a round, wooden ball": a colour is named last.
        described = tags[behind + 1] in {"JJ", "VBN"} or texts[behind + 1] in MATERIALS
        return not described or is_colour(texts[at - 1])
    while behind < at + _REACH and tags[behind] in _MODIFYING:
        behind += 1
    return tags[behind] not in {"NN", "CD"}


def _tag(word: str) -> str:
    if not any(map(str.isalnum, word)):
        return word if word in {",", "."} else "."
    if word in _OPENERS:
        return "DT"
    if is_number(word):
        return "CD"
    if word in COLOUR_THINGS or (word in MATERIALS and not is_adjective(word)):
        return "NN"
    if is_adjective(word) or is_colour(word):
        return "JJ"
    if word in FUNCTION_WORDS | RELATIONS | PLACES | PLACING:
        return "IN"
    if is_adverb(word):
        return "RB"
    if _is_participle(word):
        return "VBG" if word.endswith("ing") else "VBN"
    return "NN"
