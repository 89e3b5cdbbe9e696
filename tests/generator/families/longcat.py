"""LongCat-Image: two calls a step; guidance may not lengthen the conditional prediction."""

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
    tiny_qwen_processor,
    tiny_qwen_tokenizer,
    tiny_qwen_vl,
)

SIZE, LENGTH, SCALE = 32, 24, 1.8


def build() -> Pipeline:
    import diffusers
    from transformers import Qwen2VLProcessor

    classes: Any = diffusers
    tokenizer = tiny_qwen_tokenizer()
    return classes.LongCatImagePipeline(
        scheduler=classes.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=tiny_kl_autoencoder(16, shift_factor=0.1, scaling_factor=0.4),
        text_encoder=tiny_qwen_vl(tokenizer),
        tokenizer=tokenizer,
        text_processor=tiny_qwen_processor(Qwen2VLProcessor, tokenizer),
        transformer=classes.LongCatImageTransformer2DModel(
            in_channels=64,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            pooled_projection_dim=16,
            axes_dims_rope=[4, 4, 8],
        ),
    )


def shorten(pipe: Pipeline) -> None:
    """Read few tokens, not the makers' 512."""
    pipe.tokenizer_max_length = LENGTH


@torch.no_grad()
def plain_loop(
    pipe: Pipeline, prompts: list[str], negatives: list[str], steps: int, after: After
) -> torch.Tensor:
    images, side = len(prompts), SIZE // pipe.vae_scale_factor // 2
    latents: torch.Tensor = flux_packed(noise(images, 16, 2 * side, 2 * side))
    sigmas, times = flow_schedule(pipe, flux_shift(pipe, side * side))
    word = torch.arange(LENGTH)
    words = torch.stack([torch.zeros_like(word), word, word], -1).float()
    positions = flux_positions(side) + torch.tensor([1, LENGTH, LENGTH])

    def encode(texts: list[str]) -> torch.Tensor:
        embeds: torch.Tensor = pipe.encode_prompt(texts)[0]
        return embeds

    def predict(text: torch.Tensor, i: int) -> torch.Tensor:
        output: torch.Tensor = pipe.transformer(
            hidden_states=latents,
            timestep=times[i].expand(images) / 1000,
            encoder_hidden_states=text,
            txt_ids=words,
            img_ids=positions,
            return_dict=False,
        )[0]
        return output

    positive, negative, null = encode(prompts), encode(negatives), encode([""] * images)
    for i in range(N):
        velocity = predict(positive, i)
        against = negative if i < steps else null if after == "null" else None
        if against is not None:
            guided = guide(SCALE, velocity, predict(against, i))
            length = velocity.norm(dim=-1, keepdim=True)
            shorter = length / (guided.norm(dim=-1, keepdim=True) + 1e-8)
            velocity = guided * shorter.clamp(max=1)
        latents = latents + (sigmas[i + 1] - sigmas[i]) * velocity
    return latents


CASE = Case(
    family="LongCat-Image",
    build=build,
    plain_loop=plain_loop,
    arguments={
        "height": SIZE,
        "width": SIZE,
        "guidance_scale": SCALE,
        "enable_prompt_rewrite": False,
    },
    without_cfg=lambda _: {"guidance_scale": 1.0},
    shorten=shorten,
    unsaved="its processor is built without torchvision, and so cannot be saved",
)
