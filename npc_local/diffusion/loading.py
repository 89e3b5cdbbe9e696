"""A pipeline directory on disk to a pipeline on its device, as `[generators.NAME]` says.

Nothing is fetched, no code from the directory is run, and only safetensors and GGUF are read.
Every option that does not fit the model or the machine is refused with what would fit. Leaves
out: calling the pipeline (`sampling`).
"""

from __future__ import annotations

import importlib.util
import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from npc_local.device import resolve_device
from npc_local.diffusion.families import distilled_error, distilled_name, family_of
from npc_local.diffusion.family import Family, Pipeline, denoiser_of
from npc_local.errors import ConfigError, ModelFilesError
from npc_local.model_files import check_weights, read_json, require_directory
from npc_local.offline import go_offline
from npc_local.settings import GeneratorSettings, LoraSettings, QuantizationSettings

INDEX = "model_index.json"
_LIBRARY_FAILS = (
    OSError,
    ValueError,
    TypeError,
    RuntimeError,
    LookupError,
    AttributeError,
    AssertionError,
    ImportError,
)
_TORCHAO = {
    "torchao_int8": "Int8WeightOnlyConfig",
    "torchao_float8": "Float8DynamicActivationFloat8WeightConfig",
}
_TAKEN = frozenset({"load_in_8bit", "load_in_4bit", "kwargs"})  # options that are not the user's
_LIBRARIES = ("diffusers", "transformers")  # of components; anything else is code in the directory


def check_directory(settings: GeneratorSettings) -> tuple[Family, list[str]]:
    """Check a pipeline directory without loading it; return its family and components' folders.

    Raises:
        ConfigError: the pipeline cannot take a negative prompt, or runs code of its own.
        ModelFilesError: the directory, or something that the settings name, is incomplete.
    """
    require_directory(settings.path)
    index = settings.path / INDEX
    parts = read_json(index)
    try:
        family = family_of(str(parts.get("_class_name")))
    except ConfigError as error:
        raise ConfigError(f"{index}: {error}") from None
    if not settings.allow_distilled:
        named = [settings.path, *([settings.gguf] if settings.gguf else [])]
        for lora in settings.loras:
            named += [lora.path, lora_file(lora)]
        for one in named:
            if sign := distilled_name(family, one.name):
                raise distilled_error(family, sign)
        if parts.get("is_distilled"):
            raise distilled_error(family, "its is_distilled is true")
    folders = []
    for name, library in _components(parts).items():
        if library not in _LIBRARIES and not _is_part_of_diffusers(library):
            raise ConfigError(
                f"{index}: {name} comes from {library!r}; no code is run from a model "
                f"directory, components come from {' or '.join(_LIBRARIES)}"
            )
        check_weights(settings.path / name)
        folders.append(name)
    if settings.gguf is not None:
        if not settings.gguf.is_file():
            raise ModelFilesError(f"{settings.gguf}: no such file (gguf)")
        if settings.gguf.suffix != ".gguf":
            raise ModelFilesError(f"{settings.gguf}: must be a .gguf file (gguf)")
    for lora in settings.loras:
        lora_file(lora)
    return family, folders


def lora_file(lora: LoraSettings) -> Path:
    """Return the safetensors file of a LoRA.

    Raises:
        ModelFilesError: there is none, or several.
    """
    if not lora.path.exists():
        raise ModelFilesError(f"{lora.path}: no such file or directory (loras)")
    files = sorted(lora.path.glob("*.safetensors")) if lora.path.is_dir() else [lora.path]
    if len(files) != 1 or not files[0].is_file() or files[0].suffix != ".safetensors":
        found = ", ".join(file.name for file in files) or "none"
        raise ModelFilesError(
            f"{lora.path}: must be a .safetensors file, or a directory with one (found: {found})"
        )
    return files[0]


