"""The salient words of a prompt by its grammar: spaCy's parse, corrected where words are certain.

A noun phrase is read from its words' order, since the small model's tags are better than its tree
on captions; the tree says what is a compound or a predicate. Left to others: parsing (`grammar`),
what is no content of the image (`depiction`, `negation`), whose attribute it is (`binding`), and
the vocabulary (`words`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from npc_local.core.records import SalientToken
from npc_local.salience.rules.binding import bound
from npc_local.salience.rules.content import content_words
from npc_local.salience.rules.grammar import Word, parse
from npc_local.salience.rules.reading import MODIFIERS, QUOTES, Reading
from npc_local.salience.rules.tagging import corrected, is_demonym
from npc_local.salience.rules.words import (
    ADJECTIVAL,
    ADJECTIVE_ENDINGS,
    ARTICLES,
    FUNCTION_WORDS,
    GERUND_NOUNS,
    MATERIALS,
    PLACING,
    RELATIONS,
    is_adjective,
    is_adverb,
    is_colour,
)

if TYPE_CHECKING:
    from spacy.language import Language

_LETTERING = frozenset({"reads", "reading", "read", "says", "saying", "spells", "spelling"})
_STRANDED = frozenset({"RB", "VB", "VBP"})
_REACH = 12  # words that a noun phrase may have
_NAMING = frozenset({"FW", "XX", "ADD", "GW", "CD"})  # beside nouns: "1girl" is a CD
_LED = frozenset({"nsubj", "nsubjpass", "aux"})
_COPULAS = frozenset({"look", "looks", "looking", "seem", "seems", "feel", "feels"})


def parsed(prompt: str, model: Language) -> tuple[SalientToken, ...]:
    """Return T(p) in the prompt's order; empty only if the prompt has no word.

    Where nothing is found, the content words stand in, and where there are none, all words.
    """
    reading = _read(list(corrected(parse(prompt, model))))
    return tuple(bound(prompt, reading.words, reading.parts)) or content_words(prompt)


def _read(words: Sequence[Word]) -> _Reading:
    reading = _Reading(words)
    reading.read(reading.quotation, reading.compound, reading.name, reading.relation)
    reading.read(reading.disguised_action, reading.colour, reading.number)
    reading.read(reading.attribute, reading.stranded, reading.action, reading.thing)
    return reading


class _Reading(Reading):
    """Adds what needs the grammar: attributes, actions and things."""

    def attribute(self, at: int) -> None:
        """Take a word that describes a thing."""
        word = self.words[at]
        if word.text in FUNCTION_WORDS | PLACING or (is_adverb(word.text) and not word.is_noun):
            return
        noun = self.noun_after(at)
        known = is_adjective(word.text) or word.text in MATERIALS or self._is_disguised(at)
        if noun is not None and (known or self._is_adjective(at)):
            self.take(self._measured(at), at, "attribute")
        elif (
            (self._is_adjective(at) and not self._is_head(at))
            or self._is_predicate(at)
            or self._is_paired(at)
            or (noun is not None and self._is_participle(at))
            or (noun is not None and word.text[0].isdecimal() and self.text(at + 1) != ",")
        ):
            self.take(at, at, "attribute")

    def _is_adjective(self, at: int) -> bool:
        return self.words[at].tag in {"JJ", "JJR", "JJS", "AFX"}

    def _is_predicate(self, at: int) -> bool:
        """Tell whether a participle says what a thing is like: "they look terrified"."""
        word = self.words[at]
        if word.tag not in {"VBN", "VBD"}:
            return False
        return self.text(at - 1) in _COPULAS or word.text.endswith(ADJECTIVE_ENDINGS)

    def _is_disguised(self, at: int) -> bool:
        """Tell whether a word tagged as a noun is an adjective: "rough-hewn", "Victorian"."""
        word = self.words[at]
        hyphenated = "-" in word.text[2:]
        # "gleaming, polished silver"
        listed = word.text.endswith("ing") and self.text(at + 1) == ","
        return hyphenated or is_demonym(word) or listed or word.text.endswith(ADJECTIVAL)

    def _is_paired(self, at: int) -> bool:
        """Tell whether a participle stands beside an adjective: "is elongated and cylindrical"."""
        word = self.words[at]
        if word.tag != "VBN" and not is_adjective(word.text):
            return False
        if self.text(at - 1) in {"and", ","}:
            part = self.part_at(at - 2)
            if part is not None and part.kind == "attribute":
                return self.words[at - 2].tag == "JJ" and word.tag != "VBG"
        after = self.words[at + 2] if at + 2 < len(self.words) else None
        joined = self.text(at + 1) == "and" and after is not None
        return word.tag == "VBN" and joined and after is not None and after.tag == "JJ"

    def _measured(self, at: int) -> int:
        """Return where a word in -sized and its like begins: "dinner plate-sized"."""
        before = at - 1
        if "-" in self.text(at) and self.is_free(before, before) and before >= 0:
            word = self.words[before]
            if word.tag == "NN" and self.text(at).endswith(("-sized", "-shaped", "-like")):
                return before
        return at

    def _is_participle(self, at: int) -> bool:
        """Tell whether a verb's form describes the noun behind it: "floating ships"."""
        word, before = self.words[at], self.words[at - 1] if at else None
        if word.tag not in {"VBN", "VBG", "VBD"}:
            return False
        if before is not None and before.is_noun and word.tag == "VBG":
            return False
        if word.dep == "amod" and word.head > at:
            return True
        if before is not None and before.text == ",":
            # "a grand, swirling tornado", but "a dog, chasing cats"
            part = self.part_at(at - 2)
            adjective = part is not None and part.kind == "attribute"
            return adjective and not is_colour(self.text(at - 2))
        opens = before is None or before.tag in {"DT", "PRP$", "CD", "IN", "POS", "JJ"}
        return opens and word.dep not in {"ROOT", "relcl"}

    def _is_head(self, at: int) -> bool:
        """Tell whether a word tagged as an adjective is in a noun's place: "pile of broccoli"."""
        word = self.words[at]
        if is_adjective(word.text) or is_colour(word.text):
            return False
        if word.dep == "attr":
            return True
        before = self.words[at - 1].tag if at else "DT"
        return word.dep in {"pobj", "dobj", "nsubj", "nsubjpass"} and before in {
            *("DT", "JJ", "CD", "IN", "VBN", "VBG", "PRP$"),
        }

    def stranded(self, at: int) -> None:
        """Take what stands where only a noun can: "a burnt sienna dolphin near"."""
        word, described = self.words[at], self.part_at(at - 1)
        if (
            described is None
            or described.kind != "attribute"
            or word.tag not in {"RB", "VB", "VBP"}
        ):
            return
        if word.text not in FUNCTION_WORDS | PLACING and not is_adverb(word.text):
            self.take(at, at, "thing")

    def action(self, at: int) -> None:
        """Take a verb, with its particle."""
        word = self.words[at]
        if not word.tag.startswith("VB") or word.text in PLACING | FUNCTION_WORDS:
            return
        if word.text in _LETTERING and self.text(at + 1) in QUOTES:
            self.free[at] = False
            return
        if word.text == "looking" and at + 1 < len(self.words) and self.words[at + 1].tag == "JJ":
            self.free[at] = False
            return
        if word.dep in {"aux", "auxpass"} or word.text == "going":
            self.free[at] = False
            return
        if self._commands(at):
            self.take(at, at, "thing")
            return
        last = at
        if at + 1 < len(self.words) and self.free[at + 1] and self.words[at + 1].dep == "prt":
            last = at + 1
        self.take(at, last, "action")

    def disguised_action(self, at: int) -> None:
        """Take a verb that is tagged as a noun, before its noun is taken for an attribute."""
        if self.words[at].is_noun and self._acts(at):
            self.take(at, at, "action")

    def _acts(self, at: int) -> bool:
        """Tell whether a word tagged as a noun is a verb: "a bird towers over"."""
        if at == 0 or at + 1 == len(self.words) or self.words[at].text in GERUND_NOUNS:
            return False
        word, before, after = self.words[at], self.words[at - 1], self.words[at + 1]
        if after.tag not in {"IN", "RB", "RP"} and after.text not in ARTICLES | RELATIONS:
            return False
        if after.text == "of" or not (before.is_noun or is_colour(before.text)):
            return False
        if word.tag == "NN" and word.text.endswith("ing") and len(word.text) > 5:
            return True
        # Behind "a", a plural cannot be the noun.
        start = at - 1
        while start > max(0, at - _REACH) and (
            self.words[start].is_noun or self.words[start].tag in MODIFIERS
        ):
            start -= 1
        single = self.words[start].text in {"a", "an"} and before.tag == "NN"
        return single and word.tag == "NNS" and after.text in ARTICLES | RELATIONS

    def _commands(self, at: int) -> bool:
        """Tell whether a word is tagged as an order: prompts give none, so it is a noun."""
        word = self.words[at]
        if word.tag != "VB" or word.dep not in {"ROOT", "conj"}:
            return False
        return at not in self._led

    @cached_property
    def _led(self) -> frozenset[int]:
        """The indices of words with a subject or an auxiliary."""
        return frozenset(word.head for word in self.words if word.dep in _LED)

    def thing(self, at: int) -> None:
        """Take a noun, with the nouns of its compound behind it."""
        word = self.words[at]
        if word.text in FUNCTION_WORDS:
            return
        if not (word.is_noun or word.tag in _NAMING or self._is_head(at)):
            return
        last = at
        while last + 1 < len(self.words) and self.free[last + 1] and self.joins(last):
            last += 1
        self.take(at, last, "thing")
