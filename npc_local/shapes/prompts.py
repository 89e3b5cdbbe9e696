"""Records in GenEval++'s format for the shapes world: seven kinds, any number, by seed.

Train and test prompts are disjoint by construction: a hash of what a prompt asks for, not of its
wording, assigns it to one side, and training never shows a caption that says a test prompt.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from npc_local.shapes.scene import COLORS, OPPOSITE, SHAPES, Group, Relation
from npc_local.shapes.wording import benchmark_prompt

_TEST_SHARE = 4  # one prompt in four is kept for testing


@dataclass(frozen=True, slots=True)
class Record:
    """One benchmark prompt: GenEval++'s tag and what the image must include."""

    tag: str
    groups: tuple[Group, ...]

    @property
    def prompt(self) -> str:
        """The prompt in GenEval++'s words."""
        return benchmark_prompt(self.groups)

    def to_json(self) -> dict[str, Any]:
        """The record as GenEval++ writes it: tag, include, exclude (counting only), prompt."""
        include = []
        for group in self.groups:
            entry: dict[str, Any] = {"class": group.shape, "count": group.count}
            for key in ("color", "region", "size"):
                if value := getattr(group, key):
                    entry[key] = value
            include.append(entry)
        record: dict[str, Any] = {"tag": self.tag, "include": include}
        if self.tag == "counting":
            one_more = self.groups[0].count + 1
            record["exclude"] = [{"class": self.groups[0].shape, "count": one_more}]
        return record | {"prompt": self.prompt}


def held_out(groups: tuple[Group, ...], relation: Relation | None = None) -> bool:
    """Whether a prompt that asks for just this is kept for testing, in any wording or order.

    A relation goes with the places that it would have if the two stood in two halves.
    """
    if relation is not None:
        ways = relation, relation.turned
        groups = tuple(replace(way.first, region=way.side) for way in ways)
    facts = sorted(json.dumps([g.shape, g.count, g.color, g.region, g.size]) for g in groups)
    digest = hashlib.sha256("|".join(facts).encode()).digest()
    return digest[0] % _TEST_SHARE == 0


def _color_attr(rng: random.Random) -> tuple[Group, ...]:
    number = rng.choices((2, 3), weights=(1, 3))[0]
    colors = rng.sample(tuple(COLORS), number)
    return tuple(Group(s, 1, c) for s, c in zip(rng.sample(SHAPES, number), colors, strict=True))


def _counting(rng: random.Random) -> tuple[Group, ...]:
    return (Group(rng.choice(SHAPES), rng.randint(2, 5)),)


def _color_count_attr(rng: random.Random) -> tuple[Group, ...]:
    shapes, colors = rng.sample(SHAPES, 2), rng.sample(tuple(COLORS), 2)
    counts = rng.choice(((1, 2), (2, 1), (1, 3), (3, 1), (2, 2)))
    return tuple(Group(s, n, c) for s, n, c in zip(shapes, counts, colors, strict=True))


def _pair_regions(rng: random.Random) -> tuple[str, str]:
    first = rng.choice(("left", "above"))
    return first, OPPOSITE[first]


def _color_spatial_attr(rng: random.Random) -> tuple[Group, ...]:
    shapes, colors = rng.sample(SHAPES, 2), rng.sample(tuple(COLORS), 2)
    regions = _pair_regions(rng)
    return tuple(Group(s, 1, c, r) for s, c, r in zip(shapes, colors, regions, strict=True))


def _spatial_count_attr(rng: random.Random) -> tuple[Group, ...]:
    regions = _pair_regions(rng)
    shapes = rng.sample(SHAPES, 2)
    return tuple(Group(s, rng.randint(1, 2), None, r) for s, r in zip(shapes, regions, strict=True))


def _size_spatial_attr(rng: random.Random) -> tuple[Group, ...]:
    regions, shapes = _pair_regions(rng), rng.sample(SHAPES, 2)
    sizes = rng.sample(("larger", "smaller"), 2)
    rows = zip(shapes, regions, sizes, strict=True)
    return tuple(Group(shape, 1, None, region, size) for shape, region, size in rows)


def _multi_object_count_attr(rng: random.Random) -> tuple[Group, ...]:
    counts = rng.choice(((1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2), (2, 1), (1, 2), (2, 2)))
    return tuple(Group(s, n) for s, n in zip(rng.sample(SHAPES, len(counts)), counts, strict=True))


TAGS: dict[str, Callable[[random.Random], tuple[Group, ...]]] = {
    "color_attr": _color_attr,
    "counting": _counting,
    "color_count_attr": _color_count_attr,
    "color_spatial_attr": _color_spatial_attr,
    "spatial_count_attr": _spatial_count_attr,
    "size_spatial_attr": _size_spatial_attr,
    "multi_object_count_attr": _multi_object_count_attr,
}


def sample_record(tag: str, rng: random.Random, *, test: bool) -> Record:
    """Draw one record of a tag from the test or from the training side."""
    while True:
        groups = TAGS[tag](rng)
        if held_out(groups) == test:
            return Record(tag, groups)


def sample_records(per_tag: int, seed: int, *, test: bool = True) -> list[Record]:
    """Return `per_tag` records of each tag, tag after tag.

    A tag with fewer different prompts than asked (counting has few) repeats them in turn; the
    benchmark gives each its own seed.
    """
    records = []
    for tag in TAGS:
        rng = random.Random(f"{seed}/{tag}/{test}")
        fresh: list[Record] = []
        for _ in range(per_tag * 50):
            record = sample_record(tag, rng, test=test)
            if record not in fresh:
                fresh.append(record)
            if len(fresh) == per_tag:
                break
        records += [fresh[i % len(fresh)] for i in range(per_tag)]
    return records