def load(settings: GeneratorSettings) -> Pipeline:
    """Load the pipeline of a checked directory and place it on its device.

    Raises:
        ConfigError: an option does not fit the model, the device or what is installed.
        ModelFilesError: diffusers cannot load the directory.
    """
    go_offline()
    import diffusers
    import torch
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    device = resolve_device(settings.device)
    _check_dtype(device, settings.dtype)
    pipe = _from_directory(settings)
    pipe.set_progress_bar_config(disable=True)
    _add_loras(pipe, settings.loras)
    denoiser = denoiser_of(pipe)
    if settings.attention is not None:
        _attend(denoiser, settings.attention, device, getattr(torch, settings.dtype))
    if settings.vae_tiling:
        with _fits("vae_tiling = true"):
            pipe.vae.enable_tiling()
    if settings.cache is not None:
        _try_cache(denoiser, late_cache(settings, family_of(type(pipe))), settings.cache.kind)
    _place(pipe, device, settings.offload)
    if settings.compile:
        with _fits("compile = true"):
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
            f"{kind}: {family.pipeline} does not tell diffusers' caches its conditional and "
            "unconditional predictions apart; leave cache out"
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


def _components(index: dict[str, Any]) -> dict[str, str]:
    """Return a pipeline's components and their libraries; other lists are settings of its own."""
    return {
        name: origin[0]
        for name, origin in index.items()
        if not name.startswith("_")
        and isinstance(origin, list)
        and len(origin) == 2
        and all(isinstance(part, str) for part in origin)
    }


def _is_part_of_diffusers(library: str) -> bool:
    """Whether a component's library is a pipeline folder of diffusers itself, as Kolors' is."""
    spec = importlib.util.find_spec("diffusers")
    if spec is None or spec.origin is None or not library.isidentifier():
        return False
    return (Path(spec.origin).parent / "pipelines" / library / "__init__.py").is_file()


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
            options |= _gguf_denoiser(settings, index)
        if settings.quantization is not None:
            options["quantization_config"] = _quantization(settings, index, dtype)
        return kind.from_pretrained(
            settings.path, local_files_only=True, use_safetensors=True, dtype=dtype, **options
        )
    except (*_LIBRARY_FAILS, SafetensorError) as error:
        raise ModelFilesError(f"{settings.path}: cannot be loaded: {error}") from error


def _gguf_denoiser(settings: GeneratorSettings, index: dict[str, Any]) -> dict[str, Any]:
    """Load the denoiser from a GGUF file, with its configuration from the directory."""
    import diffusers
    import torch

    _need("gguf", "gguf = ...", "quantization")
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
    except _LIBRARY_FAILS as error:
        raise ModelFilesError(
            f"{settings.gguf}: damaged, or not the {part} of {settings.path} in a layout that "
            f"diffusers reads: {error}"
        ) from error
    return {part: denoiser}


def _quantization(settings: GeneratorSettings, index: dict[str, Any], dtype: Any) -> Any:
    """Return diffusers' configuration that quantises the wanted components while loading."""
    import diffusers
    import transformers

    wanted = settings.quantization
    assert wanted is not None
    kind = f"quantization: kind = {wanted.kind!r}"
    known = _components(index)
    for name in wanted.components:
        if name not in known:
            raise ConfigError(
                f"quantization: no component {name!r}; this pipeline has {', '.join(known)}"
            )
    if wanted.kind != "torchao_int8" and resolve_device(settings.device) == "cpu":
        raise ConfigError(f"{kind} needs a GPU; use 'torchao_int8' on the CPU")
    _need(wanted.kind.split("_")[0], kind, "quantization")
    mapping = {}
    for name in wanted.components:
        library: Any = transformers if known[name] == "transformers" else diffusers
        with _fits(f"quantization: options = {wanted.options}"):
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
        from torchao import quantization

        kind = getattr(quantization, _TORCHAO[wanted.kind])
    # bitsandbytes' configurations would take any option and drop what they do not know.
    takes = [name for name in inspect.signature(kind).parameters if name not in _TAKEN | {*fixed}]
    for name in wanted.options:
        if name not in takes:
            raise ValueError(f"no option {name!r}, there are {', '.join(takes)}")
    made = kind(**fixed, **wanted.options)
    return made if fixed else library.TorchAoConfig(made)


