"""Between words and groups of things: renders prompts, and reads them back.

The grammar covers what GenEval++'s seven kinds say, with shapes for objects, and the short phrases
that negative prompts are. Reading is strict: one unknown word refuses the prompt, because a
verifier that skips a word would call a wrong image correct.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace

from npc_local.errors import PromptError
from npc_local.shapes.scene import BACKGROUNDS, COLORS, PATTERNS, SHAPES, Background, Group

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_COUNTS = {word: n for n, word in enumerate(NUMBERS)} | {str(n): n for n in range(1, 10)}
_COUNTS |= {"a": 1, "an": 1}
_SIZE_WORDS = {"larger": "larger", "smaller": "smaller", "large": "larger", "small": "smaller"}
_SIZE_WORDS |= {"big": "larger", "bigger": "larger", "little": "smaller"}
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
_OPENINGS = ("a photo of", "a picture of", "an image of", "a drawing of", "there are", "there is")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a prompt says: groups of things, and a background where one is named."""

    groups: tuple[Group, ...]
    background: tuple[str | None, str | None] = (None, None)  # colour, pattern


def plural(shape: str) -> str:
    """The plural of a shape's name."""
    return shape + ("es" if shape.endswith("s") else "s")


NOUNS = {shape: shape for shape in SHAPES} | {plural(shape): shape for shape in SHAPES}
_KNOWN = {
    "shapes": list(SHAPES),
    "colours": list(COLORS),
    "numbers": [*NUMBERS[1:], "1 ... 9", "a", "an"],
    "sizes": list(_SIZE_WORDS),
    "places": [phrases[0] for phrases in _REGIONS.values()],
    "relations": list(_RELATIONS),
    "backgrounds": [*BACKGROUNDS, *PATTERNS],
}


def vocabulary() -> str:
    """What the shapes world understands, a line a kind."""
    return "\n".join(f"  {kind}: {', '.join(words)}" for kind, words in _KNOWN.items())


# ---------------------------------------------------------------- rendering


def phrase(group: Group, article: str | None = None) -> str:
    """A group as a noun phrase without its place: 'two red circles', 'a larger star'."""
    single = article or ("an" if (group.size or group.color or group.shape)[0] in "aeio" else "a")
    words = [
        single if group.count == 1 else NUMBERS[group.count],
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


# ---------------------------------------------------------------- reading

_ENDINGS = "|".join(
    sorted((p for phrases in _REGIONS.values() for p in phrases), key=len, reverse=True)
)
_GROUP = re.compile(
    rf"(?:(?P<count>{'|'.join(_COUNTS)}) )?(?:(?P<size>{'|'.join(_SIZE_WORDS)}) )?"
    rf"(?:(?P<color>{'|'.join(COLORS)}) )?(?P<noun>{'|'.join(sorted(NOUNS, reverse=True))})"
    rf"(?: (?P<place>{_ENDINGS}))?"
)
_BACKGROUND = re.compile(
    rf"(?:^|(?: on| with|,) )(?:an? )?(?:(?P<pattern>{'|'.join(PATTERNS)}) )?"
    rf"(?:(?P<color>{'|'.join(BACKGROUNDS)}) )?background$"
)


def read(prompt: str) -> Reading:
    """Read a prompt into groups and background.

    Raises:
        PromptError: a word or a sentence shape that the shapes world does not know; the message
            says which, what it knows, and how to use real models instead.
    """
    text = re.sub(r"\s+", " ", prompt.lower().replace("gray", "grey")).strip(" .!")
    _refuse_unknown_words(prompt, text)
    for opening in _OPENINGS:
        text = text.removeprefix(opening + " ")
    background: tuple[str | None, str | None] = (None, None)
    if match := _BACKGROUND.search(text):
        background = match["color"], match["pattern"]
        text = text[: match.start()]
        if background == (None, None):
            raise _refusal(prompt, "the background has neither colour nor pattern")
    groups = _read_relation(text) or _read_list(text)
    if groups is None and not (text == "" and background != (None, None)):
        raise _refusal(prompt, f"cannot make sense of {text!r}")
    return Reading(groups or (), background)


def _read_relation(text: str) -> tuple[Group, ...] | None:
    for relation, (first, second) in _RELATIONS.items():
        left, found, right = text.partition(f" {relation} ")
        if found:
            pair = _read_group(left), _read_group(right)
            if pair[0] and pair[1] and not (pair[0].region or pair[1].region):
                return replace(pair[0], region=first), replace(pair[1], region=second)
    return None


def _read_list(text: str) -> tuple[Group, ...] | None:
    groups = [_read_group(part) for part in re.split(r", and |, | and ", text)]
    read = tuple(group for group in groups if group is not None)
    return read if len(read) == len(groups) else None


def _read_group(text: str) -> Group | None:
    match = _GROUP.fullmatch(text)
    if match is None:
        return None
    region = next((r for r, phrases in _REGIONS.items() if match["place"] in phrases), None)
    noun = match["noun"]
    many = noun not in SHAPES
    # "circles" without a number asks for more than one: the smallest such count.
    count = _COUNTS[match["count"]] if match["count"] else 2 if many else 1
    if count == 0:
        return None
    size = _SIZE_WORDS[match["size"]] if match["size"] else None
    return Group(NOUNS[noun], count, match["color"], region, size)


def _refuse_unknown_words(prompt: str, text: str) -> None:
    known = {*_COUNTS, *_SIZE_WORDS, *COLORS, *NOUNS, *BACKGROUNDS, *PATTERNS}
    for group in (*_OPENINGS, *_RELATIONS, *(p for ps in _REGIONS.values() for p in ps)):
        known |= set(group.split())
    known |= {"and", "with", "background"}
    unknown = [word for word in re.findall(r"[^\s,]+", text) if word not in known]
    if unknown:
        raise _refusal(prompt, "it does not know " + ", ".join(map(repr, unknown[:8])))


def _refusal(prompt: str, why: str) -> PromptError:
    shown = prompt if len(prompt) <= 60 else prompt[:57] + "..."
    return PromptError(
        f"the shapes world cannot read the prompt {shown!r}: {why}.\n"
        f"It knows, for example 'three red circles on the left and one blue star on the right':\n"
        f"{vocabulary()}\n"
        "For other prompts, name real models in models.toml (README, 'Real models')."
    )


def opposite(region: str) -> str:
    """The region on the other side."""
    return _OPPOSITE[region]


def place_phrase(region: str) -> str:
    """'on the left', 'at the top', ..."""
    return _REGIONS[region][1 if region in ("above", "below") else 0]
