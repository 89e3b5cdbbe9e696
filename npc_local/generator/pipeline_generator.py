"""Images from a pipeline in memory, one call an image, with the negative in the first steps only.

Draws the noise, keeps what attempts share (encoded texts, the first prediction), counts the work,
climbs down the ladder when memory runs out, and turns every failure into one of ours. Leaves out:
how a negative is confined (`early_negative`), and where a pipeline comes from (`loading`).
"""

from __future__ import annotations

import gc
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npc_local.core.config.settings import EncoderSettings
from npc_local.core.errors import (
    ConfigError,
    DeviceLostError,
    GeneratorError,
    ModelFilesError,
    NpcError,
)
from npc_local.core.files import paths
from npc_local.core.numbers import whole_number
from npc_local.core.records import Render, Shot
from npc_local.generator.base import HeldEncoder, OnStep
from npc_local.generator.call_settings import checked_arguments, default_scale, denoising_steps
from npc_local.generator.checks import check_picture, check_size, check_texts
from npc_local.generator.early_negative.call_arguments import parameters
from npc_local.generator.early_negative.gate import Gate, check_true_cfg_scale, gated
from npc_local.generator.early_negative.guided_call import FirstPrediction
from npc_local.generator.early_negative.text_memo import TextMemo
from npc_local.generator.early_negative.turns import turn
from npc_local.generator.families import family_of, refuse_distilled
from npc_local.generator.family import After, Pipeline, denoiser_of
from npc_local.generator.fingerprint import pipeline_fingerprint
from npc_local.generator.out_of_memory import LADDER, Fallback, is_device_lost, is_out_of_memory
from npc_local.generator.random_numbers import seeded

if TYPE_CHECKING:
    import numpy as np

# First predictions kept, so that prompts that are corrected at the same time all reuse theirs. One
# is as large as a latent: 0.5 MB for FLUX.1 at 1024 x 1024 in bfloat16.
_FIRSTS = 128
_EARLY_STEPS = 3  # the paper's: later steps hardly react to a negative


