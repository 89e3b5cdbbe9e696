"""The shapes world's own words, and how it says things: prompts, captions, phrases, a vocabulary.

All that is said here the embedded generator has learned, but for `say` of what it has not; what
people write besides is `reading`'s.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from npc_local.shapes.scene import (
    BACKGROUNDS,
    COLORS,
    PATTERNS,
    SHAPES,
    Background,
    Group,
    Relation,
)

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIZES = ("larger", "smaller")
MOST = 6  # things in a picture: the largest number with a layout (`scene`)
REGIONS = {
    "left": ("on the left", "on the left side", "at the left"),
    "right": ("on the right", "on the right side", "at the right"),
    "above": ("on the above", "at the top", "on top", "above"),
    "below": ("on the below", "at the bottom", "below"),
}
RELATIONS = {
    "left": ("to the left of", "left of"),
    "right": ("to the right of", "right of"),
    "above": ("above",),
    "below": ("below",),
}
_BESIDE = "next to"  # which the generator has not learned
OPENINGS = ("a photo of", "a picture of", "an image of", "a drawing of")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a text says: groups of things, and a background or a relation where one is named."""

    groups: tuple[Group, ...]
    background: tuple[str | None, str | None] = (None, None)  # colour, pattern
    relation: Relation | None = None  # between the two groups, if there are two


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
    "numbers": [*NUMBERS[1 : MOST + 1], "a", "an"],
    "sizes": list(SIZES),
    "places": [phrases[0] for phrases in REGIONS.values()],
    "relations": [phrase for phrases in RELATIONS.values() for phrase in phrases],
    "backgrounds": [*BACKGROUNDS, *PATTERNS[1:]],
}


def vocabulary() -> str:
    """What the shapes world understands, a line a kind."""
    return "\n".join(f"  {kind}: {', '.join(words)}" for kind, words in _KNOWN.items())


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
        parts.append(f"{text} {REGIONS[group.region][0]}" if group.region else text)
    return f"A photo of {listing(parts)}"


def background_phrase(background: Background) -> str:
    """'a striped pink background'."""
    pattern = "" if background.pattern == "plain" else f"{background.pattern} "
    return f"a {pattern}{background.color} background"


def varied_phrase(group: Group, rng: random.Random, article: str | None = None) -> str:
    """A group with its place in one of several wordings."""
    place = f" {rng.choice(REGIONS[group.region])}" if group.region else ""
    return phrase(group, article) + place


def varied_prompt(reading: Reading, background: Background | None, rng: random.Random) -> str:
    """One of the many ways to say the same, for training captions; names `background` if given."""
    article = rng.choice((None, "one"))
    if (relation := reading.relation) is not None:
        relation = rng.choice((relation, relation.turned))
        text = relation_phrase(relation, article, rng.choice(RELATIONS[relation.side]))
    else:
        groups = reading.groups
        # Without places the order of naming says who stands where.
        if all(group.region for group in groups):
            groups = tuple(rng.sample(groups, len(groups)))
        text = listing([varied_phrase(group, rng, article) for group in groups])
    if background is not None:
        text += f" on {background_phrase(background)}"
    opening = rng.choices((OPENINGS[0], "", *OPENINGS[1:]), weights=(6, 3, 1, 1, 1))[0]
    return f"{opening} {text}".strip()


def place_phrase(region: str) -> str:
    """'on the left', 'at the top', ..."""
    return REGIONS[region][1 if region in ("above", "below") else 0]


def side_phrase(side: str) -> str:
    """'to the left of', 'above', 'next to', ..."""
    return RELATIONS[side][0] if side in RELATIONS else _BESIDE


def relation_phrase(relation: Relation, article: str | None = None, side: str | None = None) -> str:
    """'a circle to the left of a star'."""
    first, second = (_placed(group, article) for group in (relation.first, relation.second))
    return f"{first} {side or side_phrase(relation.side)} {second}"


def say(reading: Reading) -> str:
    """What was read, in the plainest words: reading them gives the same."""
    if reading.relation is not None:
        text = relation_phrase(reading.relation)
    else:
        text = listing([_placed(group) for group in reading.groups])
    color, pattern = reading.background
    if color or pattern:
        words = " ".join(filter(None, (pattern, color, "background")))
        text = f"{text} on a {words}" if text else f"a {words}"
    return text


def _placed(group: Group, article: str | None = None) -> str:
    place = f" {place_phrase(group.region)}" if group.region else ""
    return phrase(group, article) + place
