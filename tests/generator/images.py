"""Images of the tiny FLUX pipeline's directory: settings, and what is made with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from npc_local.core.config.settings import GeneratorSettings
from npc_local.core.records import Shot
from npc_local.generator.diffusers_generator import DiffusersGenerator

PROMPT, NEGATIVE, SEED, N = "two red cats", "one cat", 11, 4


def settings(path: Path, **changes: Any) -> GeneratorSettings:
    values: dict[str, Any] = {
        "path": path,
        "steps": N,
        "guidance_scale": 3.5,
        "true_cfg_scale": 1.8,
        "negative_steps": 2,
        "height": 32,
        "width": 32,
        "max_sequence_length": 24,
        "device": "cpu",
    }
    return GeneratorSettings(**(values | changes))


def image_of(generator: DiffusersGenerator, negative: str | None) -> tuple[bytes, int]:
    """Return an image's pixels and its forwards."""
    render = generator.generate(Shot(PROMPT, negative, SEED))
    return render.image.tobytes(), render.forwards


def edit_index(directory: Path, **entries: Any) -> None:
    index = directory / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | entries))
