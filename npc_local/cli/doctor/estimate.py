"""How much GPU memory a profile takes, about: weights as they will be held, plus a margin.

Weights are exact, from the headers of the safetensors; the margin for computing with them is rough.
Every finding says that it is an estimate, and none is worse than a warning.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from npc_local.cli.doctor.findings import Finding
from npc_local.core.config.settings import EncoderSettings, GeneratorSettings, ServerSettings
from npc_local.core.errors import ModelFilesError
from npc_local.core.files import paths
from npc_local.core.files.fault import read_json
from npc_local.core.files.model_directory import INDEX, components
from npc_local.core.files.weights import DIFFUSERS, TRANSFORMERS, variants

GIB = 1 << 30
# Beside the weights: what denoising and decoding one image of a million pixels takes, about.
_PER_MEGAPIXEL = 3 * GIB
_CONTEXT = GIB // 2  # a CUDA context with its libraries
_WIDTH = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}  # bytes a number
_FLOATS = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}
_STORED = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}
# With the quantiser's scales; layers that it leaves alone are few.
_QUANTISED = {
    "bitsandbytes_4bit": 0.6,
    "bitsandbytes_8bit": 1.1,
    "torchao_int8": 1.1,
    "torchao_float8": 1.1,
}


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, as nvidia-smi names it. Sizes in bytes."""

    name: str
    free: int
    total: int


def find_gpu(device: str) -> Gpu | None:
    """Return the NVIDIA GPU that torch will call `device` (cuda, cuda:N, auto), or None."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    number = int(device.partition(":")[2] or 0)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    wanted = str(number)
    if visible is not None:
        listed = [name.strip() for name in visible.split(",") if name.strip()]
        if number >= len(listed):
            return None
        wanted = listed[number]
    fields = "--query-gpu=name,memory.free,memory.total"
    try:
        answer = subprocess.run(
            [program, fields, "--format=csv,noheader,nounits", f"--id={wanted}"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout
        name, free, total = answer.strip().splitlines()[0].rsplit(",", 2)
        return Gpu(name.strip(), int(free) << 20, int(total) << 20)
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def generator_bytes(settings: GeneratorSettings) -> int:
    """Return what a generator takes on its GPU, in bytes, as its settings place and hold it.

    Raises:
        ModelFilesError: its directory cannot be read.
    """
    index = read_json(settings.path / INDEX)
    parts = {}
    for name in components(index):
        width = _WIDTH[settings.dtype]
        if settings.quantization is not None and name in settings.quantization.components:
            width = _QUANTISED[settings.quantization.kind]
        if settings.gguf is not None and name in {"transformer", "unet"}:
            parts[name] = _size(settings.gguf)
        else:
            parts[name] = weight_bytes(settings.path / name, width)
    held = sum(parts.values())
    if settings.offload == "model":
        held = max(parts.values(), default=0)
    elif settings.offload in {"group", "sequential"}:
        held = 0  # a layer at a time
    return int(held + _PER_MEGAPIXEL * settings.height * settings.width / 1e6) + _CONTEXT


def encoder_bytes(settings: EncoderSettings, generator: GeneratorSettings) -> int:
    """Return what the salience encoder takes, in bytes: nothing if it is the generator's own.

    Raises:
        ModelFilesError: its directory cannot be read.
    """
    if settings.is_held_by(generator):
        return 0
    return weight_bytes(settings.path / settings.text_encoder, _WIDTH[settings.dtype])


def server_findings(name: str, settings: ServerSettings, gpu: Gpu) -> Iterator[Finding]:
    """Yield a warning if a server's model does not fit into the share of memory that it may use."""
    share = int(settings.gpu_memory_utilization * gpu.total)
    width = _WIDTH.get(settings.dtype, 2.0)
    try:
        weights = weight_bytes(settings.model, width)
    except ModelFilesError:
        return  # said by others
    if weights + GIB > share:
        yield Finding(
            "warning",
            f"estimate: the model needs about {_gib(weights + GIB)}, and "
            f"gpu_memory_utilization = {settings.gpu_memory_utilization} of {gpu.name} is "
            f"{_gib(share)}",
            f"backends.{name}.server",
            "raise gpu_memory_utilization, or take a smaller or quantised model",
        )


def memory_finding(need: int, gpu: Gpu, what: str) -> Finding:
    """Compare an estimate with the free memory of a GPU; all in bytes."""
    numbers = f"estimate: {what} needs about {_gib(need)}; {_gib(gpu.free)} of {gpu.name} are free"
    if need <= gpu.free:
        return Finding("ok", numbers)
    return Finding(
        "warning",
        numbers,
        do='set gpu = "phased" in the profile, offload = "model" or quantization in the generator, '
        "or end other programs that use the GPU",
    )


def weight_bytes(folder: Path, width: float) -> int:
    """Return the bytes of a model's weights when each number takes `width` bytes.

    0 for a folder without weights. Numbers that are no floats keep their own width.

    Raises:
        ModelFilesError: an index is damaged.
    """
    return math.ceil(sum(_held(file, width) for file in _loaded(folder)))


def _loaded(folder: Path) -> list[Path]:
    """Return the safetensors that a loader would read in a folder."""
    variant = min(variants(folder), default=None)
    infix = f".{variant}" if variant else ""
    for stem in (TRANSFORMERS, DIFFUSERS):
        single = folder / f"{stem}{infix}.safetensors"
        index = folder / f"{stem}.safetensors.index{infix}.json"
        if paths.is_file(single, ModelFilesError):
            return [single]
        if paths.is_file(index, ModelFilesError):
            shards = read_json(index).get("weight_map")
            names = set(shards.values()) if isinstance(shards, dict) else set()
            files = [folder / name for name in sorted(names)]
            return [file for file in files if paths.is_file(file, ModelFilesError)]
    return []


def _size(file: Path) -> int:
    """Return the bytes of a file, 0 where there is none."""
    return file.stat().st_size if paths.is_file(file, ModelFilesError) else 0


def _held(file: Path, width: float) -> float:
    """Return the bytes of one file's numbers at a width; its size where it cannot be read."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > file.stat().st_size:
                return 0
            header = json.loads(stream.read(length))
        total = 0.0
        for key, tensor in header.items():
            if key != "__metadata__":
                kind = tensor["dtype"]
                each = width if kind in _FLOATS else _STORED.get(kind, 1)
                total += math.prod(tensor["shape"]) * each
        return total
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0  # a damaged header is an error of its own


def _gib(size: float) -> str:
    """Return bytes as GiB, for reading."""
    return f"{size / GIB:.1f} GiB"
