"""What of a generator's settings and files can be told before anything is loaded.

`faults` yields all of it for `npc-local doctor`; `check_directory` raises the first. Nothing heavy
is imported here, and no code in the directory is run.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from npc_local.core.config.settings import GeneratorSettings, LoraSettings
from npc_local.core.errors import ConfigError, ModelFilesError
from npc_local.core.files import paths
from npc_local.core.files.fault import Fault, json_faults, raise_first, read_json
from npc_local.core.files.model_directory import (
    INDEX,
    components,
    directory_faults,
    pipeline_faults,
)
from npc_local.core.files.weights import file_faults, variants
from npc_local.generator.families import checkpoint_name, distilled_error, distilled_name, family_of
from npc_local.generator.family import Family

_DENOISERS = ("transformer", "unet")
_LIBRARIES = ("diffusers", "transformers")  # of components; anything else is code in the directory
_GGUF = b"GGUF"  # how such files begin


def check_directory(settings: GeneratorSettings) -> tuple[Family, list[str]]:
    """Check a pipeline directory without loading it; return its family and components' folders.

    Raises:
        ConfigError: the pipeline cannot take a negative prompt, makes no image of that size, or
            runs code of its own.
        ModelFilesError: the directory, or something that the settings name, is incomplete.
    """
    raise_first(faults(settings))
    index = read_json(settings.path / INDEX)
    return family_of(str(index["_class_name"])), list(components(index))


def faults(settings: GeneratorSettings, *, sizes: bool = True) -> Iterator[Fault]:
    """Yield all that keeps a generator from being loaded, as far as files tell.

    Args:
        settings: its entry.
        sizes: whether its height and width count.
    """
    missing = list(directory_faults(settings.path)) or list(json_faults(settings.path / INDEX))
    yield from missing
    if missing:
        return
    index = read_json(settings.path / INDEX)
    try:
        family = family_of(str(index.get("_class_name")))
    except ConfigError as error:
        yield Fault(settings.path / INDEX, str(error), "", ConfigError)
        return
    yield from _distilled(settings, family, index)
    for name, (library, _) in components(index).items():
        if library not in _LIBRARIES and not _is_part_of_diffusers(library):
            yield Fault(
                settings.path / INDEX,
                f"{name} comes from {library!r}; no code is run from a model directory, components "
                f"come from {' or '.join(_LIBRARIES)}",
                "",
                ConfigError,
            )
    yield from pipeline_faults(settings.path, () if settings.gguf is None else _DENOISERS)
    try:
        weights_variant(settings, components(index))
    except ModelFilesError as error:
        yield Fault(settings.path, str(error), "")
    if settings.gguf is not None:
        yield from _gguf_faults(settings.gguf)
    for lora in settings.loras:
        yield from lora_faults(lora)
    if sizes:
        yield from _size_faults(settings, family)


def weights_variant(settings: GeneratorSettings, folders: Iterable[str]) -> str | None:
    """Return which variant of its weights a directory holds, such as "fp16"; None: the plain ones.

    Many people fetch one variant only. Where a folder holds several, fp16 is taken.

    Raises:
        ModelFilesError: a folder's variants are not those of another folder.
    """
    choices: dict[str, set[str]] = {}
    for name in folders:
        replaced = settings.gguf is not None and name in _DENOISERS
        if not replaced and paths.is_dir(settings.path / name, ModelFilesError):
            choices[name] = variants(settings.path / name)
    choices = {name: held for name, held in choices.items() if held}
    if not choices:
        return None
    common = set.intersection(*choices.values())
    if "fp16" in common or len(common) == 1:
        return "fp16" if "fp16" in common else common.pop()
    listed = " and ".join(f"{name}: {', '.join(sorted(held))}" for name, held in choices.items())
    raise ModelFilesError(
        f"these folders hold variants of their weights and not the plain ones, and not one variant "
        f"in common ({listed}); get the same variant of all, or the plain weights"
    )


def lora_file(lora: LoraSettings) -> Path:
    """Return the safetensors file of a LoRA.

    Raises:
        ModelFilesError: there is none, there are several, or it is damaged.
    """
    raise_first(lora_faults(lora))
    return _lora_files(lora)[0]


def lora_faults(lora: LoraSettings) -> Iterator[Fault]:
    """Yield what is wrong with the file of a LoRA."""
    if not paths.exists(lora.path, ModelFilesError):
        yield Fault(lora.path, "no such file or directory (loras)", "")
        return
    files = _lora_files(lora)
    if (
        len(files) != 1
        or not paths.is_file(files[0], ModelFilesError)
        or files[0].suffix != ".safetensors"
    ):
        listed = ", ".join(file.name for file in files) or "none"
        yield Fault(
            lora.path,
            f"must be a .safetensors file, or a directory with one (found: {listed})",
            "",
        )
    else:
        yield from file_faults(files[0])


def _lora_files(lora: LoraSettings) -> list[Path]:
    if paths.is_dir(lora.path, ModelFilesError):
        return paths.children(lora.path, ModelFilesError, "*.safetensors")
    return [lora.path]


def _distilled(
    settings: GeneratorSettings, family: Family, index: dict[str, Any]
) -> Iterator[Fault]:
    """Yield a fault if a checkpoint or a LoRA is made to be sampled without CFG."""
    if settings.allow_distilled:
        return
    named = [settings.path, *([settings.gguf] if settings.gguf else [])]
    for lora in settings.loras:
        named += [lora.path]
        if paths.exists(lora.path, ModelFilesError):
            named += _lora_files(lora)
    signs = [distilled_name(family, checkpoint_name(path)) for path in named]
    if index.get("is_distilled"):
        signs.append("its is_distilled is true")
    for sign in filter(None, signs):
        yield Fault(settings.path, str(distilled_error(family, sign)), "", ConfigError)
        return


def _gguf_faults(file: Path) -> Iterator[Fault]:
    if not paths.is_file(file, ModelFilesError):
        yield Fault(file, "no such file (gguf)", "copy it there, or correct the setting")
    elif file.suffix != ".gguf":
        yield Fault(file, "must be a .gguf file (gguf)", "")
    else:
        try:
            with file.open("rb") as stream:
                begins = stream.read(len(_GGUF))
        except OSError as error:
            yield Fault(file, f"cannot be read: {paths.reason(error)}", "check its permissions")
            return
        if begins != _GGUF:
            yield Fault(file, "damaged, or not a GGUF file by its first bytes", "copy it again")


def _size_faults(settings: GeneratorSettings, family: Family) -> Iterator[Fault]:
    """Yield a fault for each side of an image that the model cannot make."""
    folder = settings.path / "vae"
    if list(json_faults(folder / "config.json")):
        return  # said already, or a pipeline without one
    scale = vae_scale(read_json(folder / "config.json"))
    if scale is None:
        return  # told when the model is loaded
    multiple = scale * family.size_multiple
    for side, size in (("height", settings.height), ("width", settings.width)):
        if size % multiple:
            yield Fault(
                settings.path,
                f"{side} = {size}: must be a multiple of {multiple} for this model",
                "",
                ConfigError,
            )


def vae_scale(config: dict[str, Any]) -> int | None:
    """Return how many pixels of a side a VAE makes of one latent; None: its configuration is mute.

    diffusers' pipelines read it off the same fields.
    """
    for field in ("spatial_compression_ratio", "scale_factor_spatial"):
        if isinstance(config.get(field), int):
            return int(config[field])
    for field, first in (
        ("temperal_downsample", 0),  # so spelt in diffusers
        ("encoder_block_out_channels", 1),
        ("block_out_channels", 1),
    ):
        if isinstance(blocks := config.get(field), list):
            return int(2 ** (len(blocks) - first))
    return None


def _is_part_of_diffusers(library: str) -> bool:
    """Whether a component's library is a pipeline folder of diffusers itself, as Kolors' is."""
    spec = importlib.util.find_spec("diffusers")
    if spec is None or spec.origin is None or not library.isidentifier():
        return False
    package = Path(spec.origin).parent / "pipelines" / library
    return paths.is_file(package / "__init__.py", ConfigError)
