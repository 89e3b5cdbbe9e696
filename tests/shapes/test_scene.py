from __future__ import annotations

import random

import pytest

from npc_local.shapes.claims import check
from npc_local.shapes.draw import draw
from npc_local.shapes.prompts import TAGS, sample_record
from npc_local.shapes.scene import Background, Group, Scene, Thing, cells, groups_of, sample_scene
from npc_local.shapes.wording import Reading


@pytest.mark.parametrize("tag", TAGS)
def test_a_sampled_scene_shows_what_was_asked(tag):
    rng = random.Random(1)
    for _ in range(30):
        groups = sample_record(tag, rng, test=False).groups
        scene = sample_scene(groups, rng)
        assert [f for f in check(Reading(groups), scene) if not f.holds] == []
        assert len(scene.things) == sum(group.count for group in groups)


def test_nine_things_fit_and_ten_do_not():
    rng = random.Random(0)
    assert len(sample_scene((Group("star", 9, "red"),), rng).things) == 9
    with pytest.raises(ValueError, match="no room"):
        sample_scene((Group("star", 10, "red"),), rng)


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
