"""Tags that the small model gets wrong on captions, put right where the words leave no doubt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from npc_local.salience.rules.grammar import Word
from npc_local.salience.rules.words import (
    DEMONYMS,
    FUNCTION_WORDS,
    GERUND_NOUNS,
    NOUN_ENDINGS,
    RELATIONS,
    SIZES,
    is_adjective,
    is_colour,
)

_ADJECTIVES = frozenset({"JJ", "JJR", "JJS"})
_AFTER_LEAVES = frozenset({"DT", "PRP", "PRP$", "IN", "TO"})
_ENDS = frozenset({"IN", ".", ",", ":", "VBG"})
# Sizes that are nouns as well.
_NO_NOUNS = SIZES - {
    "giant",
    "miniature",
    "mini",
    "medium",
    "high",
    "low",
    "fat",
    "deep",
    "shallow",
}


def corrected(words: Sequence[Word]) -> Iterator[Word]:
    """Yield the words with their tags corrected."""
    for at, word in enumerate(words):
        tag = _tag(words, at)
        yield word if tag == word.tag else replace(word, tag=tag)


def is_demonym(word: Word) -> bool:
    """Tell whether a word is an adjective made of a name: "Roman", "Victorian"."""
    return word.capital and (word.text in DEMONYMS or word.text.endswith("ian"))


def _tag(words: Sequence[Word], at: int) -> str:
    word = words[at]
    before = words[at - 1] if at else None
    after = words[at + 1] if at + 1 < len(words) else None
    named = word.capital and after is not None and after.capital
    if word.text in _NO_NOUNS and (word.is_noun or word.tag in {"VB", "VBP"}) and not named:
        return "JJ"
    # "autumn leaves", unless something is left
    if word.text == "leaves" and (after is None or after.tag not in _AFTER_LEAVES):
        return "NNS"
    # "painting next to a cat": where nobody paints, it is a thing
    spatial = after is not None and (after.tag == "IN" or after.text in RELATIONS | {"next"})
    if before is None and word.tag == "VBG" and word.text in GERUND_NOUNS and spatial:
        return "NN"
    # "a wood elf": all pronouns are known words
    if word.tag == "PRP" and word.text not in FUNCTION_WORDS:
        return "NN"
    if word.tag in _ADJECTIVES and not is_adjective(word.text) and "-" not in word.text:
        if word.text.endswith(NOUN_ENDINGS):
            return "NN"
        # "a steam locomotive chimney": no adjective stands between the words of a compound
        if before and after and before.is_noun and after.is_noun:
            return "NN"
        if _closes_phrase(words, at):
            return "NN"
    return word.tag


def _closes_phrase(words: Sequence[Word], at: int) -> bool:
    """Tell whether a noun phrase has only this word for its noun: "an ancient sundial on"."""
    after = words[at + 1] if at + 1 < len(words) else None
    if is_colour(words[at].text) or (after and after.tag not in _ENDS):
        return False
    beyond = words[at + 2].tag if at + 2 < len(words) else ""
    if after and (after.tag == "VBG" or after.text == ",") and beyond in _ADJECTIVES:
        return False
    if after and after.tag == "VBG" and beyond in {"NN", "NNS"}:
        return False
    start = at - 1
    while start >= 0 and (words[start].tag in _ADJECTIVES or is_demonym(words[start])):
        start -= 1
    return start >= 0 and words[start].tag in {"DT", "PDT", "PRP$"}
