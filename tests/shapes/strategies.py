"""Scenes and prompts for property tests."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from npc_local.shapes.scene import (
    BACKGROUNDS,
    CANVAS,
    COLORS,
    PAPERS,
    PATTERNS,
    SHAPES,
    SIZES,
    Background,
    Group,
    Relation,
    Scene,
    Thing,
)
from npc_local.shapes.wording import Reading

BACKDROPS = st.builds(Background, st.sampled_from(list(BACKGROUNDS)), st.sampled_from(PATTERNS))
_MARGIN = 0.4  # the drawer's own distance from the edge of the picture


@st.composite
def lone_scenes(draw: st.DrawFn) -> Scene:
    """One thing of any shape, colour, size and place, on any background."""
    low, high = SIZES[draw(st.sampled_from(list(SIZES)))]
    radius = draw(st.floats(low, high))
    place = st.floats(radius + _MARGIN, CANVAS - radius - _MARGIN)
    shape, color = draw(st.sampled_from(SHAPES)), draw(st.sampled_from(list(COLORS)))
    thing = Thing(shape, color, draw(place), draw(place), radius)
    return Scene((thing,), draw(BACKDROPS))


# What a generator could make: anything anywhere, of any size, also over the edge, also too many.
_ANYTHING = st.builds(
    Thing,
    st.sampled_from(SHAPES),
    st.sampled_from(list(COLORS)),
    st.floats(0, CANVAS),
    st.floats(0, CANVAS),
    st.floats(2.5, 40),
)
WILD_SCENES = st.builds(
    Scene,
    st.one_of(
        st.lists(_ANYTHING, max_size=9).map(tuple),
        st.lists(_ANYTHING, min_size=10, max_size=40).map(tuple),
        st.builds(lambda thing, n: (thing,) * n, _ANYTHING, st.integers(10, 50)),
    ),
    BACKDROPS,
)

GROUPS = st.builds(
    Group,
    st.sampled_from(SHAPES),
    st.integers(1, 12),
    st.sampled_from([None, *COLORS]),
    st.sampled_from([None, "left", "right", "above", "below"]),
    st.sampled_from([None, "larger", "smaller"]),
)
PROMPTS = st.lists(GROUPS, min_size=1, max_size=4).map(tuple)


@st.composite
def readings(draw: st.DrawFn) -> Reading:
    """All that a text can say: groups, two of them perhaps in a relation, and a background."""
    sizes = st.sampled_from([None, "larger", "smaller", "large", "small"])
    groups = draw(st.lists(GROUPS, max_size=4))
    groups = [replace(group, size=draw(sizes)) for group in groups]
    color = draw(st.none() | st.sampled_from(list(PAPERS)))
    pattern = draw(st.none() | st.sampled_from(PATTERNS))
    if not groups and color is None and pattern is None:
        color = "white"
    relation = None
    if len(groups) == 2 and draw(st.booleans()):
        side = draw(st.sampled_from(["left", "right", "above", "below", "beside"]))
        relation = Relation(groups[0], side, groups[1])
    return Reading(tuple(groups), (color, pattern), relation)
