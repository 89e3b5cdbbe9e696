"""Stable Diffusion 1 and 2: one batch a step, unconditional first; the null is encoded text."""

from __future__ import annotations

from typing import Any

import torch
from transformers import CLIPTextModel

from npc_local.generator.family import After, Pipeline
from tests.generator.families.case import Case, N, guide, noise
from tests.generator.families.parts import (
    tiny_clip_config,
    tiny_clip_tokenizer,
    tiny_kl_autoencoder,
)

SIZE, SCALE = 32, 1.8


def build() -> Pipeline:
    import diffusers

    classes: Any = diffusers
    tokenizer = tiny_clip_tokenizer()
    return classes.StableDiffusionPipeline(
        scheduler=classes.DDIMScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type="v_prediction",
        ),
        vae=tiny_kl_autoencoder(),
        text_encoder=CLIPTextModel(tiny_clip_config(tokenizer, width=16)),
        tokenizer=tokenizer,
        unet=classes.UNet2DConditionModel(
            sample_size=16,
            in_channels=4,
            out_channels=4,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            block_out_channels=(8, 16),
            layers_per_block=1,
            cross_attention_dim=16,
            attention_head_dim=(2, 4),
            norm_num_groups=4,
            use_linear_projection=True,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@torch.no_grad()
def plain_loop(
    pipe: Pipeline, prompts: list[str], negatives: list[str], steps: int, after: After
) -> torch.Tensor:
    images, side = len(prompts), SIZE // pipe.vae_scale_factor

    def encode(texts: list[str]) -> torch.Tensor:
        embeds: torch.Tensor = pipe.encode_prompt(texts, "cpu", 1, False)[0]
        return embeds

    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    scheduler.set_timesteps(N)
    latents: torch.Tensor = noise(images, 4, side, side) * scheduler.init_noise_sigma

    def predict(text: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        sample = scheduler.scale_model_input(latents.repeat(len(text) // images, 1, 1, 1), t)
        output: torch.Tensor = pipe.unet(sample, t, encoder_hidden_states=text).sample
        return output

    positive, negative, null = encode(prompts), encode(negatives), encode([""] * images)
    for i, t in enumerate(scheduler.timesteps):
        against = negative if i < steps else null if after == "null" else None
        if against is None:
            predicted = predict(positive, t)
        else:
            unconditional, conditional = predict(torch.cat([against, positive]), t).chunk(2)
            predicted = guide(SCALE, conditional, unconditional)
        latents = scheduler.step(predicted, t, latents).prev_sample
    return latents


CASE = Case(
    family="Stable Diffusion 1 and 2",
    build=build,
    plain_loop=plain_loop,
    arguments={"height": SIZE, "width": SIZE, "guidance_scale": SCALE},
    without_cfg=lambda _: {"guidance_scale": 1.0},
)
