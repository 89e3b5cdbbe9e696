"""Weights on disk, safetensors: how they are called, and whether they are all there and whole."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from npc_local.core.errors import ModelFilesError
from npc_local.core.files import paths
from npc_local.core.files.fault import Fault, Faults, read_object

TRANSFORMERS, DIFFUSERS = "model", "diffusion_pytorch_model"
"""How the weights of the two libraries are called."""
PICKLED = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})

_SHOWN = 3  # files that a message names
# How weights are called, whole or in shards.
_WEIGHTS = re.compile(
    rf"(?P<stem>{TRANSFORMERS}|{DIFFUSERS})(\.(?P<variant>[^.-]+))?(?P<shard>-\d+-of-\d+)?"
    r"\.safetensors"
)


def weight_faults(folder: Path, stems: Sequence[str] = ()) -> Faults:
    """Yield what is wrong with the safetensors of one model.

    All that an index names must be there, and each file as long as its header says.

    Args:
        folder: where they are.
        stems: how a loader calls them, `TRANSFORMERS` or `DIFFUSERS`, a variant (.fp16) allowed;
            none: any name will do.
    """
    names = [file.name for file in paths.children(folder, ModelFilesError)]
    weights = [name for name in names if name.endswith(".safetensors")]
    indexes = [name for name in names if re.fullmatch(r".+\.safetensors\.index(\..+)?\.json", name)]
    pickled = [name for name in names if Path(name).suffix in PICKLED]
    if pickled and not weights:
        yield Fault(
            folder / pickled[0],
            "pickled weights are not loaded, they can run code",
            "get the model in safetensors format",
        )
    elif not weights:
        wanted = " or ".join(f"{stem}.safetensors" for stem in stems or ["*"])
        yield Fault(folder, f"no weights: {wanted} is missing")
    elif stems:
        yield from _named_faults(folder, stems, weights, indexes)
    for index in indexes:
        yield from _index_faults(folder / index)
    for name in weights:
        yield from file_faults(folder / name)


def file_faults(file: Path) -> Faults:
    """Yield a fault if a safetensors file is not as long as its header says."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length)) if length <= size else {}
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
        promised = 8 + length + max(ends, default=0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        yield Fault(file, "damaged, its header cannot be read")
        return
    if size != promised:
        yield Fault(file, f"damaged or truncated, {size} bytes of {promised}")


def variants(folder: Path) -> set[str]:
    """Return the variants, such as "fp16", that a folder holds in place of the plain weights.

    Raises:
        ModelFilesError: the folder cannot be read.
    """
    names = [file.name for file in paths.children(folder, ModelFilesError, "*.safetensors")]
    matches = [match for name in names if (match := _WEIGHTS.fullmatch(name))]
    held = {match["variant"] for match in matches}
    return set() if None in held else held


def _named_faults(
    folder: Path, stems: Sequence[str], weights: Sequence[str], indexes: Sequence[str]
) -> Faults:
    """Yield a fault if weights are not called as their loader looks for them."""
    matches = [match for name in weights if (match := _WEIGHTS.fullmatch(name))]
    if any(match["stem"] in stems and not match["shard"] for match in matches):
        return
    if any(
        name.startswith(tuple(f"{stem}.safetensors.index." for stem in stems)) for name in indexes
    ):
        return
    wanted = f"{stems[0]}.safetensors"
    if all("-of-" in name for name in weights):
        yield Fault(folder, f"weights in shards without {wanted}.index.json")
    else:
        yield Fault(
            folder,
            f"no {wanted}, but {', '.join(weights[:_SHOWN])}: another layout",
            f"get the weights that are called {wanted}",
        )


def _index_faults(index: Path) -> Faults:
    """Yield what an index of shards names and is not there."""
    content = read_object(index)
    if isinstance(content, Fault):
        yield content
        return
    shards = content.get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        yield Fault(index, "damaged, has no weight_map")
        return
    for name in sorted(set(shards.values())):
        if not paths.is_file(index.parent / name, ModelFilesError):
            yield Fault(index.parent / name, f"missing, {index.name} names it")
