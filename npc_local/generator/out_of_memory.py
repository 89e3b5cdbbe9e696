"""What to do, in turn, when an image does not fit into memory. Size and steps never change.

What tells that memory ran out, or that the GPU is lost, is `core.device_errors`' matter, and handed
on here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from npc_local.core.device_errors import is_device_lost, is_out_of_memory
from npc_local.generator.family import Pipeline

__all__ = ["LADDER", "Fallback", "is_device_lost", "is_out_of_memory", "offload", "tile_vae"]


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


@dataclass(frozen=True, slots=True)
class Fallback:
    """One rung of the ladder.

    Attributes:
        name: what is recorded with the image.
        apply: switches it on; False where it is on already or cannot be.
        stays: whether later images are made with it as well.
    """

    name: str
    apply: Callable[[Pipeline], bool]
    stays: bool = True


LADDER = (
    Fallback("memory freed", lambda pipe: True, stays=False),  # by the caller, before each try
    Fallback("tiled VAE", tile_vae),
    Fallback("model offload", offload),
)
