"""The trained generator that comes inside the package, as a user gets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import npc_local

ROOT = Path(npc_local.__file__).parents[1]
WEIGHTS = ROOT / "npc_local/shapes/weights"
MOST = 25_000_000  # bytes

GENERATE = """
import hashlib, json
from npc_local import load_config
from npc_local.generator.diffusers_generator import DiffusersGenerator
from npc_local.core.records import Shot

generator = DiffusersGenerator(load_config().profile("shapes").generator)
prompt = "A photo of two red circles"
shots = [Shot(prompt, None, 0), Shot(prompt, None, 1), Shot(prompt, "three red circles", 0)]
images = [render.image for render in map(generator.generate, shots)]
print(json.dumps([hashlib.sha256(image.tobytes()).hexdigest() for image in images]))
"""

LOAD = f"""
import json, sys
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained({str(WEIGHTS)!r}, local_files_only=True)
image = pipe("a red star", height=64, width=64, num_inference_steps=2).images[0]
print(json.dumps([image.size, [name for name in sys.modules if name.startswith("npc_local")]]))
"""


@pytest.fixture(autouse=True)
def _there():
    if not (WEIGHTS / "model_index.json").is_file():
        pytest.fail(
            f"the embedded generator is not at {WEIGHTS}; make it with "
            f"`python -m npc_local.shapes.train --out {WEIGHTS}`"
        )


def _run(code: str):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_same_shot_gives_the_same_bytes_in_another_process():
    one, other = _run(GENERATE), _run(GENERATE)
    assert one == other
    assert len(set(one)) == 3, "another seed, and a negative, must give another image"


def test_diffusers_loads_it_with_nothing_of_ours():
    size, ours = _run(LOAD)
    assert size == [64, 64]
    assert ours == []


def test_it_is_small_and_safe():
    files = [file for file in WEIGHTS.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < MOST
    assert {file.suffix for file in files} <= {".json", ".safetensors", ".txt", ".md", ".png"}
    assert sum(file.suffix == ".safetensors" for file in files) == 4
