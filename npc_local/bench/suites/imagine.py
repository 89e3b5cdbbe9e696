"""Imagine-Bench: 270 prompts for things that do not exist, graded by a judge from 0 to 10.

An image's score is 0.8 min(fulfilment, identity) + 0.2 aesthetics; the headline is the mean of the
four types, attribute shift counting three times and the others twice. Source: Echo-4o
(github.com/yejy53/Echo-4o); the instructions to the judge are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from PIL.Image import Image
from pydantic import Field

from npc_local.agents.structured_output import ask
from npc_local.backends.base import Backend, Request
from npc_local.backends.schemas import ReplyData, Text
from npc_local.bench.suites import scoring
from npc_local.bench.suites.judge import determinants, judge_request, required
from npc_local.bench.suites.published import IMAGINE, Figure
from npc_local.bench.suites.record_files import Published, Words, digest, find, read_records
from npc_local.bench.suites.suite import BenchItem, JudgedImage, Judgement, Score
from npc_local.core.errors import ConfigError

FILE = "imagine_bench.jsonl"
_CODE = ("bench/suites/imagine.py", "agents/templates/judge_imagine.*")
TYPES = {
    "COLOR": "Attribute shift",
    "SHAPE": "Attribute shift",
    "SIZE": "Attribute shift",
    "MATERIAL": "Hybridization",
    "COMBINATION": "Hybridization",
    "TIME": "Spatiotemporal",
    "ENVIRONMENT": "Spatiotemporal",
    "Multi-Object": "Multi-Object",
}
_EXPECTED = {"Attribute shift": 90, "Hybridization": 60, "Spatiotemporal": 60, "Multi-Object": 60}
WEIGHTS = {"Attribute shift": 3.0, "Hybridization": 2.0, "Spatiotemporal": 2.0, "Multi-Object": 2.0}
# The published script looks the last weight up under a name that no type has, and leaves types
# without images out of the sum of weights as well: 3, 2, 2 over 7.
_PUBLISHED_WEIGHTS = {name: WEIGHTS[name] for name in WEIGHTS if name != "Multi-Object"}
PUBLISHED_OVERALL = "overall as the published script prints it (without Multi-Object)"

_Grade = Annotated[int, Field(ge=0, le=10)]


class Record(Published):
    """One record of Imagine-Bench."""

    id: int
    instruction: Words
    note: Words
    type: Literal[
        "COLOR", "SHAPE", "SIZE", "MATERIAL", "COMBINATION", "TIME", "ENVIRONMENT", "Multi-Object"
    ]


class _Answer(ReplyData):
    fulfilment: _Grade
    identity: _Grade
    aesthetics: _Grade
    reason: Text


class ImagineBench:
    """The benchmark; a `Suite`."""

    name = "imagine"
    title = "Imagine-Bench"
    headline = "mean of the types, weighted 3, 2, 2, 2"
    best = 10.0
    groups: tuple[str, ...] = tuple(WEIGHTS)
    published: tuple[Figure, ...] = IMAGINE
    weights: Mapping[str, float] = WEIGHTS
    metadata = "Imagine.jsonl"
    asks = True

    def __init__(self, data: Path | None = None) -> None:
        """Read the records.

        Raises:
            ConfigError: they are missing, damaged or incomplete.
        """
        path = find(data, FILE)
        records = read_records(
            path,
            Record,
            prompt_of=lambda record: record.instruction,
            group_of=lambda record: TYPES[record.type],
            expected=_EXPECTED,
        )
        for number, (_, record) in enumerate(records, start=1):
            if record.id != number:  # the published script looks for an image named by the id
                raise ConfigError(f"{path}, line {number}: id {record.id}; must be {number}")
        self._items = tuple(
            BenchItem(record.id, record.instruction, TYPES[record.type], raw)
            for raw, record in records
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
        """Ask the backend for the three grades.

        Raises:
            BackendError: no valid answer came back; a grade outside 0..10 is not valid.
            ConfigError: there is no backend.
        """
        answer = await ask(required(backend, self.title), _question(item, image))
        parts = {
            "fulfilment": float(answer.fulfilment),
            "identity": float(answer.identity),
            "aesthetics": float(answer.aesthetics),
        }
        # 0.8 and 0.2 in fifths: exact but for one rounding.
        score = (4 * min(answer.fulfilment, answer.identity) + answer.aesthetics) / 5
        return Judgement(None, score, parts, answer.reason)

    def score(self, judged: Sequence[JudgedImage]) -> Score:
        """Return the weighted mean of the types, and what the published script makes of it."""
        groups = scoring.group_scores(judged, self.groups)
        errors = sum(group.errors for group in groups.values())
        others = {PUBLISHED_OVERALL: scoring.weighted(groups, _PUBLISHED_WEIGHTS)}
        return Score(scoring.weighted(groups, WEIGHTS), groups, others, len(judged), errors)


def _question(item: BenchItem, *images: Image) -> Request[_Answer]:
    fields = {"instruction": item.prompt, "note": item.record["note"]}
    return judge_request("imagine", fields, _Answer, images)
