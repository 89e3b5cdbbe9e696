"""Images from a local diffusers directory, with the negative prompt in the first steps only.

Loads the pipeline, encodes prompts, draws the noise, counts the work and turns every failure
into one of ours. Leaves out: how a negative is confined to the first steps (`gate`), and which
negative to try (`loop`).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import time
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from npc_local.config import GeneratorSettings
from npc_local.device import resolve_device
from npc_local.diffusion.gate import Pipeline, check_true_cfg_scale, early_negative, encode
from npc_local.errors import ConfigError, GeneratorError, ModelFilesError, PromptError
from npc_local.model_files import check_weights, hash_files, read_json, require_directory
from npc_local.offline import go_offline
from npc_local.records import Render, Shot

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

_INDEX = "model_index.json"
SUPPORTED = ("FluxPipeline",)
_LIBRARIES = ("diffusers", "transformers")  # of components; anything else is code in the directory
_CACHED_TEXTS = 32  # 4 MB each for FLUX.1-dev in bfloat16


class DiffusersGenerator:
    """Makes images with a FluxPipeline; a `Generator`.

    A shot without a negative is made as the model's makers make it: without true CFG when
    `settings.after` is "off", against the null prompt in every step when it is "null". The
    directory is checked at once; the model is loaded with the first image.

    Attributes:
        settings: what the images are made with.
        on_step: called after each denoising step with (steps done, steps in all).
    """

    def __init__(self, settings: GeneratorSettings) -> None:
        """Check the settings and the model directory.

        Raises:
            ConfigError: a negative would be ignored, or the pipeline class is not supported.
            ModelFilesError: the directory is missing, incomplete or damaged.
        """
        check_true_cfg_scale(settings.true_cfg_scale)
        self.settings = settings
        self.on_step: Callable[[int, int], None] | None = None
        self._components = _check_directory(settings)
        self._encoded = lru_cache(maxsize=_CACHED_TEXTS)(self._encode)

    @cached_property
    def pipe(self) -> Pipeline:
        """The loaded pipeline, on its device.

        Raises:
            ConfigError: the model cannot make images of this size, or the device is not there.
            ModelFilesError: diffusers cannot load the directory.
        """
        return _load(self.settings)

    def generate(self, shots: Sequence[Shot]) -> list[Render]:
        """Make one image a shot, in order; the same shot gives the same bytes.

        Raises:
            GeneratorError: out of memory, the model failed, or it made no usable picture.
            PromptError: a text is longer than settings.max_sequence_length.
            ConfigError, ModelFilesError: as `pipe`.
        """
        return [self._render(shot) for shot in shots]

    def fingerprint(self) -> str:
        """Return a SHA-256 over settings, device, library versions and all model files.

        Raises:
            ModelFilesError: a file cannot be read.
        """
        identity = {
            "settings": self.settings.model_dump(mode="json", exclude={"path", "device"}),
            "device": resolve_device(self.settings.device),
            "versions": {
                name: importlib.metadata.version(name)
                for name in ("torch", "diffusers", "transformers")
            },
            "files": hash_files(self.settings.path, [_INDEX, *self._components]),
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def _render(self, shot: Shot) -> Render:
        """Make one image, or raise a GeneratorError that says why there is none."""
        import torch

        pipe = self.pipe
        start = time.perf_counter()
        try:
            pixels, forwards = self._sample(shot)
        except torch.OutOfMemoryError:
            pixels = None
        except RuntimeError as error:
            raise GeneratorError(f"the model failed: {error}") from error
        if pixels is None:
            # Raised out here because the caught error keeps the tensors of its frames alive.
            torch.cuda.empty_cache()
            raise GeneratorError(
                f"out of memory on {pipe.device} while making a {self.settings.width} x "
                f"{self.settings.height} image in {self.settings.dtype}; free the device of other "
                "programs, or choose a smaller size, dtype bfloat16, or another device"
            )
        _check_picture(pixels, self.settings.dtype)
        image = pipe.image_processor.numpy_to_pil(pixels)[0]
        return Render(image=image, forwards=forwards, seconds=time.perf_counter() - start)

    def _sample(self, shot: Shot) -> tuple[np.ndarray[Any, Any], int]:
        """Return the picture, (H, W, 3) floats in [0, 1], and the transformer forwards it took."""
        import torch

        pipe, settings = self.pipe, self.settings
        embeds, pooled = self._encoded(shot.prompt)
        arguments: dict[str, Any] = {
            "prompt_embeds": embeds,
            "pooled_prompt_embeds": pooled,
            "height": settings.height,
            "width": settings.width,
            "num_inference_steps": settings.steps,
            "guidance_scale": settings.guidance_scale,
            "max_sequence_length": settings.max_sequence_length,
            "generator": torch.Generator("cpu").manual_seed(shot.seed),
            "callback_on_step_end": self._report_step if self.on_step else None,
            "output_type": "np",
        }
        if shot.negative is None and settings.after == "off":
            return pipe(**arguments).images[0], pipe.num_timesteps
        embeds, pooled = self._encoded(shot.negative or "")
        arguments["negative_prompt_embeds"] = embeds
        arguments["negative_pooled_prompt_embeds"] = pooled
        arguments["true_cfg_scale"] = settings.true_cfg_scale
        if shot.negative is None:
            return pipe(**arguments).images[0], 2 * pipe.num_timesteps
        null = self._encoded("") if settings.after == "null" else None
        with early_negative(pipe, settings.negative_steps, settings.after, null=null) as gate:
            picture = pipe(**arguments).images[0]
        return picture, gate.forwards

    def _encode(self, text: str) -> tuple[Tensor, Tensor]:
        """Encode one prompt, positive or negative, as `gate.encode`, refusing to cut it short."""
        limit = self.settings.max_sequence_length
        length = len(self.pipe.tokenizer_2(text).input_ids)
        if length > limit:
            raise PromptError(
                f"the prompt is {length} tokens long, the generator reads {limit} "
                f"(max_sequence_length); shorten it: {text[:60]!r}..."
            )
        return encode(self.pipe, text, limit)

    def _report_step(
        self, pipe: Pipeline, step: int, timestep: Tensor, tensors: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Pass the pipeline's step on to `on_step`; change nothing."""
        if self.on_step is not None:
            self.on_step(step + 1, pipe.num_timesteps)
        return {}


