"""A pipeline directory on disk, looked at without loading it: what it is, and whether it is whole.

Nothing heavy is imported here, and no code in the directory is run.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from npc_local.core.config.settings import GeneratorSettings, LoraSettings
from npc_local.core.errors import ConfigError, ModelFilesError
from npc_local.core.files import paths
from npc_local.core.files.model_directory import check_weights, read_json, require_directory
from npc_local.generator.families import checkpoint_name, distilled_error, distilled_name, family_of
from npc_local.generator.family import Family

INDEX = "model_index.json"
_DENOISERS = ("transformer", "unet")
# The names that diffusers and transformers look for, whole or in shards.
_WEIGHTS = re.compile(
    r"(diffusion_pytorch_model|model)(\.(?P<variant>[^.-]+))?(-\d+-of-\d+)?\.safetensors"
)
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
        for path in named:
            if sign := distilled_name(family, checkpoint_name(path)):
                raise distilled_error(family, sign)
        if parts.get("is_distilled"):
            raise distilled_error(family, "its is_distilled is true")
    folders = []
    for name, library in components(parts).items():
        if library not in _LIBRARIES and not _is_part_of_diffusers(library):
            raise ConfigError(
                f"{index}: {name} comes from {library!r}; no code is run from a model "
                f"directory, components come from {' or '.join(_LIBRARIES)}"
            )
        check_weights(settings.path / name)
        folders.append(name)
    if settings.gguf is not None:
        if not paths.is_file(settings.gguf, ModelFilesError):
            raise ModelFilesError(f"{settings.gguf}: no such file (gguf)")
        if settings.gguf.suffix != ".gguf":
            raise ModelFilesError(f"{settings.gguf}: must be a .gguf file (gguf)")
    for lora in settings.loras:
        lora_file(lora)
    weights_variant(settings, folders)
    return family, folders


def weights_variant(settings: GeneratorSettings, folders: Iterable[str]) -> str | None:
    """Return which variant of its weights a directory holds, such as "fp16"; None: the plain ones.

    Many people fetch one variant only. Where a folder holds several, fp16 is taken.

    Raises:
        ModelFilesError: a folder's weights have names that are not looked for, or its variants are
            not those of another folder.
    """
    choices: dict[Path, set[str]] = {}
    for name in folders:
        folder = settings.path / name
        files = paths.children(folder, ModelFilesError, "*.safetensors")
        if not files or (settings.gguf is not None and name in _DENOISERS):
            continue
        matches = [match for file in files if (match := _WEIGHTS.fullmatch(file.name))]
        if not matches:
            raise ModelFilesError(
                f"{files[0]}: weights of this name are not looked for; they must be called "
                "model.safetensors or diffusion_pytorch_model.safetensors, or be shards or a "
                "variant of these, such as model.fp16.safetensors"
            )
        variants = {match["variant"] for match in matches}
        if None not in variants:
            choices[folder] = variants
    if not choices:
        return None
    common = set.intersection(*choices.values())
    if "fp16" in common or len(common) == 1:
        return "fp16" if "fp16" in common else common.pop()
    listed = "; ".join(
        f"{folder}: {', '.join(sorted(variants))}" for folder, variants in choices.items()
    )
    raise ModelFilesError(
        f"these folders hold variants of their weights and not the plain ones, and not one variant "
        f"in common ({listed}); get the same variant of all, or the plain weights"
    )


def lora_file(lora: LoraSettings) -> Path:
    """Return the safetensors file of a LoRA.

    Raises:
        ModelFilesError: there is none, or several.
    """
    if not paths.exists(lora.path, ModelFilesError):
        raise ModelFilesError(f"{lora.path}: no such file or directory (loras)")
    files = [lora.path]
    if paths.is_dir(lora.path, ModelFilesError):
        files = paths.children(lora.path, ModelFilesError, "*.safetensors")
    if (
        len(files) != 1
        or not paths.is_file(files[0], ModelFilesError)
        or files[0].suffix != ".safetensors"
    ):
        found = ", ".join(file.name for file in files) or "none"
        raise ModelFilesError(
            f"{lora.path}: must be a .safetensors file, or a directory with one (found: {found})"
        )
    return files[0]


def components(index: dict[str, Any]) -> dict[str, str]:
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
    package = Path(spec.origin).parent / "pipelines" / library
    return paths.is_file(package / "__init__.py", ConfigError)
