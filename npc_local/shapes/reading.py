"""Reads what people write about shapes: groups, places, a relation, a background.

Reading is strict: one unknown word refuses the text, because a verifier that skips a word would
call a wrong image correct. It is wider than what the embedded generator has learned (`wording`):
digits, capitals, articles and other words for the same are read. The prompt itself is data and
reaches the generator as it was written, so `read_prompt` refuses what the generator cannot spell,
and says how to write it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from npc_local.core.errors import PromptError
from npc_local.shapes.scene import BACKGROUNDS, COLORS, PAPERS, PATTERNS, SHAPES, Group, Relation
from npc_local.shapes.wording import (
    MOST,
    NOUNS,
    NUMBERS,
    OPENINGS,
    REGIONS,
    RELATIONS,
    SIZES,
    Reading,
    say,
    vocabulary,
)

# Other words for the world's own.
_SYNONYMS = {
    **{"&": "and", "+": "and", "gray": "grey", "violet": "purple", "backdrop": "background"},
    **{"bigger": "larger", "big": "large", "little": "small"},
    **{"stripy": "striped", "stripey": "striped", "polka-dotted": "dotted", "solid": "plain"},
    **dict.fromkeys(("disk", "disc", "dot"), "circle"),
    **dict.fromkeys(("disks", "discs", "dots"), "circles"),
    **{"plus sign": "cross", "plus signs": "crosses"},
}
_COUNTS = {word: number for number, word in enumerate((*NUMBERS, "ten", "eleven", "twelve"))}
_COUNTS |= {"a": 1, "an": 1, "a single": 1, "a pair of": 2, "a couple of": 2}
_DIGITS = r"\d{1,2}"
_ALL_SIZES = (*SIZES, "large", "small")
_PLACES = {phrase: region for region, phrases in REGIONS.items() for phrase in phrases}
_PLACES |= {
    phrase.format(word): region
    for region, word in (
        ("left", "left"),
        ("right", "right"),
        ("above", "top"),
        ("below", "bottom"),
    )
    for phrase in ("on the {}", "at {}", "to the {}", "on the {} hand side", "in the {} half")
}
_SIDES = {phrase: side for side, phrases in RELATIONS.items() for phrase in phrases}
_SIDES |= {
    phrase.format(side): side
    for side in ("left", "right")
    for phrase in ("on the {} of", "at the {} of", "on the {} side of")
}
_SIDES |= dict.fromkeys(("over", "on top of"), "above")
_SIDES |= dict.fromkeys(("under", "underneath", "beneath"), "below")
_SIDES |= dict.fromkeys(("next to", "beside", "alongside", "side by side with"), "beside")


def _any(words: Iterable[str]) -> str:
    """A pattern for one of several phrases, the longest that fits."""
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True)).replace("\\ ", " ")


_PICTURE = "photo|picture|image|drawing|photograph|painting|illustration"
_OPENING = re.compile(
    rf"(?:(?:(?:an?|the) )?(?:{_PICTURE}) (?:of|with|showing) )?(?:there (?:is|are) )?"
)
_GROUP = re.compile(
    rf"(?:the )?(?:(?P<count>{_any(_COUNTS)}|{_DIGITS}) )?(?:(?P<size>{_any(_ALL_SIZES)}) )?"
    rf"(?:(?P<color>{_any(PAPERS)}) )?(?P<noun>{_any(NOUNS)})"
    rf"(?:(?: (?:is|are))? (?P<place>{_any(_PLACES)})(?: of the (?:{_PICTURE}))?)?"
)
_RELATION = re.compile(rf"(.+?)(?: (?:is|are))? ({_any(_SIDES)}) (.+)")
_GROUND = _any((*PAPERS, *PATTERNS))
_BACKGROUND = rf"(?:(?:an?|the) )?(?:({_GROUND}) )?(?:({_GROUND}) )?background"
_BACKGROUND_FIRST = re.compile(rf"(?:(?:on|against) )?{_BACKGROUND}(?: with |, )")
_BACKGROUND_LAST = re.compile(rf"(?:^|,? (?:on|with|against|and) |, ){_BACKGROUND}$")
_SYNONYM = re.compile(rf"(?<![^ ,])(?:{_any(_SYNONYMS)})(?![^ ,])")


def _words(*texts: Iterable[str]) -> set[str]:
    return {word for phrases in texts for phrase in phrases for word in phrase.split()}


_KNOWN = _words(
    *(_COUNTS, _ALL_SIZES, PAPERS, NOUNS, PATTERNS, _PLACES, _SIDES, _PICTURE.split("|")),
    ["and", "background", "the", "of", "with", "showing", "against", "there", "is", "are"],
)
# What is one piece of the generator's tokenizer; a capital at the head of a word is the same.
SPELT = frozenset(
    _words(NUMBERS, SIZES, COLORS, NOUNS, BACKGROUNDS, PATTERNS[1:], OPENINGS)
    | _words(*REGIONS.values(), *RELATIONS.values(), ["a", "an", "and", "background"])
)
_SPELT = re.compile(
    rf"(?:{_any(form for word in SPELT for form in (word, word.capitalize()))})?[.,;:!?]*"
)
_QUOTES = "\"'`\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb"
_SHOWN = 8  # words that a refusal names


class _Unreadable(Exception):
    """Why a text cannot be read; becomes a `PromptError` at the edge."""


def read_prompt(prompt: str) -> Reading:
    """Read a prompt for a picture: as `read`, and no more than the embedded generator has learned.

    Raises:
        PromptError: as `read`; or more than six things, a background in the colour of a shape, or
            words that the generator's tokenizer takes apart ('2', 'RED', 'disk', 'red,blue'): the
            message names them and, where there are such words, says the same in the generator's.
    """
    reading = read(prompt)
    number = sum(group.count for group in reading.groups)
    if number > MOST:
        raise _refusal(prompt, f"it asks for {number} shapes, the world has room for {MOST}")
    color = reading.background[0]
    if color in COLORS:
        papers = ", ".join(BACKGROUNDS)
        raise _refusal(prompt, f"its generator has learned no {color} background, only {papers}")
    if unspelt := _unspelt(prompt):
        instead = say(reading)
        advice = ", and no other word for it" if _unspelt(instead) else f"; write {instead!r}"
        raise _refusal(prompt, f"its generator has not learned {_quoted(unspelt)}{advice}")
    return reading


def read(text: str) -> Reading:
    """Read a text into groups, relation and background.

    Raises:
        PromptError: a word or a sentence shape that the shapes world does not know; the message
            says which, the hint what it knows and what to do for other prompts.
    """
    try:
        return _read(_normal(text))
    except _Unreadable as error:
        raise _refusal(text, str(error)) from None


def _refusal(prompt: str, why: str) -> PromptError:
    return PromptError(
        f"the shapes world cannot read the prompt {_short(prompt, 60)!r}: {why}.",
        "It knows, for example 'two red circles on the left and one blue star on the right':\n"
        f"{vocabulary()}\n"
        "Other prompts need real models: a generator and agents of their own in models.toml "
        "(README, 'Real models').",
    )


def _unspelt(text: str) -> list[str]:
    return [word for word in dict.fromkeys(text.split()) if not _SPELT.fullmatch(word)]


def _normal(text: str) -> str:
    """Small letters, single spaces, no quotes around, commas after words, the world's own words."""
    text = re.sub(r"\s+", " ", text.lower())
    text = text.lstrip(f" {_QUOTES}").rstrip(f" {_QUOTES}.,;:!?")
    text = re.sub(r" ?[,;] ?", ", ", text)
    return _SYNONYM.sub(lambda match: _SYNONYMS[match[0]], text)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def _read(text: str) -> Reading:
    _refuse_unknown_words(text)
    if opening := _OPENING.match(text):
        text = text[opening.end() :]
    background: tuple[str | None, str | None] = None, None
    if match := _BACKGROUND_FIRST.match(text) or _BACKGROUND_LAST.search(text):
        background = _read_background([word for word in match.groups() if word])
        text = text[: match.start()] + text[match.end() :]
        if not text:
            return Reading((), background)
    if not text:
        raise _Unreadable("it names no shape")
    if relation := _read_relation(text):
        return Reading((relation.first, relation.second), background, relation)
    parts = re.split(r", and |, | and ", text)
    return Reading(tuple(_read_group(part) for part in parts), background)


