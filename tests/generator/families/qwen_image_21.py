"""Qwen-Image-2.1: two calls a step; the first call for a text fills a cache for the others."""

from __future__ import annotations

from typing import Any

import torch

from npc_local.generator.family import After, Pipeline
from tests.generator.families.case import Case, N, guide, noise
from tests.generator.families.parts import (
    flow_schedule,
    flux_shift,
    tiny_qwen3_vl_config,
    tiny_qwen_processor,
    tiny_qwen_tokenizer,
)

SIZE, SCALE = 64, 1.8


def build() -> Pipeline:
    import diffusers
    from transformers import Qwen3VLForConditionalGeneration, Qwen3VLProcessor

    classes: Any = diffusers
    tokenizer = tiny_qwen_tokenizer()
    return classes.QwenImage21Pipeline(
        scheduler=classes.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=classes.AutoencoderKLQwenImage21(
            base_dim=8,
            decoder_base_dim=8,
            z_dim=4,
            dim_mult=[1, 1, 1, 1, 1],
            num_res_blocks=1,
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ),
        text_encoder=Qwen3VLForConditionalGeneration(tiny_qwen3_vl_config(tokenizer)),
        processor=tiny_qwen_processor(Qwen3VLProcessor, tokenizer),
        transformer=classes.QwenImage21Transformer2DModel(
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            context_in_dim=16,
            axes_dims_rope=(4, 4, 8),
            causal_condition=True,
        ),
    )


@torch.no_grad()
def plain_loop(
    pipe: Pipeline, prompts: list[str], negatives: list[str], steps: int, after: After
) -> torch.Tensor:
    from diffusers.models.transformers.transformer_qwenimage21 import QwenImage21KVCache

    images, side = len(prompts), SIZE // pipe.vae_scale_factor
    latents = noise(images, 4, side, side).flatten(2).transpose(1, 2)
    sigmas, times = flow_schedule(pipe, flux_shift(pipe, side * side))

    def encode(texts: list[str]) -> dict[str, Any]:
        embeds, mask, pictures = pipe.encode_prompt(texts)
        target = torch.ones(images, side * side // 4, dtype=torch.bool)
        return {
            "encoder_hidden_states": embeds,
            "encoder_hidden_states_mask": mask,
            "img_mask": torch.cat([pictures, target], dim=1),
            "kv_cache": QwenImage21KVCache(len(pipe.transformer.transformer_blocks)),
            "kv_cache_mode": "extract",
        }

    def predict(text: dict[str, Any], i: int) -> torch.Tensor:
        output: torch.Tensor = pipe.transformer(
            hidden_states=latents,
            timestep=times[i].expand(images) / 1000,
            img_shapes=[[(1, side, side)]] * images,
            return_dict=False,
            **text,
        )[0]
        text["kv_cache_mode"] = "cached"
        return output[:, -side * side :]

    positive, negative, null = encode(prompts), encode(negatives), encode([" "] * images)
    for i in range(N):
        velocity = predict(positive, i)
        against = negative if i < steps else null if after == "null" else None
        if against is not None:
            velocity = guide(SCALE, velocity, predict(against, i))
        latents = latents + (sigmas[i + 1] - sigmas[i]) * velocity
    return latents


CASE = Case(
    family="Qwen-Image-2.1",
    build=build,
    plain_loop=plain_loop,
    arguments={"height": SIZE, "width": SIZE, "true_cfg_scale": SCALE},
    without_cfg=lambda _: {"true_cfg_scale": 1.0},
    unsaved="its processor is built without torchvision, and so cannot be saved",
)
