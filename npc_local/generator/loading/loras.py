"""LoRAs into a loaded pipeline, each whole or not at all."""

from __future__ import annotations

import warnings
from pathlib import Path

from npc_local.core.config.settings import LoraSettings
from npc_local.core.errors import ConfigError, ModelFilesError
from npc_local.generator.family import Pipeline, denoiser_of
from npc_local.generator.loading.directory import lora_file
from npc_local.generator.loading.library_errors import LIBRARY_FAILS, fits, need


def add_loras(pipe: Pipeline, loras: list[LoraSettings]) -> None:
    """Load LoRAs into a pipeline, each with its weight."""
    if not loras:
        return
    need("peft", "loras", "lora")
    if not hasattr(pipe, "load_lora_weights"):
        raise ConfigError(f"loras: {type(pipe).__name__} cannot load any; leave them out")
    from safetensors import SafetensorError

    names = []
    for number, lora in enumerate(loras):
        file = lora_file(lora)
        names.append(f"lora_{number}")
        try:
            unmatched = _unmatched(pipe, file)
            with warnings.catch_warnings(action="ignore"):  # of peft, at each LoRA but the first
                pipe.load_lora_weights(
                    str(file.parent),
                    weight_name=file.name,
                    adapter_name=names[-1],
                    local_files_only=True,
                    use_safetensors=True,
                )
        except (*LIBRARY_FAILS, SafetensorError) as error:
            raise ModelFilesError(f"{file}: cannot be loaded as a LoRA: {error}") from error
        if not any(names[-1] in found for found in pipe.get_list_adapters().values()):
            unmatched = ["all of it"]
        if unmatched:
            raise ModelFilesError(
                f"{file}: is for another model than this {type(pipe).__name__}, or in a layout "
                f"that diffusers does not read; nothing here matches {', '.join(unmatched[:3])}"
            )
    with fits("loras"):
        pipe.set_adapters(names, [lora.weight for lora in loras])


def _unmatched(pipe: Pipeline, file: Path) -> list[str]:
    """Return what a LoRA in peft's layout changes and this pipeline's denoiser has not."""
    from safetensors import safe_open

    with safe_open(file, "pt") as tensors:
        changed = [key.split(".lora_A.")[0] for key in tensors.keys() if ".lora_A." in key]  # noqa: SIM118
    part = "transformer" if hasattr(pipe, "transformer") else "unet"
    there = {f"{part}.{name}" for name, _ in denoiser_of(pipe).named_modules()}
    return [name for name in changed if name.startswith(f"{part}.") and name not in there]
