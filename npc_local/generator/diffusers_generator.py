"""The generator of a profile: a local diffusers directory, checked at once and loaded when needed.

Leaves out: how a directory becomes a pipeline (`loading`), how a pipeline makes an image
(`pipeline_generator`), and which negative to try (`loop`).
"""

from __future__ import annotations

import gc
from typing import Any

from npc_local.core.config.settings import EncoderSettings, GeneratorSettings
from npc_local.core.device import resolve_device, torch_threads
from npc_local.core.device_errors import is_device_lost, is_out_of_memory
from npc_local.core.errors import ConfigError, DeviceLostError, GeneratorError
from npc_local.core.files.model_directory import INDEX, hash_files
from npc_local.core.hashing import digest
from npc_local.core.records import Render, Shot
from npc_local.core.versions import libraries
from npc_local.generator.base import HeldEncoder, OnStep
from npc_local.generator.early_negative.gate import check_true_cfg_scale
from npc_local.generator.family import Pipeline
from npc_local.generator.loading.directory import check_directory, lora_file
from npc_local.generator.loading.load import late_cache, load
from npc_local.generator.pipeline_generator import PipelineGenerator


class DiffusersGenerator:
    """Makes images with a pipeline of a local directory; a `Generator`.

    Attributes:
        settings: what the images are made with.
    """

    def __init__(self, settings: GeneratorSettings) -> None:
        """Check the settings and the model directory; the model is loaded with the first image.

        Raises:
            ConfigError: a negative would be ignored, or the pipeline class is not supported.
            ModelFilesError: the directory is missing, incomplete or damaged.
        """
        check_true_cfg_scale(settings.true_cfg_scale)
        self.settings = settings
        self._family, self._components = check_directory(settings)
        self._cache = late_cache(settings, self._family)
        self._sampler: PipelineGenerator | None = None  # once the model is loaded
        if settings.guidance_scale is not None and self._family.embedded is None:
            raise ConfigError(
                f"guidance_scale: {self._family.name} takes none beside CFG, whose scale is "
                "true_cfg_scale; leave it out"
            )

    @property
    def pipe(self) -> Pipeline:
        """The loaded pipeline, on its device; errors as `generate`."""
        return self._loaded().pipe

    def _loaded(self) -> PipelineGenerator:
        """Return what makes the images; the model is loaded if it is not there."""
        if self._sampler is None:
            self._sampler = self._load()
        return self._sampler

    def _load(self) -> PipelineGenerator:
        settings, family = self.settings, self._family
        arguments: dict[str, Any] = {
            "num_inference_steps": settings.steps,
            "height": settings.height,
            "width": settings.width,
            **settings.arguments,
        }
        if settings.max_sequence_length is not None:
            arguments["max_sequence_length"] = settings.max_sequence_length
        if family.embedded is not None and settings.guidance_scale is not None:
            arguments[family.embedded] = settings.guidance_scale
        if ours := {"pipe", "late_cache"} & arguments.keys():
            raise ConfigError(f"arguments: a pipeline call takes no {', '.join(ours)}")
        return PipelineGenerator(
            load(settings),
            true_cfg_scale=settings.true_cfg_scale,
            negative_steps=settings.negative_steps,
            after=settings.after,
            allow_distilled=settings.allow_distilled,
            late_cache=self._cache,
            **arguments,
        )

    def generate(self, shot: Shot, on_step: OnStep | None = None) -> Render:
        """Make one image; the same shot gives the same bytes.

        Args:
            shot: what to make.
            on_step: called after each denoising step with (steps done, steps in all).

        Raises:
            DeviceLostError: the GPU has failed for good; this process can make no more images.
            ConfigError: an option does not fit the model, the device or what is installed.
            ModelFilesError: diffusers cannot load the directory.
            GeneratorError: out of memory, the model failed, or it made no usable picture.
            PromptError: a text is longer than the model reads, or a negative is its own prompt.
        """
        with torch_threads(self.settings.threads):
            return self._loaded().generate(shot, on_step)

    def leave_device(self) -> None:
        """Give the GPU's memory back; `enter_device`, or the next image, takes it again.

        A model that is offloaded or quantised cannot move as a whole: it is dropped, and loaded
        again when it is needed.
        """
        import torch

        if self._sampler is not None:
            if self._moves:
                self._sampler.pipe.to("cpu")
                self._sampler.free()
            else:
                self._sampler = None
        gc.collect()  # also what a load that failed has left
        torch.cuda.empty_cache()

    def enter_device(self) -> None:
        """Take the GPU's memory again after `leave_device`, if the model is loaded.

        Raises:
            DeviceLostError: the GPU has failed for good.
            GeneratorError: there is not enough.
        """
        if self._sampler is None or not self._moves:
            return
        device = resolve_device(self.settings.device)
        try:
            self._sampler.pipe.to(device)
        except (RuntimeError, MemoryError) as error:
            if is_device_lost(error):
                raise DeviceLostError(f"the GPU failed while taking the model: {error}") from error
            if not is_out_of_memory(error):
                raise GeneratorError(f"the generator cannot move to {device}: {error}") from error
            raise GeneratorError(
                f"out of memory on {device} while moving the generator back to it; let other "
                'programs end, or choose offload = "model" or a quantization'
            ) from error

    @property
    def _moves(self) -> bool:
        settings = self.settings
        return settings.offload == "none" and settings.quantization is None and not settings.gguf

    def fingerprint(self) -> str:
        """Return a SHA-256 over settings, device, library versions and all model files.

        Raises:
            ModelFilesError: a file cannot be read.
        """
        settings = self.settings
        extra = [] if settings.gguf is None else [settings.gguf]
        extra += [lora_file(lora) for lora in settings.loras]
        chosen = settings.model_dump(
            mode="json", exclude={"path", "device", "more_devices", "gguf", "loras"}
        )
        chosen["loras"] = [lora.weight for lora in settings.loras]
        return digest(
            {
                "settings": chosen,
                "device": resolve_device(settings.device),
                "versions": libraries(),
                "files": hash_files(settings.path, [INDEX, *self._components]),
                # By content, not by name: the same LoRA elsewhere is the same.
                "extra": [list(hash_files(file.parent, [file.name]).values()) for file in extra],
            }
        )

    def text_encoder(self, wanted: EncoderSettings) -> HeldEncoder | None:
        """Return the text encoder that `wanted` names, if the pipeline holds it anyway.

        It is loaded with the pipeline, when it is asked for.
        """
        if not wanted.is_held_by(self.settings):
            return None
        bits = self.settings.quantization
        quantized = bits is not None and wanted.text_encoder in bits.components
        return HeldEncoder(
            pipe=lambda: self.pipe,
            quantization=bits.model_dump(mode="json") if bits is not None and quantized else None,
            fingerprint=None,
        )
