"""GenEval++: 280 prompts of seven tags, each with a record of what its image must show.

The judge answers correct or not; a tag's score is its accuracy, the headline the mean of the tags.
Source: Echo-4o (github.com/yejy53/Echo-4o); the instructions to the judge are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from PIL.Image import Image
from pydantic import BeforeValidator, Field, model_validator

from npc_local.agents.structured_output import ask
from npc_local.backends.base import Backend, Request
from npc_local.backends.schemas import ReplyData, Text
from npc_local.bench.suites import scoring
from npc_local.bench.suites.judge import determinants, judge_request, required
from npc_local.bench.suites.published import GENEVAL_PP, Figure
from npc_local.bench.suites.record_files import Published, Words, digest, find, read_records
from npc_local.bench.suites.suite import BenchItem, JudgedImage, Judgement, Score
from npc_local.core.records import Checklist, Demand

TAGS = (
    "color_attr",
    "counting",
    "color_count_attr",
    "color_spatial_attr",
    "spatial_count_attr",
    "size_spatial_attr",
    "multi_object_count_attr",
)
PER_TAG = 40
FILE = "geneval_pp.jsonl"
_CODE = ("bench/suites/geneval_pp.py", "agents/templates/judge_geneval_pp.*")

_PLACES = {
    "left": "on the left of the image",
    "right": "on the right of the image",
    "above": "at the top of the image",
    "below": "at the bottom of the image",
}
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
# One and several, where an s or es does not do it.
_NOUNS = {
    "computer mouse": ("computer mouse", "computer mice"),
    "knife": ("knife", "knives"),
    "person": ("person", "people"),
    "scissors": ("pair of scissors", "pairs of scissors"),
    "sheep": ("sheep", "sheep"),
    "skis": ("pair of skis", "pairs of skis"),
}
_ONE_PHOTO = (
    Demand("the image looks like a photo, not drawn, painted or otherwise stylised", "style"),
    Demand("the image is one single scene, not a collage and not split into panels", "style"),
)


class Excluded(Published):
    """Fewer than `count` things of a class."""

    thing: Words = Field(alias="class")
    count: int = Field(ge=1)


class Included(Published):
    """So many things of a class, and what else is asked of them."""

    thing: Words = Field(alias="class")
    count: int = Field(ge=1)
    color: Words | None = None
    region: Literal["left", "right", "above", "below"] | None = None
    size: Literal["larger", "smaller"] | None = None


class Record(Published):
    """One record of GenEval++."""

    tag: Literal[
        "color_attr",
        "counting",
        "color_count_attr",
        "color_spatial_attr",
        "spatial_count_attr",
        "size_spatial_attr",
        "multi_object_count_attr",
    ]
    include: list[Included] = Field(min_length=1)
    exclude: list[Excluded] = Field(default=[])
    prompt: Words

    @model_validator(mode="after")
    def _consistent(self) -> Record:
        names = [entry.thing for entry in self.include]
        if len(set(names)) < len(names):
            raise ValueError("include names a class twice")
        sizes = {entry.size for entry in self.include} - {None}
        if len(sizes) == 1:
            raise ValueError(f"include has something {sizes.pop()}, but nothing to compare it with")
        return self


def _whole(value: object) -> object:
    """Refuse true and 1.0, which equal 1."""
    if type(value) is not int:
        raise ValueError("must be 0 or 1")
    return value


class _Answer(ReplyData):
    correct: Annotated[Literal[0, 1], BeforeValidator(_whole)]
    reason: Text


class GenEvalPlusPlus:
    """The benchmark; a `Suite`."""

    name = "geneval++"
    title = "GenEval++"
    headline = "mean of the tags' accuracies"
    best = 1.0
    groups: tuple[str, ...] = TAGS
    published: tuple[Figure, ...] = GENEVAL_PP
    weights: Mapping[str, float] = dict.fromkeys(TAGS, 1.0)
    metadata = "Geneval++.jsonl"
    asks = True

    def __init__(self, data: Path | None = None) -> None:
        """Read the records.

        Raises:
            ConfigError: they are missing, damaged or incomplete.
        """
        records = read_records(
            find(data, FILE),
            Record,
            prompt_of=lambda record: record.prompt,
            group_of=lambda record: record.tag,
            expected=dict.fromkeys(TAGS, PER_TAG),
        )
        self._items = tuple(
            BenchItem(number, record.prompt, record.tag, raw, checklist(record))
            for number, (raw, record) in enumerate(records, start=1)
        )

    def items(self) -> tuple[BenchItem, ...]:
        """Every prompt, in the order of publication."""
        return self._items

    def fingerprint(self) -> str:
        """Return a digest of the records."""
        return digest(item.record for item in self._items)

    def judgement_key(self, backend: Backend | None, item: BenchItem) -> Mapping[str, Any]:
        """Return all but the image that decides the judgement of an item."""
        return determinants(required(backend, self.title), _question(item), *_CODE)

    async def judge(self, backend: Backend | None, item: BenchItem, image: Image) -> Judgement:
        """Ask the backend whether the image keeps the whole checklist.

        Raises:
            BackendError: no valid answer came back.
            ConfigError: there is no backend.
        """
        answer = await ask(required(backend, self.title), _question(item, image))
        return Judgement(answer.correct == 1, float(answer.correct), {}, answer.reason)

    def score(self, judged: Sequence[JudgedImage]) -> Score:
        """Return the mean of the tags' accuracies, and the plain one."""
        return scoring.accuracy(judged, TAGS)


def checklist(record: Record) -> Checklist:
    """Return what an image is checked for: what the record says, and one photo-like scene.

    A number is exact (include), or fewer than so many (exclude).
    """
    demands = [Demand(_number(entry), "count") for entry in record.include]
    demands += [Demand(_fewer(entry), "count") for entry in record.exclude]
    for entry in record.include:
        if entry.color:
            every = "" if entry.count == 1 else "all "
            demands.append(Demand(f"{_subject(entry)} {every}{entry.color}", "colour"))
        if entry.region:
            demands.append(Demand(f"{_subject(entry)} {_PLACES[entry.region]}", "relation"))
    large = [entry for entry in record.include if entry.size == "larger"]
    small = [entry for entry in record.include if entry.size == "smaller"]
    demands += [
        Demand(f"{_subject(a)} larger in the image than the {_noun(b.thing, b.count)}", "size")
        for a in large
        for b in small
    ]
    return Checklist((*demands, *_ONE_PHOTO))


def _number(entry: Included) -> str:
    be = "is" if entry.count == 1 else "are"
    return f"there {be} exactly {_word(entry.count)} {_noun(entry.thing, entry.count)}"


def _fewer(entry: Excluded) -> str:
    return f"there are fewer than {_word(entry.count)} {_noun(entry.thing, entry.count)}"


def _subject(entry: Included) -> str:
    be = "is" if entry.count == 1 else "are"
    return f"the {_noun(entry.thing, entry.count)} {be}"


def _word(number: int) -> str:
    return _NUMBERS[number] if number < len(_NUMBERS) else str(number)


def _noun(thing: str, count: int) -> str:
    plural = f"{thing}es" if thing.endswith(("s", "x", "z", "ch", "sh")) else f"{thing}s"
    singular, plural = _NOUNS.get(thing, (thing, plural))
    return singular if count == 1 else plural


def _question(item: BenchItem, *images: Image) -> Request[_Answer]:
    claims = [] if item.checklist is None else [demand.text for demand in item.checklist.demands]
    fields = {"prompt": item.prompt, "checklist": claims}
    return judge_request("geneval_pp", fields, _Answer, images)
