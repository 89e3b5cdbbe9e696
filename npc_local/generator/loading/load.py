"""A pipeline directory on disk to a pipeline on its device, as `[generators.NAME]` says.

Nothing is fetched, no code from the directory is run, and only safetensors and GGUF are read.
Every option that does not fit the model or the machine is refused with what would fit. Leaves
out: checking the directory (`directory`), calling the pipeline (`pipeline_generator`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from npc_local.core.config.settings import GeneratorSettings
from npc_local.core.device import resolve_device
from npc_local.core.device_errors import is_out_of_memory
from npc_local.core.errors import ConfigError, ModelFilesError
from npc_local.core.files.fault import read_json
from npc_local.core.files.model_directory import INDEX, components
from npc_local.core.offline.switches import go_offline
from npc_local.generator.families import family_of
from npc_local.generator.family import Family, Pipeline, denoiser_of
from npc_local.generator.loading.directory import weights_variant
from npc_local.generator.loading.library_errors import LIBRARY_FAILS, fits, raise_if_lost
from npc_local.generator.loading.loras import add_loras
from npc_local.generator.loading.quantization import gguf_denoiser, quantization


def load(settings: GeneratorSettings) -> Pipeline:
    """Load the pipeline of a checked directory and place it on its device.

    Raises:
        ConfigError: an option does not fit the model, the device or what is installed.
        DeviceLostError: the GPU has failed for good.
        ModelFilesError: diffusers cannot load the directory.
    """
    go_offline()
    import diffusers
    import torch
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    device = resolve_device(settings.device)
    _check_dtype(device, settings.dtype)
    pipe = _from_directory(settings)
    pipe.set_progress_bar_config(disable=True)
    add_loras(pipe, settings.loras)
    denoiser = denoiser_of(pipe)
    if settings.attention is not None:
        _attend(pipe, settings.attention, device, getattr(torch, settings.dtype))
    if settings.vae_tiling:
        with fits("vae_tiling = true"):
            pipe.vae.enable_tiling()
    if settings.cache is not None:
        _try_cache(denoiser, late_cache(settings, family_of(type(pipe))), settings.cache.kind)
    _place(pipe, device, settings.offload)
    if settings.compile:
        with fits("compile = true"):
            if device == "cpu":
                from torch._inductor.cpp_builder import get_cpp_compiler

                get_cpp_compiler()  # raises if there is none, before the first image would
            denoiser.compile_repeated_blocks()
    return pipe


def late_cache(settings: GeneratorSettings, family: Family) -> Callable[[], Any] | None:
    """Return what makes diffusers' cache configuration for the late steps; None: no cache.

    Raises:
        ConfigError: diffusers has no such cache for this family.
    """
    cache = settings.cache
    if cache is None:
        return None
    kind = f"cache: kind = {cache.kind!r}"
    if not family.caches:
        raise ConfigError(
            f"{kind}: diffusers' caches do not work with {family.pipeline}; leave cache out"
        )
    if cache.kind == "mag" and family.pipeline != "FluxPipeline":
        raise ConfigError(
            f"{kind} is measured for FLUX.1 only; use 'first-block' for {family.name}"
        )
    late = settings.steps - settings.negative_steps

    def make() -> Any:
        import diffusers
        from diffusers.hooks.mag_cache import FLUX_MAG_RATIOS, nearest_interp

        classes: Any = diffusers
        if cache.kind == "first-block":
            return classes.FirstBlockCacheConfig(threshold=cache.threshold)
        # One ratio a step; the cache begins counting with the first late one.
        ratios = nearest_interp(FLUX_MAG_RATIOS, settings.steps)[settings.negative_steps :]
        return classes.MagCacheConfig(
            threshold=cache.threshold, num_inference_steps=late, mag_ratios=ratios
        )

    return make if late > 0 else None


def _from_directory(settings: GeneratorSettings) -> Pipeline:
    """Load all parts of a pipeline, quantised where asked for."""
    import diffusers
    import torch
    from safetensors import SafetensorError

    dtype = getattr(torch, settings.dtype)
    index = read_json(settings.path / INDEX)
    kind = getattr(diffusers, index["_class_name"])
    options: dict[str, Any] = {}
    try:
        if settings.gguf is not None:
            options |= gguf_denoiser(settings, index)
        if settings.quantization is not None:
            options["quantization_config"] = quantization(settings, index, dtype)
        return kind.from_pretrained(
            settings.path,
            local_files_only=True,
            use_safetensors=True,
            dtype=dtype,
            variant=weights_variant(settings, components(index)),
            **options,
        )
    except (*LIBRARY_FAILS, SafetensorError) as error:
        raise_if_lost(error)
        if is_out_of_memory(error):
            raise ConfigError(
                f"{settings.path}: too little memory to load the model; set dtype = 'bfloat16', "
                f"quantization or gguf, or let other programs end. It said: {_words(error)}"
            ) from error
        raise ModelFilesError(f"{settings.path}: cannot be loaded: {error}") from error


def _words(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _attend(pipe: Pipeline, backend: str, device: str, dtype: Any) -> None:
    """Choose what computes the denoiser's attention, and try it out as the denoiser will use it.

    Raises:
        ConfigError: there is no such backend, or it cannot compute this model's attention here.
    """
    import torch
    from diffusers.models.attention_dispatch import (
        AttentionBackendName,
        attention_backend,
        dispatch_attention_fn,
    )

    denoiser, family = denoiser_of(pipe), family_of(type(pipe))
    setting = f"attention = {backend!r}"
    known = [name.value for name in AttentionBackendName if not name.value.endswith("_hub")]
    if backend not in known:
        raise ConfigError(
            f"{setting}: there is none, or it is fetched from the hub, which never happens here; "
            f"choose one of {', '.join(known)}"
        )
    processors = [getattr(part, "processor", None) for part in denoiser.modules()]
    if not any(hasattr(processor, "_attention_backend") for processor in processors):
        raise ConfigError(f"{setting}: {type(denoiser).__name__} takes none; leave attention out")
    # The context keeps the choice from becoming the default of all other models.
    with fits(setting), attention_backend(backend):
        denoiser.set_attention_backend(backend)
        width = denoiser.config.get("attention_head_dim")
        width = width if isinstance(width, int) else 64
        tokens = torch.zeros(1, _TOKENS, 1, width, device=device, dtype=dtype)
        mask = _attention_mask(family, tokens)
        dispatch_attention_fn(
            tokens, tokens, tokens, attn_mask=mask, backend=AttentionBackendName(backend)
        )


_TOKENS = 16  # that an attention backend is tried out with


def _attention_mask(family: Family, tokens: Any) -> Any:
    """Return a mask as the family's attention is given one; the last token is padding."""
    import torch

    if family.attention_mask is None:
        return None
    is_read = torch.ones(1, 1, 1, _TOKENS, dtype=torch.bool, device=tokens.device)
    is_read[..., -1] = False
    if family.attention_mask == "keys":
        return is_read
    pairs = is_read.expand(1, 1, _TOKENS, _TOKENS).contiguous()
    return pairs if family.attention_mask == "pairs" else pairs.to(tokens.dtype)


