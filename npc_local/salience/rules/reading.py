"""Reads a prompt word by word and takes what is salient for certain, by the words alone.

Compounds, names, relations, colours and numbers; what needs more grammar is left to the rules that
build on this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

from npc_local.core.records import TokenKind
from npc_local.salience.rules.binding import Part
from npc_local.salience.rules.content import is_function_word
from npc_local.salience.rules.depiction import depicting
from npc_local.salience.rules.grammar import Word
from npc_local.salience.rules.negation import negated
from npc_local.salience.rules.tagging import is_demonym
from npc_local.salience.rules.words import (
    COLLECTIVES,
    COLOUR_THINGS,
    FUNCTION_WORDS,
    PLACES,
    RELATION_PHRASES,
    RELATIONS,
    SHADES,
    continues_number,
    is_adjective,
    is_colour,
    is_compound,
    is_number,
)

MODIFIERS = frozenset({"JJ", "JJR", "JJS", "VBN", "VBG", "AFX"})  # tags of what describes a noun
QUOTES = frozenset({'"', "\u201c", "\u201d"})
_REACH = 12  # words that a noun phrase may have
_SIDES = frozenset({"side", "sides", "part", "half", "corner", "edge", "end", "hand", "of"})
_BEFORE_PLACES = frozenset({"on", "at", "in", "to", "from", "near", "toward", "towards"})
_POSSIBLE_PLACES = PLACES | {"top", "bottom"}
_TONED = frozenset({"mint", "rose"})
_TONES = frozenset({"deep", "dark", "light", "pale", "bright", "pastel", "soft", "neon", "vivid"})
_HUES = frozenset({"shade", "shades", "hue", "hues", "tone", "tones", "tint"})


class Reading:
    """The words of a prompt, and the parts taken so far; a word that is taken stays taken.

    What is negated or says only what the picture is can never be taken.
    """

    def __init__(self, words: Sequence[Word]) -> None:
        self.words = words
        hidden = negated(words) | depicting(words)
        self.free = [word.is_word and at not in hidden for at, word in enumerate(words)]
        self.parts: list[Part] = []
        self._part_of: dict[int, Part] = {}
        self._quotes_before = list(accumulate((word.text in QUOTES for word in words), initial=0))

    def read(self, *passes: Callable[[int], None]) -> None:
        """Go through the free words once a pass; afterwards the parts are in the prompt's order."""
        for take in passes:
            for at in range(len(self.words)):
                if self.free[at]:
                    take(at)
        self.parts.sort(key=lambda part: part.first)

    def take(self, first: int, last: int, kind: TokenKind) -> None:
        """Make the words [first, last] one salient part, unless they have no content."""
        if first == last and is_function_word(self.text(first)):
            self.free[first] = False
        else:
            self._take(first, last, kind)

    def _take(self, first: int, last: int, kind: TokenKind) -> None:
        part = Part(first, last, kind)
        self.parts.append(part)
        for at in part.indices:
            self.free[at] = False
            self._part_of[at] = part

    def text(self, at: int) -> str:
        """Return the word at an index; nothing beyond the ends."""
        return self.words[at].text if 0 <= at < len(self.words) else ""

    def _texts(self, first: int, length: int) -> tuple[str, ...]:
        return tuple(word.text for word in self.words[first : first + length])

    def is_free(self, first: int, last: int) -> bool:
        """Tell whether none of the words [first, last] is taken or hidden."""
        return last < len(self.words) and all(self.free[first : last + 1])

    def quotation(self, at: int) -> None:
        """Take what stands in quotation marks: lettering, to be shown as it is."""
        if self.text(at - 1) not in QUOTES:
            return
        last = at
        while last + 1 < len(self.words) and self.text(last + 1) not in QUOTES:
            last += 1
        if self._quotes_before[at] % 2 and last + 1 < len(self.words) and last - at < 8:
            self._take(at, last, "thing")  # be it a sign that says "YOU"

    def compound(self, at: int) -> None:
        """Take a thing whose name has several words, from the list."""
        for length in (3, 2):
            if self.is_free(at, at + length - 1) and is_compound(self._texts(at, length)):
                # "a tennis ball machine", "a washing machine door"
                last = at + length - 1
                while self.is_free(last, last + 1) and self.joins(last):
                    last += 1
                self.take(at, last, "thing")
                return

    def name(self, at: int) -> None:
        """Take words written as a name, with an "of" inside: "Statue of Liberty"."""
        last = at
        if not self._names(at):
            return
        while last + 1 < min(len(self.words), at + _REACH):
            if self.free[last + 1] and self._names(last + 1):
                last += 1
            elif (
                self.text(last + 1) in {"of", "da", "de", "van", "von", "the"}
                and last + 2 < len(self.words)
                and self.free[last + 2]
                and self._names(last + 2)
            ):
                last += 2
            else:
                break
        if last == at and is_demonym(self.words[at]):
            return
        while last + 1 < len(self.words) and self.free[last + 1] and self.joins(last):
            last += 1
        if last > at and any(word.is_noun for word in self.words[at : last + 1]):
            self.take(at, last, "thing")

    def _names(self, at: int) -> bool:
        word = self.words[at]
        starts = at == 0 or self.text(at - 1) in {".", "!", "?", ":"}
        plain = is_adjective(word.text) or is_colour(word.text) or is_number(word.text)
        return (
            word.capital
            and word.text not in FUNCTION_WORDS
            and (word.tag.startswith("NNP") or (not starts and not plain))
            and not (starts and plain)
        )

    def relation(self, at: int) -> None:
        """Take a word or a phrase that says where something is."""
        for phrase in RELATION_PHRASES:
            if self._texts(at, len(phrase)) == phrase:
                self.take(at, at + len(phrase) - 1, "relation")
                return
        word, before, after = self.words[at], self.text(at - 1), self.text(at + 1)
        if before == "the":
            before = self.text(at - 2)
        if word.text in _POSSIBLE_PLACES:
            if before in _BEFORE_PLACES or after in _SIDES | {"left", "right"}:
                self.take(at, at, "relation")
        elif (
            word.text in RELATIONS
            and word.dep != "prt"
            and not (word.text == "right" and after.startswith(("angle", "triangle")))
        ):
            self.take(at, at, "relation")

    def colour(self, at: int) -> None:
        """Take a colour with the words that tone it: "deep ocean blue", "pale mint"."""
        last = at
        while (
            last < at + _REACH
            and self.is_free(last, last)
            and (self.text(last) in SHADES or is_colour(self.text(last)))
        ):
            last += 1
        last -= 1
        while last >= at and not self._is_colour(at, last):
            last -= 1
        if last >= at:
            self.take(at, last, "attribute")

    def _is_colour(self, first: int, at: int) -> bool:
        """Tell whether a colour's words may end here; a fruit or a metal may have its name."""
        text = self.text(at)
        if text in _TONED and at > first and self.text(at - 1) in _TONES:
            return self.noun_after(at) is not None
        if not is_colour(text):
            return False
        if text not in COLOUR_THINGS or self.noun_after(at) is not None:
            return True
        article = self.text(first - 1) in {"a", "an", "the"} or is_number(self.text(first - 1))
        before = self.text(first - 2) if article else self.text(first - 1)
        if article or self.words[at].tag in {"NNS", "NNPS"} or before in {"made", "out", "of"}:
            return before in _HUES or self.text(first - 2) in _HUES
        if at > first and is_colour(self.text(at - 1)):
            return False  # "pink orange on the left": a fruit
        return before in {"in", "is", "are", "from", "to", "and", "with", "or"} or at > first

    def noun_after(self, at: int) -> int | None:
        """Return the noun that the word at an index stands before, in the same noun phrase."""
        for index in range(at + 1, min(at + 1 + _REACH, len(self.words))):
            word = self.words[index]
            if word.is_noun:
                return index if self.free[index] or self.part_at(index) else None
            joining = word.text in {",", "and", "or"} and index == at + 1
            describing = word.tag in MODIFIERS or is_colour(word.text) or is_adjective(word.text)
            if not (joining or describing):
                part = self.part_at(index)
                return index if part and part.kind == "thing" else None
        return None

    def part_at(self, at: int) -> Part | None:
        """Return the part that has taken a word."""
        return self._part_of.get(at)

    def number(self, at: int) -> None:
        """Take a word that says how many."""
        text = self.text(at)
        if not is_number(text) or (text in COLLECTIVES and self.text(at + 1) != "of"):
            return
        # "a round one", "the one"
        previous = self.words[at - 1] if at else None
        if text == "one" and previous and (previous.tag in MODIFIERS or previous.text == "the"):
            self.free[at] = False
            return
        last = at
        while last + 1 < len(self.words):
            # "two hundred and one"
            joined = self.text(last) in {"hundred", "thousand"} and self.text(last + 1) == "and"
            behind = last + 1 + joined
            if not self.is_free(last + 1, behind):
                break
            if not continues_number(self.text(last), self.text(behind)):
                break
            last = behind
        self.take(at, last, "number")

    def joins(self, at: int) -> bool:
        """Tell whether a noun and the word behind it are one compound."""
        word, after = self.words[at], self.words[at + 1]
        if not after.is_noun or after.text in FUNCTION_WORDS or word.tag in {"NNS", "NNPS"}:
            return after.is_noun and word.dep == "compound" and word.head > at
        return word.dep not in {"pobj", "dobj", "nsubj"} or word.head > at
