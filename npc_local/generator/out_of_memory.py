"""What to do, in turn, when an image does not fit into memory. Size and steps never change.

Also tells what no memory helps against: a GPU that has failed for good.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from npc_local.generator.family import Pipeline

# As torch says it: of a GPU by an error of its own, of a CPU or MPS in words.
_WORDS = ("DefaultCPUAllocator: can't allocate", "MPS backend out of memory")

# After one of these, every later call of the process fails as well, whatever it asks for.
_LOST = re.compile(
    r"CUDA error: (device-side assert|an illegal (memory access|instruction)"
    r"|unspecified launch failure|misaligned address|uncorrectable ECC|unknown error)"
    r"|GPU has fallen off the bus|CUBLAS_STATUS_EXECUTION_FAILED|CUDNN_STATUS_EXECUTION_FAILED"
    r"|HSA_STATUS_ERROR_EXCEPTION",
    re.IGNORECASE,
)


def is_device_lost(error: BaseException) -> bool:
    """Whether an error says that the GPU is of no use to this process any more."""
    return isinstance(error, RuntimeError) and _LOST.search(str(error)) is not None


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error of torch says that there is not enough memory."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _WORDS)


def tile_vae(pipe: Pipeline) -> bool:
    """Let the autoencoder decode in tiles; False if it cannot, or does already."""
    vae: Any = getattr(pipe, "vae", None)
    if not hasattr(vae, "enable_tiling") or getattr(vae, "use_tiling", False):
        return False
    try:
        vae.enable_tiling()
    except NotImplementedError:
        return False
    return True


def offload(pipe: Pipeline) -> bool:
    """Keep on the device only the model that is computing; False on the CPU, or if offloaded."""
    if (
        pipe.device.type == "cpu"
        or any(hasattr(part, "_hf_hook") for part in pipe.components.values())
        or pipe._maybe_raise_error_if_group_offload_active()
    ):
        return False
    device = pipe.device
    pipe.to("cpu")
    pipe.enable_model_cpu_offload(device=device)
    return True


LADDER: tuple[tuple[str, Callable[[Pipeline], bool] | None], ...] = (
    ("memory freed", None),  # by the caller, before each try
    ("tiled VAE", tile_vae),
    ("model offload", offload),
)