def _add_loras(pipe: Pipeline, loras: list[LoraSettings]) -> None:
    """Load LoRAs into a pipeline, each with its weight."""
    if not loras:
        return
    _need("peft", "loras", "lora")
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
        except (*_LIBRARY_FAILS, SafetensorError) as error:
            raise ModelFilesError(f"{file}: cannot be loaded as a LoRA: {error}") from error
        if not any(names[-1] in found for found in pipe.get_list_adapters().values()):
            unmatched = ["all of it"]
        if unmatched:
            raise ModelFilesError(
                f"{file}: is for another model than this {type(pipe).__name__}, or in a layout "
                f"that diffusers does not read; nothing here matches {', '.join(unmatched[:3])}"
            )
    with _fits("loras"):
        pipe.set_adapters(names, [lora.weight for lora in loras])


def _unmatched(pipe: Pipeline, file: Path) -> list[str]:
    """Return what a LoRA in peft's layout changes and this pipeline's denoiser has not."""
    from safetensors import safe_open

    with safe_open(file, "pt") as tensors:
        changed = [key.split(".lora_A.")[0] for key in tensors.keys() if ".lora_A." in key]  # noqa: SIM118
    part = "transformer" if hasattr(pipe, "transformer") else "unet"
    there = {f"{part}.{name}" for name, _ in denoiser_of(pipe).named_modules()}
    return [name for name in changed if name.startswith(f"{part}.") and name not in there]


def _attend(denoiser: Any, backend: str, device: str, dtype: Any) -> None:
    """Choose what computes the denoiser's attention, and try it out."""
    import torch
    from diffusers.models.attention_dispatch import (
        AttentionBackendName,
        attention_backend,
        dispatch_attention_fn,
    )

    setting = f"attention = {backend!r}"
    known = [one.value for one in AttentionBackendName if not one.value.endswith("_hub")]
    if backend not in known:
        raise ConfigError(
            f"{setting}: there is none, or it is fetched from the hub, which never happens here; "
            f"choose one of {', '.join(known)}"
        )
    processors = [getattr(part, "processor", None) for part in denoiser.modules()]
    if not any(hasattr(processor, "_attention_backend") for processor in processors):
        raise ConfigError(f"{setting}: {type(denoiser).__name__} takes none; leave attention out")
    # The context keeps the choice from becoming the default of all other models.
    with _fits(setting), attention_backend(backend):
        denoiser.set_attention_backend(backend)
        one = torch.zeros(1, 16, 1, 64, device=device, dtype=dtype)
        dispatch_attention_fn(one, one, one, backend=AttentionBackendName(backend))


def _try_cache(denoiser: Any, make: Callable[[], Any] | None, kind: str) -> None:
    """Refuse a cache that diffusers knows no blocks of this denoiser for."""
    if make is not None:
        with _fits(f"cache: kind = {kind!r}"):
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
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"the model does not fit into the memory of {device!r} with offload = {offload!r}: "
            "set offload = 'model' ('sequential' needs least), dtype = 'bfloat16', quantization or "
            "gguf, or free the device of other programs"
        ) from error
    except _LIBRARY_FAILS as error:
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
        except _LIBRARY_FAILS as error:
            what = f"device {device!r}" if kind == "float32" else f"dtype {kind} on {device!r}"
            raise ConfigError(f"{what} cannot be used: {error}") from error


def _need(package: str, setting: str, extra: str) -> None:
    """Refuse a setting whose package is not installed, and say how to install it."""
    if importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"{setting} needs {package}, which is not installed: pip install 'npc-local[{extra}]'"
        )


@contextmanager
def _fits(setting: str) -> Iterator[None]:
    """Turn a library's refusal of a setting into ours."""
    try:
        yield
    except AttributeError as error:
        raise ConfigError(f"{setting}: this model has no such option ({error})") from error
    except _LIBRARY_FAILS as error:
        raise ConfigError(f"{setting} does not fit this model or machine: {error}") from error
