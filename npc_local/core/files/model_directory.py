"""Model directories on disk: are they there and whole, and what is in them.

Reads files only; importing a model library is left to whoever loads the model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from npc_local.core.errors import ModelFilesError
from npc_local.core.files import paths
from npc_local.core.files.hash_cache import file_sha256

_REMEDY = "copy or download the model directory again"
_FINGERPRINTED = frozenset({".json", ".txt", ".model", ".safetensors", ".gguf"})
_PICKLED = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl"})


def require_directory(path: Path) -> None:
    """Refuse a model path that is not a local directory.

    Raises:
        ModelFilesError: `path` does not exist or is no directory.
    """
    if not paths.is_dir(path, ModelFilesError):
        raise ModelFilesError(
            f"{path}: no such directory. Model paths are local directories, never hub ids "
            "such as 'org/name'; download the model first and give the directory it is in"
        )


def read_json(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file of a model directory.

    Raises:
        ModelFilesError: the file is missing, unreadable, or holds no JSON object.
    """
    if not paths.exists(file, ModelFilesError):
        raise ModelFilesError(f"{file}: missing; {_REMEDY}")
    try:
        found = json.loads(paths.read(file, ModelFilesError))
    except ValueError as error:
        raise ModelFilesError(f"{file}: cannot be read ({error}); {_REMEDY}") from error
    if not isinstance(found, dict):
        raise ModelFilesError(f"{file}: damaged, holds no JSON object; {_REMEDY}")
    return found


def check_weights(folder: Path) -> None:
    """Check that a component's safetensors are all there and as long as their headers say.

    Raises:
        ModelFilesError: names the folder or file that is missing, truncated, damaged or pickled.
    """
    require_directory(folder)
    pickled = [
        file.name for file in paths.children(folder, ModelFilesError) if file.suffix in _PICKLED
    ]
    if pickled and not paths.children(folder, ModelFilesError, "*.safetensors"):
        raise ModelFilesError(
            f"{folder / pickled[0]}: pickled weights are not loaded, they can run code; get the "
            "model in safetensors format"
        )
    for index in paths.children(folder, ModelFilesError, "*.safetensors.index*.json"):
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict):
            raise ModelFilesError(f"{index}: damaged, has no weight_map; {_REMEDY}")
        for shard in sorted(set(shards.values())):
            if not paths.is_file(folder / shard, ModelFilesError):
                raise ModelFilesError(f"{folder / shard}: missing, {index.name} names it")
    for file in paths.children(folder, ModelFilesError, "*.safetensors"):
        expected, found = _promised_size(file), file.stat().st_size
        if found != expected:
            raise ModelFilesError(
                f"{file}: damaged or truncated, {found} bytes of {expected}; {_REMEDY}"
            )


def hash_files(root: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of each named file and of all model files in each named folder.

    Model files are configurations, vocabularies and weights. Keys are paths relative to `root`.
    Large files are read again only after they have changed (`caches.file_sha256`).

    Raises:
        ModelFilesError: a file cannot be read.
    """
    hashes = {}
    for name in names:
        found = root / name
        for file in (
            paths.children(found, ModelFilesError)
            if paths.is_dir(found, ModelFilesError)
            else [found]
        ):
            if file.suffix in _FINGERPRINTED:
                try:
                    digest = file_sha256(file)
                except OSError as error:
                    raise ModelFilesError(f"{file}: cannot be read ({error})") from error
                hashes[file.relative_to(root).as_posix()] = digest
    return hashes


def _promised_size(file: Path) -> int:
    """Return the size in bytes that a safetensors file should have, from its header."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > file.stat().st_size:
                return 8 + length
            header = json.loads(stream.read(length))
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
        return 8 + length + max(ends, default=0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFilesError(f"{file}: damaged, its header cannot be read; {_REMEDY}") from error
