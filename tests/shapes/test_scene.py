from __future__ import annotations

import random
from dataclasses import replace

import pytest

from npc_local.shapes.claims import check
from npc_local.shapes.draw import draw
from npc_local.shapes.prompts import TAGS, sample_record
from npc_local.shapes.scene import (
    Background,
    Group,
    Relation,
    Scene,
    Thing,
    cells,
    groups_of,
    sample_scene,
)
from npc_local.shapes.wording import Reading


@pytest.mark.parametrize("tag", TAGS)
def test_a_sampled_scene_shows_what_was_asked(tag):
    rng = random.Random(1)
    for _ in range(30):
        groups = sample_record(tag, rng, test=False).groups
        scene = sample_scene(groups, rng)
        assert [f for f in check(Reading(groups), scene) if not f.holds] == []
        assert len(scene.things) == sum(group.count for group in groups)


@pytest.mark.parametrize("side", ["left", "right", "above", "below"])
def test_a_scene_of_a_relation_keeps_it_and_no_more(side):
    """In whichever halves of the picture: the places are open."""
    groups = Group("star", 2, size="larger"), Group("circle", 1, "red")
    relation = Relation(groups[0], side, groups[1])
    rng = random.Random(side)
    placed = 0
    for _ in range(60):
        scene = sample_scene(groups, rng, relation)
        assert [f for f in check(Reading(groups, relation=relation), scene) if not f.holds] == []
        places = tuple(replace(way.first, region=way.side) for way in (relation, relation.turned))
        placed += all(finding.holds for finding in check(Reading(places), scene))
    assert 5 < placed < 55


def test_a_relation_of_too_many_has_no_room():
    groups = Group("star", 4), Group("circle", 1)
    with pytest.raises(ValueError, match="no room"):
        sample_scene(groups, random.Random(0), Relation(groups[0], "left", groups[1]))


def test_nine_things_fit_and_ten_do_not():
    rng = random.Random(0)
    assert len(sample_scene((Group("star", 9, "red"),), rng).things) == 9
    with pytest.raises(ValueError, match="no room"):
        sample_scene((Group("star", 10, "red"),), rng)


def where(groups, seed=0):
    """The grid cells of each group's things."""
    things = iter(sample_scene(groups, random.Random(seed)).things)
    return [[cell(next(things)) for _ in range(group.count)] for group in groups]


def cell(thing):
    """Column and row, from the middle of the thing."""
    return round((thing.x - 11) / 21), round((thing.y - 11) / 21)


def reading(cell):
    return cell[1], cell[0]


LAYOUTS = {1: 1, 2: 2, 3: 2, 4: 2, 5: 2, 6: 2}


@pytest.mark.parametrize(("number", "layouts"), LAYOUTS.items())
def test_things_without_a_place_stand_in_few_layouts(number, layouts):
    found = {tuple(where((Group("star", number),), seed)[0]) for seed in range(40)}
    assert len(found) == layouts
    for places in found:
        assert len(set(places)) == number
        assert list(places) == sorted(places, key=reading)


@pytest.mark.parametrize("counts", [(1, 1), (2, 1), (1, 2), (2, 2), (1, 1, 1), (3, 3), (4, 4)])
def test_groups_without_a_place_stand_in_the_order_they_are_named(counts):
    groups = tuple(Group(s, n) for s, n in zip(("star", "circle", "cross"), counts, strict=False))
    for seed in range(20):
        places = [place for group in where(groups, seed) for place in group]
        assert len(set(places)) == sum(counts)
        assert places == sorted(places, key=reading)
    # Of the layouts, each that the number has; which shape is named first changes none.
    alone = {tuple(where((Group("star", sum(counts)),), seed)[0]) for seed in range(40)}
    shared = {tuple(p for g in where(groups, seed) for p in g) for seed in range(40)}
    assert sum(counts) not in LAYOUTS or shared == alone