class PipelineGenerator:
    """Makes images with a diffusers pipeline that is loaded already; a `Generator`.

    A shot without a negative is made as the model's makers make it: without CFG when `after` is
    "off", against the null prompt in every step when it is "null". Each image has a call of its
    own and noise of its own, drawn on the CPU from its seed, so that none depends on the company
    it is made in.

    Encoded texts and first predictions are kept: whoever changes the pipeline (a LoRA, a scheduler)
    makes a new `PipelineGenerator` of it. Several threads, and several generators of one pipeline,
    wait for each other.

    Attributes:
        pipe: the pipeline. It is called, never changed for good, unless memory runs out.
        fallbacks: what was switched on, so far, to get along with the memory.
    """

    def __init__(
        self,
        pipe: Pipeline,
        *,
        true_cfg_scale: float | None = None,
        negative_steps: int | None = None,
        after: After | None = None,
        allow_distilled: bool = False,
        late_cache: Callable[[], Any] | None = None,
        **arguments: Any,
    ) -> None:
        """Check that this pipeline can take a negative prompt this way.

        Args:
            pipe: of one of `families.FAMILIES`.
            true_cfg_scale: s in n + s * (p - n), whatever the pipeline's own scale looks like;
                None takes the family's.
            negative_steps: denoising steps that the negative acts in, at least 1, and no more than
                an image has; None: the paper's 3, or all of a shorter call.
            after: as for `early_negative`.
            allow_distilled: go on with a checkpoint that looks distilled.
            late_cache: makes the configuration of one of diffusers' caches, which is on in the
                late steps only, so that every early step is computed in full.
            arguments: of the pipeline call, the same for every image: num_inference_steps, height,
                width, guidance_scale where it is an input of the model, ...

        Raises:
            ConfigError: the pipeline would ignore a negative, or an argument is not one of its.
        """
        self.family = family_of(type(pipe))
        if not allow_distilled:
            refuse_distilled(self.family, pipe)
        scale = default_scale(self.family, pipe) if true_cfg_scale is None else true_cfg_scale
        check_true_cfg_scale(scale)
        steps = denoising_steps(pipe, arguments)
        if negative_steps is None:
            negative_steps = min(_EARLY_STEPS, steps or _EARLY_STEPS)
        negative_steps = whole_number("negative_steps", negative_steps)
        if negative_steps < 1:
            raise ConfigError(f"negative_steps = {negative_steps} would ignore the negative prompt")
        if steps is not None and negative_steps > steps:
            raise ConfigError(
                f"negative_steps = {negative_steps} must be at most the denoising steps of a call, "
                f"{steps}"
            )
        self.pipe = pipe
        self.fallbacks: tuple[str, ...] = ()
        self._scale = scale
        self._negative_steps = negative_steps
        self._after: After = self.family.after if after is None else after
        self._late_cache = late_cache
        self._arguments = {**self.family.fixed, **checked_arguments(self.family, pipe, arguments)}
        self._memo = TextMemo()
        self._firsts: OrderedDict[tuple[str, int], FirstPrediction] = OrderedDict()

    def generate(self, shot: Shot, on_step: OnStep | None = None) -> Render:
        """Make one image; the same shot gives the same bytes.

        Args:
            shot: what to make.
            on_step: called after each denoising step with (steps done, steps in all).

        Raises:
            ConfigError: the pipeline makes images of another size than the one asked for, or got
                past the gate.
            DeviceLostError: the GPU has failed for good; this process can make no more images.
            GeneratorError: out of memory, the model failed, or it made no usable picture.
            PromptError: a text is longer than the model reads, or a negative is its own prompt.
        """
        check_texts(self.pipe, self.family, self._arguments, shot)
        with turn(self.pipe, "an image cannot be made from inside the making of another one"):
            return self._generate(shot, on_step)

    def _generate(self, shot: Shot, on_step: OnStep | None) -> Render:
        start = time.perf_counter()
        already, tried = self.fallbacks, tuple[str, ...]()
        outcome = self._attempt(shot, on_step)
        for fallback in LADDER:
            if not isinstance(outcome, _OutOfMemory):
                break
            # Out here, because the caught error kept the tensors of its frames alive.
            if self._relieved(fallback):
                tried += (fallback.name,)
                if fallback.stays:
                    self.fallbacks += (fallback.name,)
                outcome = self._attempt(shot, on_step)
        if isinstance(outcome, _OutOfMemory):
            self.free()
            raise GeneratorError(self._out_of_memory(tried, outcome))
        pixels = outcome.pixels
        if pixels.shape[-1] == 4:  # Qwen-Image-2.1 draws transparency: show it on white
            pixels = 1 - pixels[..., 3:] * (1 - pixels[..., :3])
        check_size(pixels, self.family, self._arguments)
        check_picture(pixels, str(self.pipe.dtype).removeprefix("torch."))
        return Render(
            image=self.pipe.numpy_to_pil(pixels)[0],
            forwards=outcome.forwards,
            seconds=time.perf_counter() - start,
            fallbacks=tuple(dict.fromkeys((*already, *tried))),
        )

    def fingerprint(self) -> str:
        """Return a SHA-256 over the settings, the library versions and all weights in memory."""
        cache = None if self._late_cache is None else self._late_cache()
        arguments = sorted(self._arguments.items())
        chosen = self._scale, self._negative_steps, self._after, arguments, cache
        return pipeline_fingerprint(self.pipe, chosen)

    def text_encoder(self, wanted: EncoderSettings) -> HeldEncoder | None:
        """Return the text encoder that `wanted` names, if the pipeline was loaded with it.

        So from the very directory that is named. What has been done to it since is not known.
        """
        if wanted.kind != "t5" or not wanted.is_pair():
            return None
        home = getattr(self.pipe, "name_or_path", None)
        model = getattr(self.pipe, wanted.text_encoder, None)
        there = paths.resolved(wanted.path, ModelFilesError)
        same = home and paths.resolved(Path(home), ModelFilesError) == there
        if not same or str(getattr(model, "dtype", None)) != f"torch.{wanted.dtype}":
            return None
        return HeldEncoder(pipe=lambda: self.pipe, quantization=None, fingerprint=self.fingerprint)

    def _attempt(self, shot: Shot, on_step: OnStep | None) -> _Sample | _OutOfMemory:
        """Make an image with the memory that there is."""
        try:
            return self._sample(shot, on_step)
        except NpcError:
            raise
        except Exception as error:  # whatever a model, its kernels or their compiler raise
            if is_out_of_memory(error):
                return _OutOfMemory(str(error).partition("\n")[0] or type(error).__name__)
            raise _failure(error) from error

    def _relieved(self, fallback: Fallback) -> bool:
        """Free memory, and take one step down the ladder; False if there is no such step."""
        try:
            self.free()
            return fallback.apply(self.pipe)
        except Exception as error:
            raise _failure(error) from error

    def _sample(self, shot: Shot, on_step: OnStep | None) -> _Sample:
        import torch

        pipe = self.pipe
        gate = Gate(
            pipe=pipe,
            family=self.family,
            negative_steps=self._negative_steps,
            after=self._after,
            confines=shot.negative is not None,
            first=self._first_of(shot),
            on_step=on_step,
            on_late=self._enable_cache if self._late_cache is not None else None,
            memo=self._memo,
        )
        arguments = {
            **self._arguments,
            "prompt": shot.prompt,
            "generator": torch.Generator("cpu").manual_seed(shot.seed),
            "output_type": "np",
        }
        guides = shot.negative is not None or self._after == "null"
        scale = self.family.native_scale(self._scale) if guides else self.family.scale_off
        with ExitStack() as stack:
            if self.family.scale == "guider":
                stack.enter_context(_guider_at(pipe, scale))
            else:
                arguments[self.family.scale] = scale
            if shot.negative is not None:
                arguments |= self._negative_arguments(shot.negative)
            elif guides and self.family.null is not None:
                arguments["negative_prompt"] = self.family.null
            stack.callback(self._disable_cache)
            stack.enter_context(seeded(pipe, shot.seed))
            stack.enter_context(gated(gate))
            result = pipe(**arguments)
        if any(getattr(result, "nsfw_content_detected", None) or ()):
            raise GeneratorError(
                "the pipeline's safety checker blacked the image out; another seed may pass, or "
                "load the pipeline without its safety_checker"
            )
        # What is known from another image counts as well: an image takes the same number whatever
        # was made before it, in this process or in one that was killed.
        return _Sample(result.images[0], gate.forwards + gate.recalled)

    def _enable_cache(self) -> None:
        if self._late_cache is not None:
            denoiser_of(self.pipe).enable_cache(self._late_cache())

    def _disable_cache(self) -> None:
        denoiser = denoiser_of(self.pipe)
        if self._late_cache is not None and denoiser.is_cache_enabled:
            denoiser.disable_cache()

    def _negative_arguments(self, negative: str) -> dict[str, Any]:
        """Return the call arguments of a negative prompt, as text where the pipeline takes it."""
        if self.family.takes_text:
            return {"negative_prompt": negative}
        import torch

        takes = parameters(type(self.pipe), "encode_prompt")
        given = {name: value for name, value in self._arguments.items() if name in takes}
        with torch.no_grad(), self._memo.over(self.pipe):
            return {"negative_prompt_embeds": self.pipe.encode_prompt(negative, **given)[0]}

    def _first_of(self, shot: Shot) -> FirstPrediction | None:
        """Return what remembers the first prediction of this prompt and seed, for the last few."""
        if not self.family.reuses_first:
            return None
        key = shot.prompt, shot.seed
        first = self._firsts.setdefault(key, FirstPrediction())
        self._firsts.move_to_end(key)
        if len(self._firsts) > _FIRSTS:
            self._firsts.popitem(last=False)
        return first

    def free(self) -> None:
        """Drop what is kept to save time, and give unused memory back to the device."""
        import torch

        self._memo = TextMemo()
        self._firsts.clear()
        # A call that fails leaves the model that was computing on the device.
        self.pipe.maybe_free_model_hooks()
        gc.collect()
        torch.cuda.empty_cache()

    def _out_of_memory(self, tried: tuple[str, ...], why: _OutOfMemory) -> str:
        size = " x ".join(str(self._arguments.get(side, "?")) for side in ("width", "height"))
        device, dtype = self.pipe._execution_device, str(self.pipe.dtype).removeprefix("torch.")
        return (
            f"out of memory on {device} while making a {size} image in {dtype} "
            f"(tried in turn: {', '.join(tried)}); free the device of other programs, or choose a "
            f"smaller size, dtype bfloat16, quantization, or another device. It said: {why.words}"
        )


