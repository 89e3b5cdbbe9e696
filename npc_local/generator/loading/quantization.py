"""Weights in fewer bits: quantised while loading, or read from a GGUF file."""

from __future__ import annotations

import inspect
from typing import Any

from npc_local.core.config.settings import GeneratorSettings, QuantizationSettings
from npc_local.core.device import resolve_device
from npc_local.core.errors import ConfigError, ModelFilesError
from npc_local.core.files.model_directory import components
from npc_local.generator.loading.library_errors import LIBRARY_FAILS, fits, need

_TORCHAO = {
    "torchao_int8": "Int8WeightOnlyConfig",
    "torchao_float8": "Float8DynamicActivationFloat8WeightConfig",
}
_TAKEN = frozenset({"load_in_8bit", "load_in_4bit", "kwargs"})  # options that are not the user's


def gguf_denoiser(settings: GeneratorSettings, index: dict[str, Any]) -> dict[str, Any]:
    """Load the denoiser from a GGUF file, with its configuration from the directory."""
    import diffusers
    import torch

    need("gguf", "gguf = ...", "quantization")
    classes: Any = diffusers
    part = "transformer" if "transformer" in index else "unet"
    kind = getattr(classes, index[part][1])
    if not hasattr(kind, "from_single_file"):
        raise ConfigError(f"gguf: diffusers cannot load {index[part][1]} from one file")
    dtype = getattr(torch, settings.dtype)
    try:
        denoiser = kind.from_single_file(
            str(settings.gguf),
            config=str(settings.path),
            subfolder=part,
            quantization_config=classes.GGUFQuantizationConfig(compute_dtype=dtype),
            dtype=dtype,
            local_files_only=True,
        )
    except LIBRARY_FAILS as error:
        raise ModelFilesError(
            f"{settings.gguf}: damaged, or not the {part} of {settings.path} in a layout that "
            f"diffusers reads: {error}"
        ) from error
    return {part: denoiser}


def quantization(settings: GeneratorSettings, index: dict[str, Any], dtype: Any) -> Any:
    """Return diffusers' configuration that quantises the wanted components while loading."""
    import diffusers
    import transformers

    wanted = settings.quantization
    assert wanted is not None
    kind = f"quantization: kind = {wanted.kind!r}"
    known = components(index)
    for name in wanted.components:
        if name not in known:
            raise ConfigError(
                f"quantization: no component {name!r}; this pipeline has {', '.join(known)}"
            )
    if wanted.kind != "torchao_int8" and resolve_device(settings.device) == "cpu":
        raise ConfigError(f"{kind} needs a GPU; use 'torchao_int8' on the CPU")
    need(wanted.kind.split("_")[0], kind, "quantization")
    mapping = {}
    for name in wanted.components:
        library: Any = transformers if known[name][0] == "transformers" else diffusers
        with fits(f"quantization: options = {wanted.options}"):
            mapping[name] = _quantizer(wanted, library, dtype)
    classes: Any = diffusers
    return classes.PipelineQuantizationConfig(quant_mapping=mapping)


def _quantizer(wanted: QuantizationSettings, library: Any, dtype: Any) -> Any:
    """Return one component's quantiser, from the library that the component comes from."""
    kind: Any
    fixed: dict[str, Any] = {}
    if wanted.kind.startswith("bitsandbytes"):
        kind, fixed = library.BitsAndBytesConfig, {f"load_in_{wanted.kind[-4:]}": True}
        if wanted.kind == "bitsandbytes_4bit":
            fixed["bnb_4bit_compute_dtype"] = dtype
    else:
        import torchao.quantization as torchao

        kind = getattr(torchao, _TORCHAO[wanted.kind])
    # bitsandbytes' configurations would take any option and drop what they do not know.
    takes = [name for name in inspect.signature(kind).parameters if name not in _TAKEN | {*fixed}]
    for name in wanted.options:
        if name not in takes:
            raise ValueError(f"no option {name!r}, there are {', '.join(takes)}")
    made = kind(**fixed, **wanted.options)
    return made if fixed else library.TorchAoConfig(made)
