from __future__ import annotations

import random
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image

from npc_local.shapes.detect import detect
from npc_local.shapes.draw import draw
from npc_local.shapes.scene import (
    BACKGROUNDS,
    COLORS,
    PAPERS,
    PATTERNS,
    SHAPES,
    SIZES,
    Background,
    Group,
    Scene,
    Thing,
    sample_scene,
)
from npc_local.shapes.train.data import sample_reading
from tests.shapes.strategies import lone_scenes


def same(drawn: Scene, read: Scene) -> bool:
    """Whether a scene was read back exactly: the same things (place within 1.5 px), same ground."""
    if drawn.background != read.background or len(drawn.things) != len(read.things):
        return False
    left = list(read.things)
    for thing in drawn.things:
        twin = next(
            (
                other
                for other in left
                if (other.shape, other.color, other.size) == (thing.shape, thing.color, thing.size)
                and abs(other.x - thing.x) <= 1.5
                and abs(other.y - thing.y) <= 1.5
            ),
            None,
        )
        if twin is None:
            return False
        left.remove(twin)
    return True


def test_at_least_99_percent_of_drawn_scenes_are_read_back_exactly():
    rng = random.Random(2024)
    readings = [sample_reading(rng) for _ in range(1_000)]
    scenes = [sample_scene(reading.groups, rng, reading.relation) for reading in readings]
    wrong = [scene for scene in scenes if not same(scene, detect(draw(scene)))]
    assert len(wrong) <= 10, wrong[:3]


@settings(max_examples=200)
@given(lone_scenes())
def test_a_single_thing_is_always_read_back_exactly(scene):
    assert same(scene, detect(draw(scene)))


@pytest.mark.parametrize("ground", COLORS)
def test_a_thing_on_the_colour_of_another_is_read_back(ground):
    for color in set(COLORS) - {ground}:
        for shape in SHAPES:
            for low, high in SIZES.values():
                thing = Thing(shape, color, 20.3, 41.8, (low + high) / 2)
                scene = Scene((thing,), Background(ground))
                assert same(scene, detect(draw(scene))), scene


@pytest.mark.parametrize("ground", COLORS)
def test_several_things_on_the_colour_of_another_are_read_back(ground):
    first, second = [color for color in COLORS if color != ground][:2]
    rng = random.Random(ground)
    for _ in range(20):
        things = sample_scene((Group("star", 2, first), Group("circle", 2, second)), rng).things
        scene = Scene(things, Background(ground))
        assert same(scene, detect(draw(scene)))


def test_a_full_grid_is_read_back():
    groups = Group("star", 4, "black"), Group("cross", 5, "yellow")
    scene = sample_scene(groups, random.Random(0))
    assert same(scene, detect(draw(scene)))


@pytest.mark.parametrize(
    ("color", "pattern"), [*product(BACKGROUNDS, PATTERNS), *product(COLORS, ["plain"])]
)
def test_an_empty_scene(color, pattern):
    scene = Scene((), Background(color, pattern))
    assert detect(draw(scene)) == scene


@pytest.mark.parametrize("way", [Image.Resampling.NEAREST, Image.Resampling.BICUBIC])
@pytest.mark.parametrize("side", [128, 192, 512])
def test_an_enlarged_picture_reads_the_same(side, way):
    rng = random.Random(side)
    for _ in range(5):
        scene = sample_scene(sample_reading(rng).groups, rng)
        assert same(scene, detect(draw(scene).resize((side, side), way)))


def _noise():
    values = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return Image.fromarray(values)


def _gradient():
    row = np.linspace(0, 255, 64, dtype=np.uint8)
    return Image.fromarray(np.stack([np.tile(row, (64, 1))] * 3, axis=-1))


GARBAGE = {
    "noise": _noise(),
    "gradient": _gradient(),
    "black": Image.new("RGB", (64, 64)),
    "one pixel": Image.new("RGB", (1, 1), "red"),
    "one row": Image.new("RGB", (300, 1), "blue"),
    "large": Image.new("RGB", (1000, 700), "green"),
    "confetti": _noise().resize((12, 12)).resize((64, 64), Image.Resampling.NEAREST),
    **{
        mode: _noise().convert(mode)
        for mode in ("RGBA", "P", "L", "LA", "1", "CMYK", "HSV", "YCbCr", "I", "F")
    },
}


@pytest.mark.parametrize("picture", GARBAGE.values(), ids=GARBAGE)
def test_any_picture_gives_a_scene(picture):
    before = picture.tobytes()
    scene = detect(picture)
    assert scene.background.color in PAPERS
    assert scene.background.pattern in PATTERNS
    assert all(np.isfinite([thing.x, thing.y, thing.radius]).all() for thing in scene.things)
    assert detect(picture) == scene
    assert picture.tobytes() == before


def test_modes_that_keep_the_colours_read_the_same():
    scene = sample_scene((Group("star", 2, "red"), Group("circle", 1, "blue")), random.Random(4))
    picture = draw(scene)
    assert same(scene, detect(picture.convert("RGBA")))
    assert same(scene, detect(picture.quantize(256)))


def test_same_tells_scenes_apart():
    scene = sample_scene((Group("star", 2, "red"),), random.Random(0))
    first, second = scene.things
    assert same(scene, Scene((second, first), scene.background))
    assert not same(scene, Scene((first, first), scene.background))
    assert not same(scene, Scene((first,), scene.background))
    other = Background("white" if scene.background.color != "white" else "pink")
    assert not same(scene, Scene(scene.things, other))