@pytest.mark.parametrize(
    ("region", "rows"),
    [
        ("left", {1: [(0, 1)], 2: [(0, 0), (0, 2)], 3: [(0, 0), (0, 1), (0, 2)]}),
        ("right", {1: [(2, 1)], 2: [(2, 0), (2, 2)], 3: [(2, 0), (2, 1), (2, 2)]}),
        ("above", {1: [(1, 0)], 2: [(0, 0), (2, 0)], 3: [(0, 0), (1, 0), (2, 0)]}),
        ("below", {1: [(1, 2)], 2: [(0, 2), (2, 2)], 3: [(0, 2), (1, 2), (2, 2)]}),
    ],
)
def test_things_with_a_place_line_up_on_that_side(region, rows):
    for number, places in rows.items():
        for seed in range(10):
            assert where((Group("star", number, None, region),), seed) == [places]


def test_groups_on_opposite_sides():
    groups = Group("star", 2, None, "left"), Group("circle", 1, None, "right")
    for order in (groups, groups[::-1]):
        found = dict(zip([g.shape for g in order], where(order), strict=True))
        assert found == {"star": [(0, 0), (0, 2)], "circle": [(2, 1)]}


def test_sides_that_meet_share_no_cell():
    groups = Group("star", 3, None, "left"), Group("circle", 2, None, "above")
    assert where(groups) == [[(0, 0), (0, 1), (0, 2)], [(1, 0), (2, 0)]]


@pytest.mark.parametrize("first", [True, False])
def test_a_group_without_a_place_takes_what_is_left(first):
    placed, free = Group("star", 2, None, "left"), Group("circle", 3)
    groups = (free, placed) if first else (placed, free)
    seen = set()
    for seed in range(30):
        found = where(groups, seed)
        circles, stars = found if first else found[::-1]
        assert stars == [(0, 0), (0, 2)]
        assert not set(circles) & set(stars)
        assert circles == sorted(set(circles), key=reading)
        assert len(circles) == 3
        seen.add(tuple(circles))
    assert len(seen) > 5


@pytest.mark.parametrize(
    "groups",
    [
        (Group("star", 4, None, "left"),),
        (Group("star", 3, None, "left"), Group("circle", 1, None, "left")),
        (Group("star", 3, None, "left"), Group("circle", 3, None, "above")),
        (Group("star", 3, None, "left", "larger"),),  # they would touch
        (Group("star", 3, None, "left"), Group("circle", 7)),
        (Group("star", 5), Group("circle", 5)),
    ],
)
def test_what_does_not_fit_is_refused(groups):
    with pytest.raises(ValueError, match="no room for"):
        sample_scene(groups, random.Random(0))


def test_what_just_fits():
    assert sum(map(len, where((Group("star", 3, None, "left"), Group("circle", 6))))) == 9
    assert len(where((Group("star", 2, None, "above", "larger"),))[0]) == 2


def test_an_open_colour_is_one_for_the_group():
    for seed in range(20):
        things = sample_scene((Group("star", 4),), random.Random(seed)).things
        assert len({thing.color for thing in things}) == 1


def test_cells_of_a_region_are_its_column_or_row():
    assert cells("left") == [(0, 0), (0, 1), (0, 2)]
    assert cells("right") == [(2, 0), (2, 1), (2, 2)]
    assert cells("above") == [(0, 0), (1, 0), (2, 0)]
    assert cells("below") == [(0, 2), (1, 2), (2, 2)]
    assert len(cells(None)) == 9


def test_groups_of_counts_by_shape_and_colour():
    def thing(shape, color):
        return Thing(shape, color, 10, 10, 8)

    things = thing("star", "red"), thing("circle", "red"), thing("star", "red")
    assert groups_of(Scene(things, Background())) == (
        Group("star", 2, "red"),
        Group("circle", 1, "red"),
    )
    assert groups_of(Scene((), Background())) == ()


def test_drawing_is_deterministic_and_of_canvas_size():
    scene = sample_scene((Group("cross", 3, "blue"),), random.Random(3))
    picture = draw(scene)
    assert (picture.size, picture.mode) == ((64, 64), "RGB")
    assert picture.tobytes() == draw(scene).tobytes()
    assert picture.tobytes() != draw(Scene((), scene.background)).tobytes()


def test_size_words_follow_the_radius():
    def size(radius):
        return Thing("star", "red", 10, 10, radius).size

    assert [size(r) for r in (5.4, 6.6, 6.8, 9.0, 9.1, 30)] == [
        *("small", "small", "medium", "medium", "large", "large")
    ]
