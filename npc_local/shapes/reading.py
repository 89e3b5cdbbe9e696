"""Reads what people write about shapes: groups, places, a relation, a background.

Reading is strict: one unknown word refuses the text, because a verifier that skips a word would
call a wrong image correct. It is wider than what the embedded generator has learned (`wording`):
digits, capitals, articles, requests ('Draw ...') and other words for the same are read. The prompt
itself is data and reaches the generator as it was written, so `read_prompt` refuses what the
generator cannot spell, and says how to write it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from npc_local.core.errors import PromptError
from npc_local.shapes.scene import (
    BACKGROUNDS,
    COLORS,
    OPPOSITE,
    PAPERS,
    PATTERNS,
    SHAPES,
    Group,
    Relation,
)
from npc_local.shapes.wording import (
    MOST,
    NOUNS,
    NUMBERS,
    OPENINGS,
    REGIONS,
    RELATIONS,
    SIZES,
    Reading,
    place_phrase,
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
    **dict.fromkeys(("beside", "alongside", "near", "close to", "side by side with"), "next to"),
}
_COUNTS = {word: number for number, word in enumerate((*NUMBERS, "ten", "eleven", "twelve"))}
_COUNTS |= {"a": 1, "an": 1, "another": 1, "a single": 1, "a pair of": 2, "a couple of": 2}
_DIGITS = r"\d{1,2}"
_ALL_SIZES = (*SIZES, "large", "small")
_PREPOSITIONS = ("on", "at", "in", "to")
_ENDS = {"top": "above", "upper": "above", "bottom": "below", "lower": "below"}
_PLACES = {phrase: region for region, phrases in REGIONS.items() for phrase in phrases}
_PLACES |= {
    f"{preposition} the {word}{part}": region
    for word, region in {"left": "left", "right": "right", **_ENDS}.items()
    for preposition in _PREPOSITIONS
    for part in ("", " side", " hand side", " half", " part")
}
_SIDES = {phrase: side for side, phrases in RELATIONS.items() for phrase in phrases}
_SIDES |= {
    f"{preposition} the {side}{part} of": side
    for side in ("left", "right")
    for preposition in _PREPOSITIONS
    for part in ("", " side", " hand side")
}
_SIDES |= dict.fromkeys(("over", "on top of"), "above")
_SIDES |= dict.fromkeys(("under", "underneath", "beneath"), "below")
_SIDES["next to"] = "beside"
_REQUESTS = ("draw", "paint", "make", "show", "create", "generate", "render", "sketch")


def _any(words: Iterable[str]) -> str:
    """A pattern for one of several phrases, the longest that fits."""
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True)).replace("\\ ", " ")


_PICTURE = "photo|picture|image|drawing|photograph|painting|illustration"
_OPENING = re.compile(
    rf"(?:please )?(?:(?:{_any(_REQUESTS)}) (?:me |us )?)?"
    rf"(?:(?:(?:an?|the) )?(?:{_PICTURE}) (?:of|with|showing|shows|that shows) )?"
    r"(?:there (?:is|are) )?"
)
_SIZE, _COLOR = _any(_ALL_SIZES), _any(PAPERS)
# A number and its noun need not agree: GenEval++ writes 'two circle', and an image cannot tell
# 'a circles' from 'a circle'. The number counts.
_GROUP = re.compile(
    rf"(?:the )?(?:(?P<count>{_any(_COUNTS)}|{_DIGITS}) )?"
    rf"(?:(?:(?P<size>{_SIZE}) )?(?:(?P<color>{_COLOR}) )?|(?P<early>{_COLOR}) (?P<late>{_SIZE}) )"
    rf"(?P<noun>{_any(NOUNS)})"
    rf"(?:(?: (?:is|are))? (?P<place>{_any(_PLACES)})(?: of the (?:{_PICTURE}))?)?"
)
_RELATION = re.compile(rf"(.+?)(?: (?:is|are))? ({_any(_SIDES)}) (.+)")
# Places that the world has not: neither its layouts nor its claims know more than the four sides.
_CORNER = r"(?:top|upper|bottom|lower) (?:left|right)(?: hand)?"
_CORNER_WORD = re.compile(r"\b(?:top|upper|bottom|lower|left|right)\b")
_NOWHERE = re.compile(
    rf"(?:(?:{_any(_PREPOSITIONS)}) )?(?:(?:the|a) )?"
    r"(?:(?P<middle>(?:very )?(?:middle|cent(?:er|re)|centered|centred))"
    # 'a star at the top left of a circle' is a relation.
    rf"|{_CORNER}(?: (?:corner|side|part|quarter))?(?! of (?!the (?:{_PICTURE})))|corner)\b"
    rf"(?: of the (?:{_PICTURE}))?"
)
_GROUND = _any((*PAPERS, *PATTERNS))
_GROUNDS = rf"(?:({_GROUND}) )?({_GROUND})"
_BACKGROUND = (
    rf"(?:(?:an?|the) )?(?:(?:({_GROUND}) )?(?:({_GROUND}) )?background|background of {_GROUNDS})"
)
_BACKGROUND_FIRST = re.compile(
    rf"(?:(?:(?:on|against) )?{_BACKGROUND}|(?:on|against) {_GROUNDS})"
    r"(?:(?: with |, )(?:there (?:is|are) )?| there (?:is|are) )"
)
_BACKGROUND_LAST = re.compile(
    rf"(?:(?:^|,?(?: is| are)? (?:on|with|against|and) |, ){_BACKGROUND}"
    rf"|,?(?: is| are)? (?:on|against) {_GROUNDS})$"
)
_ADJECTIVE = _any((*_ALL_SIZES, *PAPERS, *PATTERNS))
# 'a large, red circle', 'a striped and pink background': commas that part no groups.
_ADJECTIVES = re.compile(rf"\b({_ADJECTIVE})(?:,| and|, and) (?=(?:{_ADJECTIVE})\b)")
_HYPHEN = re.compile(r"\b(top|upper|bottom|lower|left|right)-(?=(?:left|right|hand)\b)")
_SYNONYM = re.compile(rf"(?<![^ ,])(?:{_any(_SYNONYMS)})(?![^ ,])")


def _words(*texts: Iterable[str]) -> set[str]:
    return {word for phrases in texts for phrase in phrases for word in phrase.split()}


_KNOWN = _words(
    *(_COUNTS, _ALL_SIZES, PAPERS, NOUNS, PATTERNS, _PLACES, _SIDES, _PICTURE.split("|")),
    *(
        _REQUESTS,
        ["please me us and background the of with showing shows that against there is are"],
    ),
    ["middle center centre centered centred very corner quarter"],
)
# What is one piece of the generator's tokenizer; a capital at the head of a word is the same.
SPELT = frozenset(
    _words(NUMBERS, SIZES, COLORS, NOUNS, BACKGROUNDS, PATTERNS[1:], OPENINGS)
    | _words(*REGIONS.values(), *RELATIONS.values(), ["a", "an", "and", "background"])
)
_SPELT = re.compile(
    rf"(?:{_any(form for word in SPELT for form in (word, word.capitalize()))})?[.,;:!?]*"
)
# What a refusal names as one word.
_WORD = re.compile(r"(?i:next to|close to|side by side with)|\S+")
_QUOTES = "\"'`\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb"
_SHOWN = 8  # words that a refusal names


class _Unreadable(Exception):
    """Why a text cannot be read; becomes a `PromptError` at the edge."""


def read_prompt(prompt: str) -> Reading:
    """Read a prompt for a picture: as `read`, and no more than the embedded generator has learned.

    Raises:
        PromptError: as `read`; or more than six things, a background in the colour of a shape, or
            words that the generator's tokenizer takes apart ('2', 'RED', 'disk', 'red,blue'): the
            message names them and says the same in the generator's, or for which of them nothing
            else can be written.
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
        advice = _instead(unspelt, say(reading))
        raise _refusal(prompt, f"its generator has not learned {_quoted(unspelt)}; {advice}")
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
    words = dict.fromkeys(_WORD.findall(text))
    return [word for word in words if not _SPELT.fullmatch(word)]


