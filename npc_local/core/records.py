"""The nouns of the method, all frozen: what the loop passes around and what a run keeps.

Leaves out: how any of them is made (`agents`, `generator`, `salience`) or written (`run`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from PIL.Image import Image

Kind = Literal["targeted", "untargeted"]
ClaimKind = Literal["object", "count", "colour", "relation", "size", "style", "other"]
Status = Literal["already-correct", "corrected", "best-effort", "error"]
Proposals = Literal["caption", "prompt-only", "targeted-only", "untargeted-only"]
TokenKind = Literal["number", "thing", "attribute", "relation", "action"]
Span = tuple[int, int]  # characters [start, end) of the prompt


@dataclass(frozen=True, slots=True)
class Claim:
    """One checkable statement that the prompt makes, and whether the image keeps it."""

    text: str
    holds: bool
    kind: ClaimKind = "other"


@dataclass(frozen=True, slots=True)
class Demand:
    """One checkable statement that the prompt makes, before anyone has looked at an image."""

    text: str
    kind: ClaimKind = "other"


@dataclass(frozen=True, slots=True)
class Checklist:
    """All that the images of a prompt are checked for; the same for every attempt."""

    demands: tuple[Demand, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement of one image, computed from the answers to the checklist.

    `score` is the share of claims that hold; `model_score` is what the verifier itself said, in
    [0, 1]. `reason` is empty if correct.
    """

    correct: bool
    score: float
    reason: str
    claims: tuple[Claim, ...] = ()
    model_score: float | None = None


@dataclass(frozen=True, slots=True)
class Caption:
    """The captioner's 90-160 words about one image. `flags` say what to be wary of."""

    text: str
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Negative:
    """A negative prompt. Targeted: names the error. Untargeted: incidental content of the image.

    `fallback` marks one from the fixed list that stands in when a proposer has too few.
    """

    text: str
    kind: Kind
    fallback: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """A proposal that cannot be used, as it was written, and why."""

    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """The negative prompts to try, and what was proposed but cannot be used."""

    negatives: tuple[Negative, ...]
    rejected: tuple[Rejected, ...] = ()


@dataclass(frozen=True, slots=True)
class SalientToken:
    """One element of T(p): a word or phrase that says what the picture must show.

    `text` is what is encoded: lower case, and not always the prompt's own spelling (2 for "two").
    `span` is where the prompt says it; None for what the released rule adds of its own. `noun` is
    the span of the thing that an attribute or a number belongs to, where that is known.
    """

    text: str
    kind: TokenKind
    span: Span | None
    noun: Span | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A negative prompt with its salience score, once ranked."""

    negative: Negative
    score: float


@dataclass(frozen=True, slots=True)
class Shot:
    """An order for one image. `negative` None means: as the model makes it by default."""

    prompt: str
    negative: str | None
    seed: int


@dataclass(frozen=True, slots=True)
class Render:
    """What the generator made of one shot: RGB image, denoiser forwards, wall seconds.

    `forwards` are the predictions that the image is made of, whether or not one was known already.
    `fallbacks` says what the generator did to get along with too little memory; a tiled VAE and
    offloading may change pixels. `file` is a PNG of the image, where one is kept already.
    """

    image: Image
    forwards: int
    seconds: float
    fallbacks: tuple[str, ...] = ()
    file: Path | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One image with its verdict; `candidate` None: it was made without a negative prompt."""

    shot: Shot
    candidate: Candidate | None
    render: Render
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Correction:
    """Everything that happened to one prompt.

    `original` is None only when the first image could not be made or judged. `answer` is the
    first correct image, else the best-scored one (earliest on ties, the original included); None
    for status "error", where `error` says what failed and `exit_code` is that error's.
    """

    prompt: str
    seed: int
    status: Status
    original: Attempt | None
    attempts: tuple[Attempt, ...]
    candidates: tuple[Candidate, ...]
    caption: Caption | None
    answer: Attempt | None
    forwards: int
    seconds: float
    error: str | None = None
    exit_code: int | None = None
    checklist: Checklist | None = None
    rejected: tuple[Rejected, ...] = ()
