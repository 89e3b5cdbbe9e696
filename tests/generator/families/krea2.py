"""Krea 2: two calls a step; its scale is one below the usual, and 0 is without CFG."""

from __future__ import annotations

from typing import Any

import torch

from npc_local.generator.family import After, Pipeline
from tests.generator.families.case import Case, N, noise
from tests.generator.families.parts import (
    flow_schedule,
    flux_packed,
    flux_positions,
    flux_shift,
    tiny_qwen3_vl_config,
    tiny_qwen_autoencoder,
    tiny_qwen_tokenizer,
)

# Long, because the tiny tokenizer spends a token a letter on the pipeline's own instruction.
LENGTH = 192
SIZE, SCALE = 32, 0.8


def build() -> Pipeline:
    import diffusers
    from transformers import Qwen3VLModel

    classes: Any = diffusers
    tokenizer = tiny_qwen_tokenizer()
    return classes.Krea2Pipeline(
        scheduler=classes.FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, max_image_seq_len=6400
        ),
        vae=tiny_qwen_autoencoder(),
        text_encoder=Qwen3VLModel(tiny_qwen3_vl_config(tokenizer)),
        tokenizer=tokenizer,
        transformer=classes.Krea2Transformer2DModel(
            in_channels=16,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=32,
            timestep_embed_dim=16,
            text_hidden_dim=16,
            num_text_layers=2,
            text_num_attention_heads=2,
            text_num_key_value_heads=2,
            text_intermediate_size=32,
            num_layerwise_text_blocks=1,
            num_refiner_text_blocks=1,
            axes_dims_rope=(4, 4, 8),
        ),
        text_encoder_select_layers=(1, 3),
    )


@torch.no_grad()
def plain_loop(
    pipe: Pipeline, prompts: list[str], negatives: list[str], steps: int, after: After
) -> torch.Tensor:
    images, side = len(prompts), SIZE // pipe.vae_scale_factor // 2
    latents: torch.Tensor = flux_packed(noise(images, 4, 2 * side, 2 * side))
    sigmas, times = flow_schedule(pipe, flux_shift(pipe, side * side))

    def encode(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        embeds, mask = pipe.encode_prompt(texts, max_sequence_length=LENGTH)
        return embeds, mask

    def predict(text: tuple[torch.Tensor, torch.Tensor], i: int) -> torch.Tensor:
        output: torch.Tensor = pipe.transformer(
            hidden_states=latents,
            encoder_hidden_states=text[0],
            timestep=times[i].expand(images) / 1000,
            position_ids=torch.cat([torch.zeros(text[0].shape[1], 3), flux_positions(side)]),
            encoder_attention_mask=text[1],
            return_dict=False,
        )[0]
        return output

    positive, negative, null = encode(prompts), encode(negatives), encode([""] * images)
    for i in range(N):
        velocity = predict(positive, i)
        against = negative if i < steps else null if after == "null" else None
        if against is not None:
            velocity = velocity + SCALE * (velocity - predict(against, i))
        latents = latents + (sigmas[i + 1] - sigmas[i]) * velocity
    return latents


CASE = Case(
    family="Krea 2",
    build=build,
    plain_loop=plain_loop,
    arguments={
        "height": SIZE,
        "width": SIZE,
        "max_sequence_length": LENGTH,
        "guidance_scale": SCALE,
    },
    without_cfg=lambda _: {"guidance_scale": 0.0},
)
