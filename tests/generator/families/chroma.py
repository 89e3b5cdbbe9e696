"""Chroma: two calls a step, each with a mask that hides all of its text's padding but one."""

from __future__ import annotations

from typing import Any

import torch

from npc_local.generator.family import After, Pipeline
from tests.generator.families.case import Case, N, guide, noise
from tests.generator.families.parts import (
    flow_schedule,
    flux_packed,
    flux_positions,
    flux_shift,
    tiny_kl_autoencoder,
    tiny_t5_encoder,
    tiny_t5_tokenizer,
)

SIZE, LENGTH, SCALE = 32, 24, 1.8


def build() -> Pipeline:
    import diffusers

    classes: Any = diffusers
    tokenizer = tiny_t5_tokenizer()
    return classes.ChromaPipeline(
        scheduler=classes.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=tiny_kl_autoencoder(),
        text_encoder=tiny_t5_encoder(tokenizer, width=16),
        tokenizer=tokenizer,
        transformer=classes.ChromaTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            axes_dims_rope=(4, 4, 8),
            approximator_num_channels=16,
            approximator_hidden_dim=32,
            approximator_layers=1,
        ),
    )


@torch.no_grad()
def plain_loop(
    pipe: Pipeline, prompts: list[str], negatives: list[str], steps: int, after: After
) -> torch.Tensor:
    images, side = len(prompts), SIZE // pipe.vae_scale_factor // 2

    def encode(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        embeds, _, mask, *_ = pipe.encode_prompt(
            texts, do_classifier_free_guidance=False, max_sequence_length=LENGTH
        )
        return embeds, torch.cat([mask, torch.ones(images, side * side)], 1)

    latents = flux_packed(noise(images, 4, 2 * side, 2 * side))
    sigmas, times = flow_schedule(pipe, flux_shift(pipe, side * side))

    def predict(text: tuple[torch.Tensor, torch.Tensor], i: int) -> torch.Tensor:
        output: torch.Tensor = pipe.transformer(
            hidden_states=latents,
            timestep=times[i].expand(images) / 1000,
            encoder_hidden_states=text[0],
            txt_ids=torch.zeros(LENGTH, 3),
            img_ids=flux_positions(side),
            attention_mask=text[1],
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
    family="Chroma",
    build=build,
    plain_loop=plain_loop,
    arguments={
        "height": SIZE,
        "width": SIZE,
        "max_sequence_length": LENGTH,
        "guidance_scale": SCALE,
    },
    without_cfg=lambda _: {"guidance_scale": 1.0},
)