def _check_directory(settings: GeneratorSettings) -> list[str]:
    """Check a pipeline directory without loading it and return its components' folders."""
    require_directory(settings.path)
    index = settings.path / _INDEX
    parts = read_json(index)
    if parts.get("_class_name") not in SUPPORTED:
        raise ConfigError(
            f"{index}: pipelines of class {parts.get('_class_name')} are not supported; "
            f"supported: {', '.join(SUPPORTED)}"
        )
    folders = []
    for name, origin in parts.items():
        if name.startswith("_") or not isinstance(origin, list) or None in origin:
            continue
        if origin[0] not in _LIBRARIES:
            raise ConfigError(
                f"{index}: {name} comes from {origin[0]!r}; no code is run from a model "
                f"directory, components come from {' or '.join(_LIBRARIES)}"
            )
        check_weights(settings.path / name)
        folders.append(name)
    return folders


def _load(settings: GeneratorSettings) -> Pipeline:
    """Load the pipeline of a checked directory."""
    go_offline()
    import diffusers
    import torch
    import transformers
    from safetensors import SafetensorError

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    family: Any = diffusers.FluxPipeline
    try:
        pipe = family.from_pretrained(
            settings.path,
            local_files_only=True,
            use_safetensors=True,
            dtype=getattr(torch, settings.dtype),
        )
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelFilesError(f"{settings.path}: cannot be loaded: {error}") from error
    pipe.set_progress_bar_config(disable=True)
    multiple = 2 * pipe.vae_scale_factor
    if settings.height % multiple or settings.width % multiple:
        raise ConfigError(
            f"size {settings.width} x {settings.height}: "
            f"width and height must be multiples of {multiple} for this model"
        )
    device = resolve_device(settings.device)
    try:
        pipe.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {device!r} cannot be used: {error}") from error
    return pipe


def _check_picture(pixels: np.ndarray[Any, Any], dtype: str) -> None:
    """Refuse a picture that is not a number somewhere, or black everywhere."""
    import numpy as np

    for fault, found in (
        ("pixels that are not numbers", not np.isfinite(pixels).all()),
        ("an all-black image", not pixels.any()),
    ):
        if found:
            raise GeneratorError(
                f"the model made {fault} in {dtype}: its values overflowed or its weights are "
                "damaged; try dtype bfloat16 or float32, or copy the model again"
            )