@dataclass(frozen=True, slots=True)
class _Sample:
    """A picture, (H, W, 3 or 4) floats in [0, 1], and the forwards that it took."""

    pixels: np.ndarray[Any, Any]
    forwards: int


@dataclass(frozen=True, slots=True)
class _OutOfMemory:
    """A try that found too little memory, and the first line of what was said."""

    words: str


def _failure(error: Exception) -> NpcError:
    """Return what the code of a model raised as an error of ours."""
    said = str(error) or type(error).__name__
    if is_device_lost(error):
        return DeviceLostError(f"the GPU failed while making an image: {said}")
    return GeneratorError(f"the model failed: {said}")


@contextmanager
def _guider_at(pipe: Pipeline, scale: float) -> Iterator[None]:
    """Give the pipeline's guider a scale for one call; at 1 it does not guide.

    Raises:
        ConfigError: the pipeline has none, as guidance-distilled checkpoints do.
    """
    guiders = [guider for guider in (pipe.guider, pipe.ocr_guider) if guider is not None]
    if not guiders:
        raise ConfigError(f"this {type(pipe).__name__} has no guider, so it ignores a negative")
    before = [guider.guidance_scale for guider in guiders]
    for guider in guiders:
        guider.guidance_scale = scale
    try:
        yield
    finally:
        for guider, old in zip(guiders, before, strict=True):
            guider.guidance_scale = old
