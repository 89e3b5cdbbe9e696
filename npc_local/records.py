"""The nouns of the method, all frozen: what the loop passes around and what a run keeps.

Leaves out: how any of them is made (`roles`, `diffusion`, `salience`) or written (`rundir`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from PIL.Image import Image

Kind = Literal["targeted", "untargeted"]
Status = Literal["already-correct", "corrected", "best-effort", "error"]


@dataclass(frozen=True, slots=True)
class Claim:
    """One checkable statement that the prompt makes, and whether the image keeps it."""

    text: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verifier's judgement of one image. `score` is in [0, 1]; `reason` is empty if correct."""

    correct: bool
    score: float
    reason: str
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True, slots=True)
class Caption:
    """The captioner's 90-160 words about one image."""

    text: str


@dataclass(frozen=True, slots=True)
class Negative:
    """A negative prompt. Targeted: names the error. Untargeted: incidental content of the image."""

    text: str
    kind: Kind


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

    `fallbacks` says what the generator did to get along with too little memory; a tiled VAE and
    offloading may change pixels.
    """

    image: Image
    forwards: int
    seconds: float
    fallbacks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One image with its verdict; `candidate` None marks the original."""

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