def _read_background(words: list[str]) -> tuple[str | None, str | None]:
    colors = [word for word in words if word in PAPERS]
    patterns = [word for word in words if word in PATTERNS]
    if not words:
        raise _Unreadable("the background has neither colour nor pattern")
    if len(colors) > 1 or len(patterns) > 1:
        raise _Unreadable(f"the background cannot be {' and '.join(words)}")
    return (*colors, None)[0], (*patterns, None)[0]


def _read_relation(text: str) -> Relation | None:
    """'a circle to the left of a star'; None if it is not of this kind."""
    match = _RELATION.fullmatch(text)
    if match is None or not (_GROUP.fullmatch(match[1]) and _GROUP.fullmatch(match[3])):
        return None
    return Relation(_read_group(match[1]), _SIDES[match[2]], _read_group(match[3]))


def _read_group(text: str) -> Group:
    match = _GROUP.fullmatch(text)
    if match is None:
        if _RELATION.fullmatch(text):
            raise _Unreadable(
                f"it cannot make sense of {_short(text, 60)!r}: a relation is read between two "
                "groups, with nothing else beside them"
            )
        raise _Unreadable(f"it cannot make sense of {_short(text, 60)!r}")
    noun, color, number = match["noun"], match["color"], match["count"] or "a"
    if match["count"] is None and noun not in SHAPES:
        raise _Unreadable(f"it needs to know how many {noun}")
    if color is not None and color not in COLORS:
        raise _Unreadable(f"its shapes are {', '.join(COLORS)}, not {color}")
    count = _COUNTS[number] if number in _COUNTS else int(number)
    if count == 0:
        raise _Unreadable(f"it cannot be asked for {text!r}: say what there should be")
    region = _PLACES[match["place"]] if match["place"] else None
    return Group(NOUNS[noun], count, color, region, match["size"])


def _refuse_unknown_words(text: str) -> None:
    words = dict.fromkeys(re.findall(r"[^\s,]+", text))
    unknown = [word for word in words if word not in _KNOWN and not re.fullmatch(_DIGITS, word)]
    if unknown:
        raise _Unreadable(f"it does not know {_quoted(unknown)}")


def _quoted(words: list[str]) -> str:
    named = ", ".join(repr(_short(word, 30)) for word in words[:_SHOWN])
    return named + (f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else "")
