"""What the journal says of the stages of the method, as records: the reading to `stages`' writing.

A row that cannot be read as this version's record is left out, as a stage would do it again.
Which rows belong together, and what they mean for the method, is left to whoever reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from PIL.Image import Image

from npc_local.core.records import (
    Candidate,
    Caption,
    Proposal,
    Proposals,
    Shot,
    Verdict,
)
from npc_local.run.journal.codecs import Unreadable, codec_of
from npc_local.run.journal.journal import Journal, Row

MADE_FOR = "made_for"
"""Among a row's inputs: whom a stage was done for first. It has no part in the row's key."""
_FIRST_NEW_SEED = 1_000_003  # of arms, in journals from before rows said whom they were made for

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MadeFor:
    """The arm that asked for a stage first (others may share it), and its search's own seed."""

    arm: str
    seed: int


@dataclass(frozen=True, slots=True)
class KeptRender:
    """An image that was made; `image` reads it.

    `made_for` is None outside benchmarks, and in journals from before it was kept.
    """

    key: str
    shot: Shot
    made_for: MadeFor | None

    @property
    def at_new_seed(self) -> bool:
        """Whether its seed is another than that of the search that it was made for."""
        if self.made_for is None:
            return self.shot.seed >= _FIRST_NEW_SEED
        return self.shot.seed != self.made_for.seed


@dataclass(frozen=True, slots=True)
class Asked:
    """What a proposer was asked. From the prompt alone, it saw neither caption nor reason."""

    prompt: str
    proposals: Proposals
    caption: str | None
    reason: str | None


def renders(journal: Journal) -> Iterator[KeptRender]:
    """Yield the images that were made, in that order; `StorageError` as `Journal.rows`."""
    for row in journal.rows("generate"):
        shot, made_for = row.inputs["shot"], row.inputs.get(MADE_FOR)
        yield KeptRender(
            row.key,
            Shot(shot["prompt"], shot["negative"], shot["seed"]),
            None if made_for is None else MadeFor(made_for["arm"], made_for["seed"]),
        )


def image(journal: Journal, render: KeptRender) -> Image | None:
    """Return the image; None: it is damaged, and the next run that needs it makes it anew."""
    row = journal.find("generate", render.key)
    return None if row is None else row.image


def verdicts(journal: Journal) -> dict[tuple[str, str], Verdict]:
    """Return what the verifier said, by prompt and `pixel_hash`; errors as `Journal.rows`."""
    return {
        (row.inputs["prompt"], row.inputs["image"]["pixels"]): verdict
        for row, verdict in _records(journal, "verify", Verdict)
    }


def captions(journal: Journal) -> dict[str, Caption]:
    """Return the captions by `pixel_hash` of their image; errors as `Journal.rows`."""
    return {
        row.inputs["image"]["pixels"]: caption
        for row, caption in _records(journal, "caption", Caption)
    }


def proposals(journal: Journal) -> dict[Asked, Proposal]:
    """Return what was proposed, by what was asked; errors as `Journal.rows`."""
    return {
        Asked(
            row.inputs["prompt"],
            row.inputs["mode"],
            row.inputs.get("caption"),
            row.inputs.get("reason"),
        ): proposal
        for row, proposal in _records(journal, "propose", Proposal)
    }


def rankings(journal: Journal) -> dict[tuple[str, tuple[str, ...]], tuple[Candidate, ...]]:
    """Return rankings by prompt and negative prompts as proposed; errors as `Journal.rows`."""
    return {
        (
            row.inputs["prompt"],
            tuple(negative["text"] for negative in row.inputs["negatives"]),
        ): candidates
        for row, candidates in _records(journal, "rank", tuple[Candidate, ...])
    }


def _records(journal: Journal, kind: str, shape: type[T]) -> Iterator[tuple[Row, T]]:
    codec = codec_of(shape)
    for row in journal.rows(kind):
        try:
            yield row, codec.together(row.value, None)
        except Unreadable:
            continue
