"""Tokenizers on disk: today's tokenizer.json, and older files, some of which need a package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from npc_local.core.errors import ConfigError, ModelFilesError
from npc_local.core.files import paths
from npc_local.core.files.fault import Fault, Faults, has_file, json_faults, read_object

_BYTES = "ByT5Tokenizer"  # reads bytes, and so has no vocabulary
_VOCABULARIES = (("vocab.json", "merges.txt"), ("vocab.txt",))  # that need no further package
# Older tokenizers, and the package that reads each.
_PACKAGES = {
    "spiece.model": "sentencepiece",
    "tokenizer.model": "sentencepiece",
    "sentencepiece.bpe.model": "sentencepiece",
}


def tokenizer_faults(folder: Path, *, loaded_here: bool = True) -> Faults:
    """Yield what is wrong with a tokenizer: its files, and packages that old formats need.

    Args:
        folder: where its files are.
        loaded_here: whether by this process; a server has packages of its own.
    """
    if has_file(folder, "tokenizer_config.json") or not has_file(folder, "config.json"):
        yield from json_faults(folder / "tokenizer_config.json")  # else the model says which class
    if has_file(folder, "tokenizer.json"):
        yield from json_faults(folder / "tokenizer.json")
        return
    needed = needed_package(folder)
    if needed is not None:
        file, package = needed
        if loaded_here and importlib.util.find_spec(package) is None:
            yield Fault(
                file,
                f"without a tokenizer.json beside it, it needs {package}, which is not installed",
                f"pip install {package}, or add the model's tokenizer.json",
                ConfigError,
            )
    elif not _has_vocabulary(folder):
        yield Fault(
            folder,
            "no tokenizer.json, nor the older files (vocab.json with merges.txt, "
            f"{', '.join(_PACKAGES)})",
        )


def needed_package(folder: Path) -> tuple[Path, str] | None:
    """Return the file of an older tokenizer that a package has to read, and the package."""
    if has_file(folder, "tokenizer.json"):
        return None
    if _has_vocabulary(folder):
        return None
    for name, package in _PACKAGES.items():
        if has_file(folder, name):
            return folder / name, package
    for file in paths.children(folder, ModelFilesError, "*.tiktoken"):
        return file, "tiktoken"
    return None


def _has_vocabulary(folder: Path) -> bool:
    """Return whether a tokenizer's folder has an older vocabulary, or needs none."""
    if any(all(has_file(folder, name) for name in names) for names in _VOCABULARIES):
        return True
    config = read_object(folder / "tokenizer_config.json")
    return not isinstance(config, Fault) and config.get("tokenizer_class") == _BYTES