def _instead(unspelt: list[str], instead: str) -> str:
    """What to do about words that the generator has not learned, where `instead` says the same."""
    left = _unspelt(instead)
    if not left:
        return f"write {instead!r}"
    # In the words of the prompt: 'big', not the 'large' that it was read as.
    words = [word for word in unspelt if _normal(word) in left] or left
    what = "it" if words == unspelt[:1] == unspelt else _quoted(words)
    return f"nothing else can be written for {what}"


def _normal(text: str) -> str:
    """Small letters, single spaces, no quotes around, commas after words, the world's own words."""
    text = re.sub(r"\s+", " ", text.lower())
    text = text.lstrip(f" {_QUOTES}").rstrip(f" {_QUOTES}.,;:!?")
    text = _HYPHEN.sub(r"\1 ", re.sub(r" ?[,;] ?", ", ", text))
    text = _SYNONYM.sub(lambda match: _SYNONYMS[match[0]], text)
    return _ADJECTIVES.sub(r"\1 ", text)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def _read(text: str) -> Reading:
    _refuse_unknown_words(text)
    if nowhere := _NOWHERE.search(text):
        raise _Unreadable(_no_place(text, nowhere))
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
    _refuse_relation_in_list(text, parts)
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
        raise _Unreadable(f"it cannot make sense of {_short(text, 60)!r}")
    noun, number = match["noun"], match["count"] or "a"
    size, color = match["size"] or match["late"], match["color"] or match["early"]
    if match["count"] is None and noun not in SHAPES:
        raise _Unreadable(f"it needs to know how many {noun}")
    if color is not None and color not in COLORS:
        raise _Unreadable(f"its shapes are {', '.join(COLORS)}, not {color}")
    count = _COUNTS[number] if number in _COUNTS else int(number)
    if count == 0:
        raise _Unreadable(f"it cannot be asked for {text!r}: say what there should be")
    region = _PLACES[match["place"]] if match["place"] else None
    return Group(NOUNS[noun], count, color, region, size)


