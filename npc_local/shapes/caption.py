"""Describes a scene in 90-160 words, the incidental things included, and reads such words back.

Its first sentence is in the prompt grammar, so that the proposer, who sees words only, can tell
what the picture shows without prose being guessed at.
"""

from __future__ import annotations

import random
from dataclasses import replace

from npc_local.shapes.reading import read
from npc_local.shapes.scene import CANVAS, Background, Scene, Thing, groups_of
from npc_local.shapes.wording import Reading, background_phrase, listing, number_word, phrase

FEWEST, MOST = 90, 160  # words, paper section on the captioner
_FIRST = "The picture shows "
_EMPTY = "The picture shows nothing but "

# Fillers, for few things or none: true of every picture of this world.
_GENERAL = (
    "The edges are crisp and the colours are flat, with no outline, shadow or gradient.",
    "The light is even and comes from no direction, as if on an overcast day.",
    "The style is that of a simple paper cut-out seen straight from the front.",
    "There is no writing, no frame, no person and no animal in the picture.",
    "The format is square, like that of a tile, and there is no depth to it at all.",
    "The whole looks calm, tidy and a little like a page from a children's counting book.",
    "Nothing suggests a place, a season or a time of day, only flat areas of colour.",
)


def describe(scene: Scene) -> str:
    """Return the caption of a scene; the same scene gives the same words."""
    rng = random.Random(repr(scene))
    sentences = [_summary(scene)]
    sentences += [_thing_sentence(thing, index, rng) for index, thing in enumerate(scene.things)]
    sentences.append(_background_sentence(scene.background, rng))
    # Details come in order of use until the caption is long enough, whole sentences only.
    for extra in (*_details(scene), *rng.sample(_GENERAL, len(_GENERAL))):
        if _words(sentences) >= FEWEST:
            break
        sentences.append(extra)
    while _words(sentences) > MOST:
        del sentences[-2]
    return " ".join(sentences)


def read_caption(text: str) -> Reading:
    """What the first sentence of a caption says is there, the background's pattern always named.

    Raises:
        PromptError: the text is not a caption of `describe`.
    """
    first = text.partition(".")[0]
    reading = read(first.removeprefix(_EMPTY).removeprefix(_FIRST))
    color, pattern = reading.background
    return replace(reading, background=(color, pattern or "plain"))


def place(thing: Thing) -> str:
    """Where a thing stands: 'top left', 'centre', ..."""
    column = min(int(thing.x / CANVAS * 3), 2)
    row = min(int(thing.y / CANVAS * 3), 2)
    words = ("top", "", "bottom")[row], ("left", "", "right")[column]
    return " ".join(filter(None, words)) or "centre"


def _words(sentences: list[str]) -> int:
    return len(" ".join(sentences).split())


def _summary(scene: Scene) -> str:
    ground = background_phrase(scene.background)
    if not scene.things:
        return f"{_EMPTY}{ground}."
    return f"{_FIRST}{listing([phrase(group) for group in groups_of(scene)])} on {ground}."


def _thing_sentence(thing: Thing, index: int, rng: random.Random) -> str:
    where = place(thing)
    at = {"centre": "in the centre", "left": "at the left edge", "right": "at the right edge"}.get(
        where, f"at the {where}"
    )
    article = "A" if index == 0 else rng.choice(("Another shape, a", "Next, a", "Further on, a"))
    return f"{article} {thing.size} {thing.color} {thing.shape} stands {at}, evenly filled."


def _background_sentence(background: Background, rng: random.Random) -> str:
    color = background.color
    return {
        "plain": f"Behind everything lies a plain {color} surface without any texture at all.",
        "striped": f"Behind everything lies {color} paper with {rng.choice(('broad', 'level'))} "
        f"horizontal stripes in a darker {color} shade.",
        "dotted": f"Behind everything lies {color} paper with a regular grid of small round dots "
        f"in a darker {color} shade.",
    }[background.pattern]


def _details(scene: Scene) -> list[str]:
    """What can be said about the things together."""
    number = len(scene.things)
    if number == 0:
        return ["No shape of any kind is to be seen."]
    if number == 1:
        return ["It is the only shape, and there is much free space around it."]
    sizes = {thing.size for thing in scene.things}
    return [
        f"Counted together there are {number_word(number)} separate shapes.",
        f"All of them are {sizes.pop()} in size." if len(sizes) == 1 else "They differ in size.",
        "Free space between the shapes shows the background clearly.",
    ]