def _try_cache(denoiser: Any, make: Callable[[], Any] | None, kind: str) -> None:
    """Refuse a cache that diffusers knows no blocks of this denoiser for."""
    if make is not None:
        with fits(f"cache: kind = {kind!r}"):
            denoiser.enable_cache(make())
            denoiser.disable_cache()


def _place(pipe: Pipeline, device: str, offload: str) -> None:
    """Move the pipeline to its device, or let it be moved there part by part."""
    if offload != "none" and device == "cpu":
        raise ConfigError(f"offload = {offload!r} needs a GPU; this generator runs on the CPU")
    import torch

    try:
        if offload == "model":
            pipe.enable_model_cpu_offload(device=device)
        elif offload == "sequential":
            pipe.enable_sequential_cpu_offload(device=device)
        elif offload == "group":
            pipe.enable_group_offload(
                onload_device=torch.device(device),
                offload_type="leaf_level",
                use_stream=device.startswith("cuda"),
            )
        else:
            pipe.to(device)
    except LIBRARY_FAILS as error:
        raise_if_lost(error)
        if is_out_of_memory(error):
            raise ConfigError(
                f"the model does not fit into the memory of {device!r} with offload = {offload!r}: "
                "set offload = 'model' ('sequential' needs least), dtype = 'bfloat16', "
                "quantization or gguf, or free the device of other programs"
            ) from error
        raise ConfigError(
            f"device {device!r} with offload = {offload!r} cannot be used: {error}"
        ) from error


def _check_dtype(device: str, dtype: str) -> None:
    """Refuse a device that is not there, and a dtype that it cannot compute in."""
    import torch

    for kind in ("float32", dtype):
        try:
            sides = torch.ones(2, 2, dtype=getattr(torch, kind), device=device)
            torch.nn.functional.conv2d(sides[None, None] @ sides, sides[None, None])
        except LIBRARY_FAILS as error:
            raise_if_lost(error)
            what = f"device {device!r}" if kind == "float32" else f"dtype {kind} on {device!r}"
            raise ConfigError(f"{what} cannot be used: {error}") from error