def _refuse_relation_in_list(text: str, parts: list[str]) -> None:
    """'a cross and a star above a circle': is the cross above the circle, too?"""
    for part in parts:
        match = _RELATION.fullmatch(part)
        if match is None or _GROUP.fullmatch(part) or not _GROUP.match(match[3]):
            continue
        side = _SIDES[match[2]]
        instead = "nothing else can be written for it"
        if side in OPPOSITE:
            places = place_phrase(side), place_phrase(OPPOSITE[side])
            instead = f"write a place for each, {' or '.join(map(repr, places))}"
        raise _Unreadable(
            f"it cannot tell what {match[2]!r} compares in {_short(text, 60)!r}: a relation is "
            f"read between two groups, with nothing else beside them; {instead}"
        )


def _no_place(text: str, match: re.Match[str]) -> str:
    """Why 'in the middle' or 'in the top left corner' is not read, and what to write instead."""
    *places, last = (place_phrase(region) for region in REGIONS)
    why = f"it knows no place {match[0]!r}, only {', '.join(places)} and {last}"
    sides = [place_phrase(_PLACES[f"at the {word}"]) for word in _CORNER_WORD.findall(match[0])]
    if sides:
        return f"{why}; write {' or '.join(map(repr, sides))}"
    rest = " ".join((text[: match.start()].removesuffix("is ") + text[match.end() :]).split())
    if match["middle"] and not _NOWHERE.search(rest):
        try:
            reading = _read(rest)
        except _Unreadable:
            reading = Reading(())
        if [(group.count, group.region) for group in reading.groups] == [(1, None)]:
            return f"{why}; write {say(reading)!r}: what is alone is drawn in the middle"
    return f"{why}; nothing else can be written for it"


def _refuse_unknown_words(text: str) -> None:
    words = dict.fromkeys(re.findall(r"[^\s,]+", text))
    unknown = [word for word in words if word not in _KNOWN and not re.fullmatch(_DIGITS, word)]
    if unknown:
        raise _Unreadable(f"it does not know {_quoted(unknown)}")


def _quoted(words: list[str]) -> str:
    named = ", ".join(repr(_short(word.rstrip(",.;:!?") or word, 30)) for word in words[:_SHOWN])
    return named + (f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else "")
