"""What a family's module gives to the tests, and tiny parts that several families share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from npc_local.generator.family import After, Pipeline

N = 5  # denoising steps
PROMPTS = ["two red cats", "three clocks"]
NEGATIVES = ["one cat", "red clock"]


class PlainLoop(Protocol):
    """The family's sampling loop, written out with no gate and no pipeline call.

    Step i < `steps` guides against `negatives`; later steps against the family's null prompt
    (after="null") or not at all ("off"). Returns what the pipeline does for output_type="latent".
    """

    def __call__(
        self, pipe: Pipeline, prompts: list[str], negatives: list[str], steps: int, after: After
    ) -> torch.Tensor: ...


@dataclass(frozen=True)
class Case:
    """One family under test.

    `arguments` are those of the pipeline call that are the same everywhere (sizes, scale, ...);
    `negative` turns texts into the call's negative arguments; `without_cfg` gives the call
    arguments that switch guidance off, and may change the pipeline for it; `shorten` sets
    attributes of the tiny pipeline that a saved directory does not keep. `unsaved` says why it
    cannot be saved, if so.
    """

    family: str
    build: Callable[[], Pipeline]
    plain_loop: PlainLoop
    arguments: dict[str, Any]
    without_cfg: Callable[[Pipeline], dict[str, Any]]
    negative: Callable[[Pipeline, list[str]], dict[str, Any]] = lambda _, texts: {
        "negative_prompt": texts
    }
    shorten: Callable[[Pipeline], None] = lambda _: None
    unsaved: str = ""

    def sample(self, pipe: Pipeline, prompts: list[str], **changes: Any) -> torch.Tensor:
        """Call the pipeline as a user would, up to the latents."""
        arguments: dict[str, Any] = {
            "prompt": prompts,
            "num_inference_steps": N,
            "generator": generators(len(prompts)),
            "output_type": "latent",
        }
        arguments |= self.arguments | changes
        # Lists of its own: Z-Image writes its chat template into the caller's.
        own = {name: part[:] if type(part) is list else part for name, part in arguments.items()}
        result: torch.Tensor = pipe(**own).images
        return result


def generators(count: int) -> list[torch.Generator]:
    """Return a seeded generator an image; each call draws the same noise."""
    return [torch.Generator("cpu").manual_seed(7 + index) for index in range(count)]


def noise(count: int, *shape: int) -> torch.Tensor:
    """Return the noise that a pipeline draws for images of `shape` from `generators(count)`."""
    return torch.cat([torch.randn(1, *shape, generator=one) for one in generators(count)])


def guide(scale: float, conditional: torch.Tensor, unconditional: torch.Tensor) -> torch.Tensor:
    """Classifier-free guidance as most families write it."""
    return unconditional + scale * (conditional - unconditional)
