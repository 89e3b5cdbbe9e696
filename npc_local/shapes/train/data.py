"""Training scenes with captions, and what each caption says as numbers."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from npc_local.shapes.draw import draw
from npc_local.shapes.prompts import TAGS, held_out, sample_record
from npc_local.shapes.scene import (
    BACKGROUNDS,
    CANVAS,
    COLORS,
    PATTERNS,
    SHAPES,
    Background,
    Group,
    Relation,
    Scene,
    groups_of,
    sample_scene,
)
from npc_local.shapes.wording import (
    Reading,
    background_phrase,
    number_word,
    varied_phrase,
    varied_prompt,
)

TOKEN_GRID = 8  # image tokens a side: 64 pixels, 4x autoencoder, 2x2 packing
CLASSES = 1 + len(SHAPES) * len(COLORS)  # what an image token may show; 0 is background
_REGIONS = ("left", "right", "above", "below")
_SIZES = ("larger", "smaller")
_RELATIONS = 0.35  # share of the scenes with two groups apart that say where one is from the other
FACTS = (
    len(SHAPES) * (len(COLORS) + 1 + 2 * len(_REGIONS) + len(_SIZES))
    + (len(COLORS) + 1)
    + len(BACKGROUNDS)
    + len(PATTERNS)
)


@dataclass(frozen=True, slots=True)
class Caption:
    """A text and what it says."""

    text: str
    groups: tuple[Group, ...] = ()
    background: Background | None = None
    total: tuple[int, str | None] | None = None  # shapes of any kind, of one colour or of any
    relation: Relation | None = None


def sample_reading(rng: random.Random) -> Reading:
    """What a training scene shows: mostly one of the benchmark's kinds, some free mixtures.

    Two groups at two places may be a relation instead, which leaves the places open.
    """
    if rng.random() < 0.9:
        groups = sample_record(rng.choice(tuple(TAGS)), rng, test=False).groups
        if groups[0].region and rng.random() < _RELATIONS:
            first, second = (replace(group, region=None) for group in groups)
            return Reading((first, second), relation=Relation(first, groups[0].region, second))
        return Reading(groups)
    free = tuple(
        Group(rng.choice(SHAPES), rng.randint(1, 2), rng.choice(tuple(COLORS)))
        for _ in range(rng.randint(1, 3))
    )
    return Reading(free) if sum(group.count for group in free) <= 5 else sample_reading(rng)


def sample_caption(reading: Reading, scene: Scene, rng: random.Random) -> Caption:
    """One caption of a scene: of all of it, of a part, of its background, or empty."""
    lot = rng.random()
    background = scene.background if rng.random() < 0.2 else None
    if lot < 0.1:
        return Caption("")
    if lot < 0.25:
        return _short_caption(reading.groups, scene, rng)
    by_color = groups_of(scene)
    if lot < 0.45 and len(by_color) <= 3 and not held_out(by_color):
        reading = Reading(by_color)
    if held_out(reading.groups, reading.relation):
        return Caption("")
    text = varied_prompt(reading, background, rng)
    return Caption(text, reading.groups, background, relation=reading.relation)


def _short_caption(groups: tuple[Group, ...], scene: Scene, rng: random.Random) -> Caption:
    """A phrase about a part of the scene, as negative prompts are."""
    lot = rng.random()
    if lot < 0.25:
        return Caption(background_phrase(scene.background), (), scene.background)
    if lot < 0.45:
        color = rng.choice([None, *(thing.color for thing in scene.things)])
        number = sum(color in (None, thing.color) for thing in scene.things)
        words = [number_word(number), color, "shape" if number == 1 else "shapes"]
        return Caption(" ".join(filter(None, words)), (), None, (number, color))
    part = rng.choice(groups if lot < 0.8 else groups_of(scene))
    if rng.random() < 0.5:
        part = Group(part.shape, part.count, part.color)
    if held_out((part,)):
        return Caption(background_phrase(scene.background), (), scene.background)
    return Caption(varied_phrase(part, rng), (part,))


def facts(caption: Caption) -> Tensor:
    """What a caption says as a vector of `FACTS` numbers, nought where it says nothing."""
    count = torch.zeros(len(SHAPES), len(COLORS) + 1)
    region, size = torch.zeros(len(SHAPES), len(_REGIONS)), torch.zeros(len(SHAPES), len(_SIZES))
    side = torch.zeros(len(SHAPES), len(_REGIONS))  # of the other group of a relation
    total = torch.zeros(len(COLORS) + 1)
    ground, pattern = torch.zeros(len(BACKGROUNDS)), torch.zeros(len(PATTERNS))
    for group in caption.groups:
        shape = SHAPES.index(group.shape)
        color = list(COLORS).index(group.color) if group.color else len(COLORS)
        count[shape, color] = group.count / 2
        if group.region:
            region[shape, _REGIONS.index(group.region)] = 1
        if group.size:
            size[shape, _SIZES.index(group.size)] = 1
    if caption.relation:
        for relation in (caption.relation, caption.relation.turned):
            side[SHAPES.index(relation.first.shape), _REGIONS.index(relation.side)] = 1
    if caption.total:
        number, shade = caption.total
        total[list(COLORS).index(shade) if shade else len(COLORS)] = number / 2
    if caption.background:
        ground[list(BACKGROUNDS).index(caption.background.color)] = 1
        pattern[PATTERNS.index(caption.background.pattern)] = 1
    parts = count, region, side, size, total, ground, pattern
    return torch.cat([part.flatten() for part in parts])


def token_classes(scene: Scene) -> np.ndarray:
    """What each image token shows, shape (64,), row by row: 0 or 1 + shape and colour."""
    labels = np.zeros((TOKEN_GRID, TOKEN_GRID), dtype=np.uint8)
    cell = CANVAS / TOKEN_GRID
    for thing in scene.things:
        index = 1 + SHAPES.index(thing.shape) * len(COLORS) + list(COLORS).index(thing.color)
        for row in range(TOKEN_GRID):
            for column in range(TOKEN_GRID):
                away = max(abs((column + 0.5) * cell - thing.x), abs((row + 0.5) * cell - thing.y))
                if away < thing.radius:
                    labels[row, column] = index
    return labels.ravel()


@dataclass(frozen=True, slots=True)
class Corpus:
    """Scenes as pictures and token labels, each with several captions.

    images: (n, 3, 64, 64) uint8; labels: (n, 64) uint8; captions: n lists of equal length.
    """

    images: Tensor
    labels: Tensor
    captions: list[list[Caption]]


def make_corpus(scenes: int, captions: int, seed: int) -> Corpus:
    """Draw `scenes` training scenes, each with `captions` captions."""
    rng = random.Random(seed)
    images = np.empty((scenes, CANVAS, CANVAS, 3), dtype=np.uint8)
    labels = np.empty((scenes, TOKEN_GRID**2), dtype=np.uint8)
    said: list[list[Caption]] = []
    for index in range(scenes):
        reading = sample_reading(rng)
        scene = sample_scene(reading.groups, rng, reading.relation)
        images[index] = np.asarray(draw(scene))
        labels[index] = token_classes(scene)
        said.append([sample_caption(reading, scene, rng) for _ in range(captions)])
    return Corpus(torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels), said)


def pixels(images: Tensor) -> Tensor:
    """Bytes (n, 3, h, w) to floats in [-1, 1]."""
    return images.float() / 127.5 - 1
