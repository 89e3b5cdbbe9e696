"""Model directories on disk: what is missing or damaged in them, and what is in them.

`faults` and its parts yield whatever would stop a loader: loaders raise the first, `npc-local
doctor` lists all. Configurations and headers of weights are read; no model library is imported,
no code of the directory run, no pickle opened. Left out: whether a model is of use (its loader),
and unsafe or stray files that nobody loads (`npc-local doctor`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from npc_local.core.errors import ModelFilesError
from npc_local.core.files import paths
from npc_local.core.files.fault import (
    AGAIN,
    Fault,
    Faults,
    has_file,
    json_faults,
    raise_first,
    read_object,
)
from npc_local.core.files.hash_cache import file_sha256
from npc_local.core.files.tokenizer import tokenizer_faults
from npc_local.core.files.weights import DIFFUSERS, TRANSFORMERS, weight_faults

INDEX = "model_index.json"
"""What makes a directory a pipeline's."""

_FINGERPRINTED = frozenset({".json", ".txt", ".model", ".safetensors", ".gguf"})
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_STEMS = {"transformers": (TRANSFORMERS,), "diffusers": (DIFFUSERS,)}
_TEMPLATES = ("chat_template.jinja", "chat_template.json", "additional_chat_templates")


def faults(root: Path) -> Faults:
    """Yield all that is missing or damaged in a model directory, whichever kind it is.

    Raises:
        ModelFilesError: it cannot be looked at.
    """
    if not paths.is_dir(root, ModelFilesError):
        yield from directory_faults(root)
    elif paths.is_file(root / INDEX, ModelFilesError):
        yield from pipeline_faults(root)
    elif paths.is_file(root / "config.json", ModelFilesError):
        yield from served_faults(root)
    else:
        yield Fault(
            root,
            f"no model directory: neither {INDEX} nor config.json in it",
            "name the directory that holds one of them",
        )


def directory_faults(root: Path) -> Faults:
    """Yield a fault if a model path is no local directory."""
    if not paths.is_dir(root, ModelFilesError):
        yield Fault(
            root,
            "no such directory. Model paths are local directories, never hub ids such as "
            "'org/name'",
            "download the model first and give the directory it is in",
        )


def pipeline_faults(root: Path, elsewhere: Collection[str] = ()) -> Faults:
    """Yield what is missing or damaged in a pipeline's directory.

    Args:
        root: the directory.
        elsewhere: components whose weights come from another file.
    """
    index = read_object(root / INDEX)
    if isinstance(index, Fault):
        yield index
        return
    for name, (library, kind) in components(index).items():
        yield from component_faults(root / name, library, kind, weights=name not in elsewhere)


def encoder_faults(root: Path, encoder: str, tokenizer: str) -> Faults:
    """Yield what is missing or damaged in a text encoder and its tokenizer, folders in `root`."""
    whole = True
    for fault in directory_faults(root):
        whole = False
        yield fault
    if whole:
        yield from component_faults(root / encoder, "transformers", "the text encoder")
        yield from component_faults(root / tokenizer, "transformers", "Tokenizer")


def served_faults(root: Path, *, own_template: bool = False) -> Faults:
    """Yield what is missing or damaged in the directory of a model that a server loads.

    Args:
        root: the directory.
        own_template: whether the server is given a chat template, so that none need be here.
    """
    config = read_object(root / "config.json")
    if isinstance(config, Fault):
        yield config
        return
    yield from weight_faults(root)
    if not has_file(root, "tekken.json"):  # Mistral's own format, with no further files
        yield from tokenizer_faults(root, loaded_here=False)
    if "vision_config" in config:
        yield from _one_of(root, _PROCESSORS, "the image processor's configuration")
    if not own_template and not _has_template(root):
        yield Fault(
            root,
            "no chat template, neither in tokenizer_config.json nor in chat_template.jinja",
            f"{AGAIN}, or add --chat-template FILE to the server's arguments",
        )


def component_faults(folder: Path, library: str, kind: str, *, weights: bool = True) -> Faults:
    """Yield what is wrong with one folder of a pipeline, by the class that loads it."""
    if not paths.is_dir(folder, ModelFilesError):
        yield Fault(folder, f"no such directory: the folder of {kind} is missing")
    elif "Tokenizer" in kind:
        yield from tokenizer_faults(folder)
    elif "Scheduler" in kind:
        yield from json_faults(folder / "scheduler_config.json")
    elif "Processor" in kind or "FeatureExtractor" in kind:
        yield from _one_of(folder, _PROCESSORS, f"the configuration of {kind}")
    elif "Guid" in kind:  # HunyuanImage's guiders
        yield from json_faults(folder / "guider_config.json")
    else:
        yield from json_faults(folder / "config.json")
        if weights:
            yield from weight_faults(folder, _STEMS.get(library, (TRANSFORMERS, DIFFUSERS)))


def require_directory(path: Path) -> None:
    """Refuse a model path that is not a local directory.

    Raises:
        ModelFilesError: `path` does not exist or is no directory.
    """
    raise_first(directory_faults(path))


def components(index: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Return a pipeline's components with their libraries and classes.

    Other lists of its index are settings of its own.
    """
    return {
        name: (origin[0], origin[1])
        for name, origin in index.items()
        if not name.startswith("_")
        and isinstance(origin, list)
        and len(origin) == 2
        and all(isinstance(part, str) for part in origin)
    }


def hash_files(root: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of each named file and of all model files in each named folder.

    Model files are configurations, vocabularies and weights. Keys are paths relative to `root`.
    Large files are read again only after they have changed (`hash_cache.file_sha256`).

    Raises:
        ModelFilesError: a file cannot be read.
    """
    hashes = {}
    for name in names:
        files = [root / name]
        if paths.is_dir(root / name, ModelFilesError):
            files = paths.children(root / name, ModelFilesError)
        for file in files:
            if file.suffix in _FINGERPRINTED:
                try:
                    digest = file_sha256(file)
                except OSError as error:
                    raise paths.unreadable(file, error, ModelFilesError) from error
                hashes[file.relative_to(root).as_posix()] = digest
    return hashes


def _has_template(root: Path) -> bool:
    """Return whether a directory has a chat template, in whichever place."""
    if any(paths.exists(root / name, ModelFilesError) for name in _TEMPLATES):
        return True
    config = read_object(root / "tokenizer_config.json")
    return not isinstance(config, Fault) and bool(config.get("chat_template"))


def _one_of(folder: Path, names: Collection[str], what: str) -> Faults:
    """Yield a fault if none of some files is there, or one of them is damaged."""
    there = [name for name in names if has_file(folder, name)]
    if not there:
        yield Fault(folder, f"{what} is missing: {' or '.join(names)}")
    for name in there:
        yield from json_faults(folder / name)
