"""The salient tokens T(p) of a prompt: its quantities and what they count (paper, section 3).

Works on words alone. A noun phrase is the run of words behind a quantity, up to punctuation or
a word that cannot belong to it; all words of the run are salient, attributes and head noun alike.
"""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*|\S")
_ARTICLES = _words("a an")
_NUMBERS = _words("zero one two three four five six seven eight nine ten eleven twelve")
_RELATIONS = _words("left right above below top bottom larger smaller")
_PHRASE_ENDS = _words(
    # What pictures are called: no content of theirs.
    "photo picture image scene view close-up closeup shot "
    # Function words.
    "the this that these those its his her their and or but nor with without of in on at to for "
    "from by as than into onto over under behind beside between near around along across through "
    "inside outside above below while where which who is are was were has have "
    # Verbs that prompts put behind a noun.
    "sitting standing lying holding wearing riding facing looking"
)


def salient_tokens(prompt: str) -> list[str]:
    """Return T(p), each token once, in the prompt's order, in lower case.

    A quantity is digits, zero..twelve, or a/an. It gives its number word (a and an give none)
    and every word of the noun phrase that follows. Words of relation (left, above, larger, ...)
    are salient wherever they stand. A prompt with no counted noun phrase gives its content words:
    longer than two letters and no function word. A prompt without any word gives [].
    """
    words = _WORD.findall(prompt.lower())
    return _counted(words) or list(dict.fromkeys(filter(_is_content, words)))


def _counted(words: list[str]) -> list[str]:
    """Return quantities, their noun phrases and relations; [] if nothing is counted."""
    found: dict[str, None] = {}
    in_phrase = phrases = False
    for word in words:
        if word in _ARTICLES or _is_number(word):
            in_phrase = True
            if word not in _ARTICLES:
                found[word] = None
            continue
        if word in _RELATIONS:
            found[word] = None
        if word in _PHRASE_ENDS or not word[0].isalnum():
            in_phrase = False
        elif in_phrase and word not in _RELATIONS:
            found[word] = None
            phrases = True
    return list(found) if phrases else []


def _is_number(word: str) -> bool:
    return word in _NUMBERS or word.isdecimal()


def _is_content(word: str) -> bool:
    return len(word) > 2 and (word in _RELATIONS or word not in _PHRASE_ENDS)
