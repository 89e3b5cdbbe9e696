"""What the loop asks of whatever makes images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from npc_local.core.config.settings import EncoderSettings
from npc_local.core.records import Render, Shot
from npc_local.generator.family import Pipeline

OnStep = Callable[[int, int], None]
"""Called after each denoising step with (steps done, in all); what it raises ends the call."""


@dataclass(frozen=True, slots=True)
class HeldEncoder:
    """A text encoder that a generator's pipeline holds anyway, so that it need not be loaded twice.

    Attributes:
        pipe: gives the pipeline, which is loaded by then.
        quantization: how the encoder is quantised, as plain data; None: not at all.
        fingerprint: what the encoder is, where its directory does not tell: a pipeline of the
            user's may have been changed since it was loaded. None where it does.
    """

    pipe: Callable[[], Pipeline]
    quantization: dict[str, Any] | None
    fingerprint: Callable[[], str] | None


class Generator(Protocol):
    """Makes images. Synchronous: one worker thread owns it."""

    def generate(self, shot: Shot, on_step: OnStep | None = None) -> Render:
        """Make one image. Same shot, same settings, same machine: same bytes.

        Raises:
            ConfigError: a setting does not fit the model, the device or what is installed.
            DeviceLostError: the GPU has failed for good; this process can make no more images.
            GeneratorError: the model failed (out of memory, not a number, ...).
            ModelFilesError: the model cannot be loaded.
            PromptError: the model cannot read the prompt or the negative as it is.
        """
        ...

    def fingerprint(self) -> str:
        """Return a string that changes whenever the images may change."""
        ...


@runtime_checkable
class Movable(Protocol):
    """What can give the GPU back, for `gpu = "phased"`."""

    def leave_device(self) -> None:
        """Give the GPU's memory back."""
        ...

    def enter_device(self) -> None:
        """Take the GPU's memory again, if the model is loaded.

        Raises:
            DeviceLostError: the GPU has failed for good.
            GeneratorError: there is not enough.
        """
        ...


@runtime_checkable
class HoldsEncoders(Protocol):
    """What may hold the text encoder that ranks the negatives."""

    def text_encoder(self, wanted: EncoderSettings) -> HeldEncoder | None:
        """Return the text encoder that `wanted` names, if it is held."""
        ...
