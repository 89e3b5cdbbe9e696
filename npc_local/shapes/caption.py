"""Describes a scene in 90-160 words, the incidental things included, and reads such words back.

Its first sentence is in the prompt grammar, so that the proposer, who sees words only, can tell
what the picture shows without prose being guessed at.
"""

from __future__ import annotations

import random

from npc_local.shapes.scene import CANVAS, Background, Group, Scene, Thing
from npc_local.shapes.wording import Reading, background_phrase, listing, phrase, read

FEWEST, MOST = 90, 160  # words, paper section on the captioner
_FIRST = "The picture shows "
_EMPTY = "The picture shows nothing but "


def describe(scene: Scene) -> str:
    """Return the caption of a scene; the same scene gives the same words."""
    rng = random.Random(repr(scene))
    sentences = [_summary(scene)]
    sentences += [_thing_sentence(thing, index, rng) for index, thing in enumerate(scene.things)]
    sentences.append(_background_sentence(scene.background, rng))
    # Details come in order of use until the caption is long enough, whole sentences only.
    for extra in _details(scene, rng):
        if _words(sentences) >= FEWEST:
            break
        sentences.append(extra)
    while _words(sentences) > MOST:
        del sentences[-2]
    return " ".join(sentences)


def groups_of(scene: Scene) -> tuple[Group, ...]:
    """The things of a scene, grouped by shape and colour."""
    counts: dict[tuple[str, str], int] = {}
    for thing in scene.things:
        key = thing.shape, thing.color
        counts[key] = counts.get(key, 0) + 1
    return tuple(Group(shape, count, color) for (shape, color), count in counts.items())


def read_caption(text: str) -> Reading:
    """What the first sentence of a caption says is there.

    Raises:
        PromptError: the text is not a caption of `describe`.
    """
    first = text.partition(".")[0]
    return read(first.removeprefix(_EMPTY).removeprefix(_FIRST))


def _words(sentences: list[str]) -> int:
    return len(" ".join(sentences).split())


def _summary(scene: Scene) -> str:
    ground = background_phrase(scene.background)
    if not scene.things:
        return f"{_EMPTY}{ground}."
    return f"{_FIRST}{listing([phrase(group) for group in groups_of(scene)])} on {ground}."


def place(thing: Thing) -> str:
    """Where a thing stands: 'top left', 'centre', ..."""
    column = min(int(thing.x / CANVAS * 3), 2)
    row = min(int(thing.y / CANVAS * 3), 2)
    if (row, column) == (1, 1):
        return "centre"
    return " ".join(part for part in (("top", "", "bottom")[row], ("left", "", "right")[column]) if part)


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
        "plain": f"Behind everything lies a plain, even {color} surface without any texture at all.",
        "striped": f"Behind everything lies {color} paper with {rng.choice(('broad', 'level'))} "
        f"horizontal stripes in a darker {color} shade.",
        "dotted": f"Behind everything lies {color} paper with a regular grid of small round dots "
        f"in a darker {color} shade.",
    }[background.pattern]


def _details(scene: Scene, rng: random.Random) -> list[str]:
    number = len(scene.things)
    sizes = {thing.size for thing in scene.things}
    count = f"Counted together there are {number} separate shapes, none of which touch." if number else (
        "No shape of any kind is to be seen."
    )
    alike = (
        f"All of them are {next(iter(sizes))} in size." if len(sizes) == 1 else "They differ in size."
    )
    general = [
        "The edges are crisp and the colours are flat, with no outline, shadow or gradient.",
        "The light is even and comes from no direction.",
        "The style is that of a simple paper cut-out seen straight from the front.",
        "There is no writing, no frame, no person and no animal in the picture.",
        "The format is square, and the shapes stand upright, not turned.",
        "Nothing overlaps anything else, and every shape is fully inside the picture.",
        "The whole looks calm, tidy and a little like a page from a children's counting book.",
        "Free space between the shapes shows the background clearly on every side.",
    ]
    return [count, alike, *rng.sample(general, len(general))]
