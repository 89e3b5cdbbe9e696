"""ShapesBench: GenEval++'s seven tags in the shapes world, any number of prompts, by seed.

Judged by the exact detector from the record alone: no word of the prompt is read, and the code
that the loop's verifier runs on is not used. A picture of shapes has nothing but shapes in it, so,
unlike in a photo, a shape that the record does not name is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL.Image import Image

from npc_local.backends.base import Backend
from npc_local.bench.suites import scoring
from npc_local.bench.suites.published import Figure
from npc_local.bench.suites.record_files import digest
from npc_local.bench.suites.suite import BenchItem, JudgedImage, Judgement, Score
from npc_local.core.errors import ConfigError
from npc_local.core.hashing import code_digest
from npc_local.shapes.prompts import TAGS, sample_records
from npc_local.shapes.scene import CANVAS, Scene, Thing

PER_TAG = 40
_CODE = ("bench/suites/shapes.py", "shapes/*.py")
_MIDDLE = 4.0  # pixels to each side of the middle that are neither left nor right
_RATIO = 1.2  # how many times larger 'larger' is


class ShapesBench:
    """The benchmark; a `Suite`."""

    name = "shapes"
    title = "ShapesBench"
    headline = "mean of the tags' accuracies"
    best = 1.0
    groups: tuple[str, ...] = tuple(TAGS)
    published: tuple[Figure, ...] = ()
    weights: Mapping[str, float] = dict.fromkeys(TAGS, 1.0)
    metadata = "ShapesBench.jsonl"
    asks = False

    def __init__(self, per_tag: int = PER_TAG, seed: int = 0, *, test: bool = True) -> None:
        """Draw the prompts.

        Args:
            per_tag: prompts of each tag. A tag with fewer different ones (counting) repeats them.
            seed: another seed, other prompts.
            test: from the side that training never saw; else from the other.

        Raises:
            ConfigError: there would be no prompts.
        """
        if per_tag < 1:
            raise ConfigError(f"{per_tag} prompts of each tag; at least 1 must be drawn")
        records = sample_records(per_tag, seed, test=test)
        self._items = tuple(
            BenchItem(number, record.prompt, record.tag, record.to_json())
            for number, record in enumerate(records, start=1)
        )

    def items(self) -> tuple[BenchItem, ...]:
        """Every prompt, tag after tag."""
        return self._items

    def fingerprint(self) -> str:
        """Return a digest of the records."""
        return digest(item.record for item in self._items)

    def judgement_key(self, backend: Backend | None, item: BenchItem) -> Mapping[str, Any]:
        """Return all but the image that decides the judgement of an item."""
        return {"judge": "exact", "code": code_digest(*_CODE), "record": item.record}

    async def judge(self, backend: Backend | None, item: BenchItem, image: Image) -> Judgement:
        """Look at the image with the detector; no backend is asked."""
        from npc_local.shapes.detect import detect

        return judge_scene(item.record, detect(image))

    def score(self, judged: Sequence[JudgedImage]) -> Score:
        """Return the mean of the tags' accuracies, and the plain one."""
        return scoring.accuracy(judged, self.groups)


def judge_scene(record: Mapping[str, Any], scene: Scene) -> Judgement:
    """Judge a scene by a record: every number exact, and nothing beside what it names.

    `parts` says 1 or 0 for each kind of demand that the record makes. `exclude` needs no look: it
    only says that the number in `include` is exact, and here every number is.
    """
    things = {entry["class"]: _of(entry["class"], scene) for entry in record["include"]}
    faults: dict[str, list[str]] = {"count": [], "nothing else": []}
    for entry in record["include"]:
        name, namesakes = entry["class"], things[entry["class"]]
        if len(namesakes) != entry["count"]:
            faults["count"].append(f"{name}: {len(namesakes)} instead of {entry['count']}")
        for key, keeps in (("color", _has_color), ("region", _in_region)):
            if key in entry:
                wrong = faults.setdefault(key, [])
                if not namesakes or not all(keeps(thing, entry[key]) for thing in namesakes):
                    wrong.append(f"{name}: not {entry[key]}")
    sized = {
        entry["size"]: things[entry["class"]] for entry in record["include"] if "size" in entry
    }
    if sized:
        larger = _larger(sized["larger"], sized["smaller"])
        faults["size"] = [] if larger else ["sizes are not as asked for"]
    others = sorted({thing.shape for thing in scene.things} - things.keys())
    faults["nothing else"] += [f"{shape}: not asked for" for shape in others]
    parts = {kind: float(not reasons) for kind, reasons in faults.items()}
    reasons = [reason for some in faults.values() for reason in some]
    return Judgement(not reasons, float(not reasons), parts, "; ".join(reasons))


def _of(shape: str, scene: Scene) -> list[Thing]:
    return [thing for thing in scene.things if thing.shape == shape]


def _has_color(thing: Thing, color: str) -> bool:
    return thing.color == color


def _in_region(thing: Thing, region: str) -> bool:
    """Whether a thing's centre lies on that side, clear of the middle."""
    place = thing.x if region in ("left", "right") else thing.y
    if region in ("left", "above"):
        return place < CANVAS / 2 - _MIDDLE
    return place > CANVAS / 2 + _MIDDLE


def _larger(large: Sequence[Thing], small: Sequence[Thing]) -> bool:
    if not large or not small:
        return False
    return min(t.radius for t in large) > _RATIO * max(t.radius for t in small)
