"""Qwen-Image: two calls a step; guidance keeps the length of the conditional prediction."""

from __future__ import annotations

from typing import Any

import torch

from npc_local.generator.family import After, Pipeline
from tests.generator.families.case import Case, N, guide, noise
from tests.generator.families.parts import (
    flow_schedule,
    flux_packed,
    flux_shift,
    tiny_qwen_autoencoder,
    tiny_qwen_tokenizer,
    tiny_qwen_vl,
)

SIZE, SCALE = 32, 1.8


def build() -> Pipeline:
    import diffusers

    classes: Any = diffusers
    tokenizer = tiny_qwen_tokenizer()
    return classes.QwenImagePipeline(
        scheduler=classes.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=tiny_qwen_autoencoder(),
        text_encoder=tiny_qwen_vl(tokenizer),
        tokenizer=tokenizer,
        transformer=classes.QwenImageTransformer2DModel(
            in_channels=16,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            axes_dims_rope=(4, 4, 8),
        ),
    )


@torch.no_grad()
def plain_loop(
    pipe: Pipeline, prompts: list[str], negatives: list[str], steps: int, after: After
) -> torch.Tensor:
    images, side = len(prompts), SIZE // pipe.vae_scale_factor // 2
    latents: torch.Tensor = flux_packed(noise(images, 4, 2 * side, 2 * side))
    sigmas, times = flow_schedule(pipe, flux_shift(pipe, side * side))

    def predict(text: tuple[torch.Tensor, torch.Tensor | None], i: int) -> torch.Tensor:
        output: torch.Tensor = pipe.transformer(
            hidden_states=latents,
            timestep=times[i].expand(images) / 1000,
            encoder_hidden_states=text[0],
            encoder_hidden_states_mask=text[1],
            img_shapes=[[(1, side, side)]] * images,
            return_dict=False,
        )[0]
        return output

    encode = pipe.encode_prompt
    positive, negative, null = encode(prompts), encode(negatives), encode([" "] * images)
    for i in range(N):
        velocity = predict(positive, i)
        against = negative if i < steps else null if after == "null" else None
        if against is not None:
            guided = guide(SCALE, velocity, predict(against, i))
            length = velocity.norm(dim=-1, keepdim=True)
            velocity = guided * (length / guided.norm(dim=-1, keepdim=True))
        latents = latents + (sigmas[i + 1] - sigmas[i]) * velocity
    return latents


CASE = Case(
    family="Qwen-Image",
    build=build,
    plain_loop=plain_loop,
    arguments={"height": SIZE, "width": SIZE, "true_cfg_scale": SCALE},
    without_cfg=lambda _: {"true_cfg_scale": 1.0},
)
