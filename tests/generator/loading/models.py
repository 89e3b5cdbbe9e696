"""Tiny models with the options of a generator's table, and what comes of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from npc_local.core.errors import NpcError
from npc_local.generator.diffusers_generator import DiffusersGenerator
from tests.generator.images import NEGATIVE, image_of, settings

TRANSFORMER = Path("transformer", "diffusion_pytorch_model.safetensors")
GPU = "cuda:1"  # pretended


def other(path: Path, **changes: Any) -> Any:
    """Settings of a model without FLUX's own ones."""
    return settings(path, **({"guidance_scale": None, "max_sequence_length": None} | changes))


def refusal(kind: type[NpcError], wanted: Any) -> str:
    """Return why no image is made with these settings."""
    with pytest.raises(kind) as caught:
        image_of(DiffusersGenerator(wanted), NEGATIVE)
    assert type(caught.value) is kind
    return str(caught.value)


def pixels(wanted: Any) -> np.ndarray[Any, Any]:
    return np.frombuffer(image_of(DiffusersGenerator(wanted), NEGATIVE)[0], np.uint8).astype(int)


def difference(wanted: Any, plain: Any) -> float:
    """Return how far an image is from the plain one, of 255; the plain one is made once."""
    key = plain.model_dump_json()
    if key not in _plain:
        _plain[key] = pixels(plain)
    return float(np.abs(pixels(wanted) - _plain[key]).mean())


_plain: dict[str, np.ndarray[Any, Any]] = {}


def without(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == package else real(name)
    )


FITS = ("transformer.transformer_blocks.0.attn.to_q", "transformer.proj_out")


def write_lora(
    file: Path, changed: Sequence[str] = FITS, width: int = 32, seed: int = 0
) -> dict[str, Any]:
    noise = torch.Generator().manual_seed(seed)
    tensors = {}
    for name in changed:
        tensors[f"{name}.lora_A.weight"] = torch.randn(4, width, generator=noise)
        out = 16 if name.endswith("proj_out") else width
        tensors[f"{name}.lora_B.weight"] = torch.randn(out, 4, generator=noise)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file)
    return {"path": file}
