"""Small stand-ins for real models, so that whole benchmarks can be run with no weights at all.

`python -m tests.stand_ins DIR VLLM_PYTHON` writes a FLUX pipeline and a Qwen2.5-VL with tiny
random weights, in the real formats, and a models.toml that uses them: the latter behind a real vLLM
server. Images and answers mean nothing; that hundreds of prompts go through, and what is made of
them, does.
"""

from __future__ import annotations

import sys
from pathlib import Path

from npc_local.core.offline.switches import go_offline
from tests.generator.tiny_flux import build_tiny_flux
from tests.real_vllm.conftest import _closing
from tests.real_vllm.tiny_qwen import build_tiny_qwen

_CONFIG = """\
default_profile = "stand-ins"

[profiles.stand-ins]
description = "Random weights: images and answers mean nothing."
generator = "tiny-flux"
verifier = "tiny-qwen"
captioner = "tiny-qwen"
proposer = "tiny-qwen"
encoder = "tiny-flux"
candidates = 2

[generators.tiny-flux]
path = "tiny-flux"
steps = 4
guidance_scale = 3.5
true_cfg_scale = 2.0
height = 64
width = 64
device = "cpu"

[encoders.tiny-flux]
path = "tiny-flux"
device = "cpu"

[backends.tiny-qwen]
kind = "vllm"
model = "tiny-qwen"
temperature = 1.0
extra_body = {{ logit_bias = {{ {bias} }} }}
[backends.tiny-qwen.server]
model = "tiny-qwen"
python = "{python}"
dtype = "bfloat16"
max_model_len = 8192
arguments = ["--enforce-eager", "--max-num-seqs=8"]
environment = {{ VLLM_CPU_KVCACHE_SPACE = "1" }}
"""


def _nudges(model: Path) -> dict[str, float]:
    """Return biases that keep random answers short and not empty.

    Random weights close a string once in hundreds of tokens, and a list before it has begun.
    """
    from transformers import AutoTokenizer

    vocabulary = AutoTokenizer.from_pretrained(model).get_vocab()
    objects = {str(number): 6.0 for token, number in vocabulary.items() if "{" in token}
    return _closing(model) | objects


def main(folder: str, python: str) -> None:
    """Write everything into a folder."""
    go_offline()
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    build_tiny_flux(place / "tiny-flux")
    model = build_tiny_qwen(place / "tiny-qwen")
    bias = ", ".join(f'"{token}" = {value}' for token, value in _nudges(model).items())
    config = _CONFIG.format(bias=bias, python=Path(python).absolute())
    (place / "models.toml").write_text(config, encoding="utf-8")
    print(place / "models.toml")


if __name__ == "__main__":
    main(*sys.argv[1:])
