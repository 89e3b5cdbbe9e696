"""Where models run."""

from __future__ import annotations


def resolve_device(device: str) -> str:
    """Return the torch device that "auto" stands for here; any other name as it is."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device
