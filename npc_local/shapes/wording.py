"""Between words and groups of things: renders prompts, and reads them back.

The grammar covers what GenEval++'s seven kinds say, with shapes for objects, and the short phrases
that negative prompts are. Reading is strict: one unknown word refuses the prompt, because a
verifier that skips a word would call a wrong image correct.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace

from npc_local.core.errors import PromptError
from npc_local.shapes.scene import BACKGROUNDS, COLORS, PATTERNS, SHAPES, Background, Group

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_COUNTS = {word: n for n, word in enumerate(NUMBERS)} | {"a": 1, "an": 1}
_SIZES = ("larger", "smaller")
_MOST = 6  # things in a picture: the largest number with a layout (`scene`)
_REGIONS = {
    "left": ("on the left", "on the left side", "at the left"),
    "right": ("on the right", "on the right side", "at the right"),
    "above": ("on the above", "at the top", "on top", "above"),
    "below": ("on the below", "at the bottom", "below"),
}
_RELATIONS = {
    "to the left of": ("left", "right"),
    "left of": ("left", "right"),
    "to the right of": ("right", "left"),
    "right of": ("right", "left"),
    "above": ("above", "below"),
    "below": ("below", "above"),
}
_OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
# `varied_prompt` says the first four; all are read.
_OPENINGS = (
    *("a photo of", "a picture of", "an image of", "a drawing of"),
    *("photo of", "picture of", "image of", "drawing of"),
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a prompt says: groups of things, and a background where one is named."""

    groups: tuple[Group, ...]
    background: tuple[str | None, str | None] = (None, None)  # colour, pattern


def number_word(number: int) -> str:
    """'zero', 'one', ..., 'nine', '10', ..."""
    return NUMBERS[number] if number < len(NUMBERS) else str(number)


def plural(shape: str) -> str:
    """The plural of a shape's name."""
    return shape + ("es" if shape.endswith("s") else "s")


NOUNS = {shape: shape for shape in SHAPES} | {plural(shape): shape for shape in SHAPES}
_KNOWN = {
    "shapes": list(SHAPES),
    "colours": list(COLORS),
    "numbers": [*NUMBERS[1 : _MOST + 1], "a", "an"],
    "sizes": list(_SIZES),
    "places": [phrases[0] for phrases in _REGIONS.values()],
    "relations": list(_RELATIONS),
    "backgrounds": [*BACKGROUNDS, *PATTERNS[1:]],
}


def vocabulary() -> str:
    """What the shapes world understands, a line a kind."""
    return "\n".join(f"  {kind}: {', '.join(words)}" for kind, words in _KNOWN.items())


# ---------------------------------------------------------------- rendering


def phrase(group: Group, article: str | None = None) -> str:
    """A group as a noun phrase without its place: 'two red circles', 'a larger star'."""
    single = article or ("an" if (group.size or group.color or group.shape)[0] in "aeio" else "a")
    words = [
        single if group.count == 1 else number_word(group.count),
        group.size,
        group.color,
        group.shape if group.count == 1 else plural(group.shape),
    ]
    return " ".join(word for word in words if word)


def listing(parts: list[str]) -> str:
    """'x', 'x and y', 'x, y, and z'."""
    if len(parts) < 3:
        return " and ".join(parts)
    return ", ".join(parts[:-1]) + f", and {parts[-1]}"


def benchmark_prompt(groups: tuple[Group, ...]) -> str:
    """The prompt in GenEval++'s words, with English plurals where it has none."""
    several = any(group.count > 1 for group in groups)
    parts = []
    for group in groups:
        text = phrase(group, "one" if several else None)
        parts.append(f"{text} {_REGIONS[group.region][0]}" if group.region else text)
    return f"A photo of {listing(parts)}"


def background_phrase(background: Background) -> str:
    """'a striped pink background'."""
    pattern = "" if background.pattern == "plain" else f"{background.pattern} "
    return f"a {pattern}{background.color} background"


def varied_phrase(group: Group, rng: random.Random, article: str | None = None) -> str:
    """A group with its place in one of several wordings."""
    place = f" {rng.choice(_REGIONS[group.region])}" if group.region else ""
    return phrase(group, article) + place


def varied_prompt(
    groups: tuple[Group, ...], background: Background | None, rng: random.Random
) -> str:
    """One of the many ways to say the same, for training captions."""
    if all(group.region for group in groups):  # elsewhere the order of naming says who stands where
        groups = tuple(rng.sample(groups, len(groups)))
    article = rng.choice((None, "one"))
    regions = [group.region for group in groups]
    if len(groups) == 2 and regions[0] and rng.random() < 0.35:
        relation = rng.choice([text for text, (a, _) in _RELATIONS.items() if a == regions[0]])
        text = f"{phrase(groups[0], article)} {relation} {phrase(groups[1], article)}"
    else:
        text = listing([varied_phrase(group, rng, article) for group in groups])
    if background is not None:
        text += f" on {background_phrase(background)}"
    opening = rng.choices((_OPENINGS[0], "", *_OPENINGS[1:4]), weights=(6, 3, 1, 1, 1))[0]
    return f"{opening} {text}".strip()


def opposite(region: str) -> str:
    """The region on the other side."""
    return _OPPOSITE[region]


def place_phrase(region: str) -> str:
    """'on the left', 'at the top', ..."""
    return _REGIONS[region][1 if region in ("above", "below") else 0]


# ---------------------------------------------------------------- reading

