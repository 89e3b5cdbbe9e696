"""What the loop asks of whatever makes images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from npc_local.core.records import Render, Shot

OnStep = Callable[[int, int], None]
"""Called after each denoising step with (steps done, in all); what it raises ends the call."""


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
