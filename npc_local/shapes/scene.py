"""Scenes of the shapes world as data: what there is, where, how big, on what background.

Things stand near the crossings of a 3 x 3 grid, in a few layouts, so that a model that was trained
for an hour on two cores can learn to count and to place. Drawing is `draw`, reading back is
`detect`, wording is `wording`.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

CANVAS = 64  # pixels a side
SHAPES = ("circle", "square", "triangle", "star", "cross")
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "yellow": (250, 200, 0),
    "green": (30, 150, 60),
    "blue": (40, 90, 225),
    "purple": (150, 50, 190),
    "black": (25, 25, 30),
}
# Background colour and the shade that its stripes or dots are drawn in.
BACKGROUNDS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "white": ((250, 250, 250), (212, 212, 216)),
    "grey": ((178, 178, 182), (138, 138, 144)),
    "pink": ((255, 205, 215), (240, 160, 178)),
    "mint": ((195, 240, 215), (145, 208, 176)),
}
PATTERNS = ("plain", "striped", "dotted")
# Every plain background that a picture may be read with: also those that training never draws.
PAPERS = {name: paper for name, (paper, _) in BACKGROUNDS.items()} | COLORS
# Size words and the range of radii (half the larger side of the bounding box, in pixels).
SIZES: dict[str, tuple[float, float]] = {
    "small": (5.4, 5.9),
    "medium": (7.5, 8.1),
    "large": (9.8, 10.4),
}
SIZE_LIMITS = (6.7, 9.05)  # radii that part small from medium and medium from large
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}

Cell: TypeAlias = tuple[int, int]  # column, row

# Where things stand when nothing says where, by their number, each layout in reading order.
_LAYOUTS: dict[int, tuple[tuple[Cell, ...], ...]] = {
    1: (((1, 1),),),
    2: (((0, 1), (2, 1)), ((1, 0), (1, 2))),
    3: (((0, 1), (1, 1), (2, 1)), ((1, 0), (0, 2), (2, 2))),
    4: (((0, 0), (2, 0), (0, 2), (2, 2)), ((1, 0), (0, 1), (2, 1), (1, 2))),
    5: (((0, 0), (2, 0), (1, 1), (0, 2), (2, 2)), ((0, 0), (1, 0), (2, 0), (0, 2), (2, 2))),
    6: (
        ((0, 0), (1, 0), (2, 0), (0, 2), (1, 2), (2, 2)),
        ((0, 0), (2, 0), (0, 1), (2, 1), (0, 2), (2, 2)),
    ),
}
# Which of the three cells of a side one or two things take.
_SPACED = {(3, 1): (1,), (3, 2): (0, 2)}
# The size that each size word is drawn in.
_DRAWN = {"larger": "large", "smaller": "small", "large": "large", "small": "small", None: "medium"}
_GRID = (11.0, 32.0, 53.0)
_JITTER = 2.0
_GAP = 2.0  # least distance between bounding boxes, so that things never merge
_MARGIN = 0.4


@dataclass(frozen=True, slots=True)
class Thing:
    """One coloured shape; centre `x`, `y` and `radius` in pixels of the 64 x 64 canvas."""

    shape: str
    color: str
    x: float
    y: float
    radius: float

    @property
    def size(self) -> str:
        """The size word for the radius."""
        low, high = SIZE_LIMITS
        return "small" if self.radius < low else "medium" if self.radius < high else "large"


@dataclass(frozen=True, slots=True)
class Background:
    """What nobody asked for: background colour and pattern."""

    color: str = "white"
    pattern: str = "plain"


@dataclass(frozen=True, slots=True)
class Scene:
    """Things on a background, in no particular order."""

    things: tuple[Thing, ...]
    background: Background


@dataclass(frozen=True, slots=True)
class Group:
    """`count` things that a prompt names together; None leaves an attribute open.

    The fields are those of a GenEval++ record's `include` entry.
    """

    shape: str
    count: int
    color: str | None = None
    region: str | None = None  # left, right, above, below: of the picture
    size: str | None = None  # larger, smaller: than another group; large, small: by itself


@dataclass(frozen=True, slots=True)
class Relation:
    """Where one group is as seen from another, wherever in the picture they are."""

    first: Group
    side: str  # left, right, above, below, beside
    second: Group

    @property
    def turned(self) -> Relation:
        """The same, told of the second group: 'a right of b' for 'b left of a'."""
        return Relation(self.second, OPPOSITE.get(self.side, self.side), self.first)


def cells(region: str | None) -> list[Cell]:
    """Grid cells (column, row) that belong to a region; every cell for None."""
    every = [(column, row) for column in range(3) for row in range(3)]
    if region is None:
        return every
    axis, index = {"left": (0, 0), "right": (0, 2), "above": (1, 0), "below": (1, 2)}[region]
    return [cell for cell in every if cell[axis] == index]


def groups_of(scene: Scene) -> tuple[Group, ...]:
    """The things of a scene, grouped by shape and colour, in order of first appearance."""
    counts = Counter((thing.shape, thing.color) for thing in scene.things)
    return tuple(Group(shape, count, color) for (shape, color), count in counts.items())


def sample_background(rng: random.Random) -> Background:
    """Mostly plain and light: texture costs a small model more than it is worth."""
    pattern = rng.choices(PATTERNS, weights=(6, 1, 1))[0]
    return Background(rng.choice(tuple(BACKGROUNDS)), pattern)


def sample_scene(
    groups: tuple[Group, ...], rng: random.Random, relation: Relation | None = None
) -> Scene:
    """Draw lots for a scene that shows exactly `groups`; open attributes fall at random.

    Args:
        groups: what there is.
        rng: decides what is left open.
        relation: where the two groups stand to each other, to one of the four sides.

    Raises:
        ValueError: the groups do not fit the grid (more than nine things, or four to a side).
    """
    for _ in range(200):
        things = _place(groups, rng, relation)
        if things is not None:
            return Scene(things, sample_background(rng))
    raise ValueError(f"no room for {groups}")


def _place(
    groups: tuple[Group, ...], rng: random.Random, relation: Relation | None
) -> tuple[Thing, ...] | None:
    slots = _slots(groups, rng) if relation is None else _slots_apart(relation, rng)
    if slots is None:
        return None
    things: list[Thing] = []
    for group, places in zip(groups, slots, strict=True):
        # An open colour is one colour for the whole group, as in pictures people draw.
        color = group.color or rng.choice(tuple(COLORS))
        size = _DRAWN[group.size]
        things += [_thing(group.shape, color, *place, size, rng) for place in places]
    if any(_touch(a, b) for a, b in combinations(things, 2)):
        return None
    return tuple(things)


def _slots(groups: tuple[Group, ...], rng: random.Random) -> list[list[Cell]] | None:
    """Cells for each group; None if they do not fit.

    Groups with a place line up on that side. The others share one of a few layouts, in the order
    they are named: where all layouts are equally likely, a small model never gets beyond deciding
    cell by cell, and counts come out wrong (`weights/README.md`).
    """
    free = cells(None)
    placed: dict[int, list[Cell]] = {}
    for index, group in enumerate(groups):
        if group.region:
            side = [cell for cell in cells(group.region) if cell in free]
            if len(side) < group.count:
                return None
            placed[index] = _spaced(side, group.count)
            free = [cell for cell in free if cell not in placed[index]]
    number = sum(group.count for group in groups if not group.region)
    if number > len(free):
        return None
    if not placed and number in _LAYOUTS:
        layout = list(rng.choice(_LAYOUTS[number]))
    else:
        layout = sorted(rng.sample(free, number), key=_reading)
    for index, group in enumerate(groups):
        if not group.region:
            placed[index], layout = layout[: group.count], layout[group.count :]
    return [placed[index] for index in range(len(groups))]


def _slots_apart(relation: Relation, rng: random.Random) -> list[list[Cell]] | None:
    """Cells for the two groups of a relation: any two lines of the grid, not the outer ones alone.

    A relation says nothing of the halves of the picture, so the scenes must not either.
    """
    lines = sorted(rng.sample(range(3), 2))
    if relation.side in ("right", "below"):
        lines.reverse()
    axis = 0 if relation.side in ("left", "right") else 1
    slots = []
    for group, line in zip((relation.first, relation.second), lines, strict=True):
        if group.count > 3:
            return None
        slots.append(_spaced([cell for cell in cells(None) if cell[axis] == line], group.count))
    return slots


def _spaced(line: list[Cell], number: int) -> list[Cell]:
    """So many cells of a line, one or two of three not side by side."""
    return [line[index] for index in _SPACED.get((len(line), number), range(number))]


def _reading(cell: Cell) -> Cell:
    return cell[1], cell[0]


def _thing(shape: str, color: str, column: int, row: int, size: str, rng: random.Random) -> Thing:
    radius = rng.uniform(*SIZES[size])
    low, high = radius + _MARGIN, CANVAS - radius - _MARGIN
    x = min(max(_GRID[column] + rng.uniform(-_JITTER, _JITTER), low), high)
    y = min(max(_GRID[row] + rng.uniform(-_JITTER, _JITTER), low), high)
    return Thing(shape, color, x, y, radius)


def _touch(a: Thing, b: Thing) -> bool:
    reach = a.radius + b.radius + _GAP
    return abs(a.x - b.x) < reach and abs(a.y - b.y) < reach
