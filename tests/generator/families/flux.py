"""FLUX.1: two calls a step, guidance embedding, its own images made without CFG."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from npc_local.generator.family import After, Pipeline
from tests.generator.families.case import Case, N, guide, noise
from tests.generator.tiny_flux import build_tiny_flux

SIZE, LENGTH, GUIDANCE, SCALE = 32, 24, 3.5, 1.8


def build() -> Pipeline:
    import diffusers

    family: Any = diffusers.FluxPipeline
    with tempfile.TemporaryDirectory() as folder:
        return family.from_pretrained(build_tiny_flux(Path(folder)), local_files_only=True)


@torch.no_grad()
def plain_loop(
    pipe: Pipeline, prompts: list[str], negatives: list[str], steps: int, after: After
) -> torch.Tensor:
    images, side = len(prompts), SIZE // pipe.vae_scale_factor // 2

    def encode(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        embeds, pooled, _ = pipe.encode_prompt(texts, max_sequence_length=LENGTH)
        return embeds, pooled

    latents = noise(images, 4, 2 * side, 2 * side)
    latents = latents.reshape(images, 4, side, 2, side, 2).permute(0, 2, 4, 1, 3, 5)
    latents = latents.reshape(images, side * side, 16)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    positions = torch.stack([torch.zeros_like(rows), rows, columns], -1).reshape(-1, 3).float()

    config = pipe.scheduler.config
    slope = (config.max_shift - config.base_shift) / (
        config.max_image_seq_len - config.base_image_seq_len
    )
    mu = config.base_shift + slope * (side * side - config.base_image_seq_len)
    # The table of noise levels is diffusers' own: its rounding is not what is tested here.
    schedule = type(pipe.scheduler).from_config(config)
    schedule.set_timesteps(sigmas=np.linspace(1, 1 / N, N), mu=mu)
    sigmas, times = schedule.sigmas, schedule.timesteps

    def predict(text: tuple[torch.Tensor, torch.Tensor], i: int) -> torch.Tensor:
        output: torch.Tensor = pipe.transformer(
            hidden_states=latents,
            timestep=times[i].expand(images) / 1000,
            guidance=torch.full((images,), GUIDANCE),
            encoder_hidden_states=text[0],
            pooled_projections=text[1],
            txt_ids=torch.zeros(LENGTH, 3),
            img_ids=positions,
            return_dict=False,
        )[0]
        return output

    positive, negative, null = encode(prompts), encode(negatives), encode([""] * images)
    for i in range(N):
        velocity = predict(positive, i)
        against = negative if i < steps else null if after == "null" else None
        if against is not None:
            velocity = guide(SCALE, velocity, predict(against, i))
        latents = latents + (sigmas[i + 1] - sigmas[i]) * velocity
    return latents


CASE = Case(
    family="FLUX.1",
    build=build,
    plain_loop=plain_loop,
    arguments={
        "height": SIZE,
        "width": SIZE,
        "max_sequence_length": LENGTH,
        "guidance_scale": GUIDANCE,
        "true_cfg_scale": SCALE,
    },
    without_cfg=lambda _: {"true_cfg_scale": 1.0},
)