_ENDINGS = "|".join(
    sorted((p for phrases in _REGIONS.values() for p in phrases), key=len, reverse=True)
)
_DIGITS = r"\d{1,2}"
_GROUP = re.compile(
    rf"(?:(?P<count>{'|'.join(_COUNTS)}|{_DIGITS}) )?(?:(?P<size>{'|'.join(_SIZES)}) )?"
    rf"(?:(?P<color>{'|'.join(COLORS)}) )?(?P<noun>{'|'.join(sorted(NOUNS, reverse=True))})"
    rf"(?: (?P<place>{_ENDINGS}))?"
)
_BACKGROUND = re.compile(
    rf"(?:^|(?: on|,) )(?:(?:an?|the) )?(?:(?P<pattern>{'|'.join(PATTERNS[1:])}) )?"
    rf"(?:(?P<color>{'|'.join(BACKGROUNDS)}) )?background$"
)
_WORDS = {*_COUNTS, *_SIZES, *COLORS, *NOUNS, *BACKGROUNDS, *PATTERNS[1:]}
_WORDS |= {word for text in (*_OPENINGS, *_RELATIONS, _ENDINGS) for word in re.split(r"\W", text)}
_WORDS |= {"and", "background"}
_SPELT = re.compile(
    rf"(?:{'|'.join(form for word in sorted(_WORDS) for form in (word, word.capitalize()))})"
    r"?[.,;:!?]*"
)
_SHOWN = 8  # unknown words that a refusal names


class _Unreadable(Exception):
    """Why a text cannot be read; becomes a `PromptError` at the edge."""


def read_prompt(prompt: str) -> Reading:
    """Read a prompt for a picture: as `read`, and no more than the embedded generator has learned.

    Raises:
        PromptError: as `read`; or numbers in digits, more than six things, or words spelt or
            joined in a way that its tokenizer takes apart ('RED', 'gray', '"red', 'red,blue').
    """
    reading = read(prompt)
    number = sum(group.count for group in reading.groups)
    if re.search(_DIGITS, prompt):
        raise _refusal(prompt, "it knows numbers in words only")
    if number > _MOST:
        raise _refusal(prompt, f"it asks for {number} shapes, the world has room for {_MOST}")
    unread = [word for word in dict.fromkeys(prompt.split()) if not _SPELT.fullmatch(word)]
    if unread:
        how = "small letters, 'grey', no quotes, a space after each comma"
        raise _refusal(prompt, f"it cannot read {_quoted(unread)} as written: {how}")
    return reading


def read(prompt: str) -> Reading:
    """Read a text in the grammar into groups and background.

    Raises:
        PromptError: a word or a sentence shape that the shapes world does not know; the message
            says which, what it knows, and what to do for other prompts.
    """
    try:
        return _read(_normal(prompt))
    except _Unreadable as error:
        raise _refusal(prompt, str(error)) from None


def _refusal(prompt: str, why: str) -> PromptError:
    return PromptError(
        f"the shapes world cannot read the prompt {_short(prompt, 60)!r}: {why}.\n"
        "It knows, for example 'two red circles on the left and one blue star on the right':\n"
        f"{vocabulary()}\n"
        "Other prompts need real models: a generator and agents of their own in models.toml "
        "(README, 'Real models')."
    )


def _normal(prompt: str) -> str:
    """Small letters, single spaces, no quotes around, no mark at the end, commas after words."""
    text = re.sub(r"\s+", " ", prompt.lower().replace("gray", "grey"))
    text = text.lstrip(" \"'`").rstrip(" \"'`.,;:!?")
    return re.sub(r" ?, ?", ", ", text)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def _read(text: str) -> Reading:
    _refuse_unknown_words(text)
    for opening in _OPENINGS:
        text = text.removeprefix(opening + " ")
    color = pattern = None
    if match := _BACKGROUND.search(text):
        color, pattern = match["color"], match["pattern"]
        text = text[: match.start()]
        if color is None and pattern is None:
            raise _Unreadable("the background has neither colour nor pattern")
        if not text:
            return Reading((), (color, pattern))
    if not text:
        raise _Unreadable("it names no shape")
    return Reading(_read_relation(text) or _read_list(text), (color, pattern))


def _read_relation(text: str) -> tuple[Group, ...] | None:
    """'a circle to the left of a star'; None if it is not of this kind."""
    for relation, (first, second) in _RELATIONS.items():
        left, found, right = text.partition(f" {relation} ")
        if found and _GROUP.fullmatch(left) and _GROUP.fullmatch(right):
            subject, other = _read_group(left), _read_group(right)
            if subject.region is None and other.region is None:
                return replace(subject, region=first), replace(other, region=second)
    return None


def _read_list(text: str) -> tuple[Group, ...]:
    return tuple(_read_group(part) for part in re.split(r", and |, | and ", text))


def _read_group(text: str) -> Group:
    match = _GROUP.fullmatch(text)
    if match is None:
        raise _Unreadable(f"it cannot make sense of {_short(text, 60)!r}")
    noun = match["noun"]
    if match["count"] is None and noun not in SHAPES:
        raise _Unreadable(f"it needs to know how many {noun}")
    number = match["count"] or "a"
    count = _COUNTS[number] if number in _COUNTS else int(number)
    if count == 0:
        raise _Unreadable(f"it cannot be asked for {text!r}: say what there should be")
    region = next((r for r, phrases in _REGIONS.items() if match["place"] in phrases), None)
    return Group(NOUNS[noun], count, match["color"], region, match["size"])


def _refuse_unknown_words(text: str) -> None:
    words = dict.fromkeys(re.findall(r"[^\s,]+", text))
    unknown = [w for w in words if w not in _WORDS and not re.fullmatch(_DIGITS, w)]
    if unknown:
        raise _Unreadable(f"it does not know {_quoted(unknown)}")


def _quoted(words: list[str]) -> str:
    named = ", ".join(repr(_short(word, 30)) for word in words[:_SHOWN])
    return named + (f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else "")
