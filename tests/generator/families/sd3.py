"""Stable Diffusion 3.5: one batch a step, unconditional first; two CLIP texts and a T5 one."""

from __future__ import annotations

from typing import Any

import torch
from transformers import CLIPTextModelWithProjection

from npc_local.generator.family import After, Pipeline
from tests.generator.families.case import Case, N, guide, noise
from tests.generator.families.parts import (
    tiny_clip_config,
    tiny_clip_tokenizer,
    tiny_kl_autoencoder,
    tiny_t5_encoder,
    tiny_t5_tokenizer,
)

SIZE, LENGTH, SCALE = 32, 24, 1.8


def build() -> Pipeline:
    import diffusers

    classes: Any = diffusers
    clip_tokenizer, t5_tokenizer = tiny_clip_tokenizer(), tiny_t5_tokenizer()
    config = tiny_clip_config(clip_tokenizer, width=16)
    return classes.StableDiffusion3Pipeline(
        scheduler=classes.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=tiny_kl_autoencoder(),
        text_encoder=CLIPTextModelWithProjection(config),
        tokenizer=clip_tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(config),
        tokenizer_2=clip_tokenizer,
        text_encoder_3=tiny_t5_encoder(t5_tokenizer, width=48),
        tokenizer_3=t5_tokenizer,
        transformer=classes.SD3Transformer2DModel(
            sample_size=16,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=48,
            caption_projection_dim=32,
            pooled_projection_dim=2 * 16,
            pos_embed_max_size=8,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        ),
    )


@torch.no_grad()
def plain_loop(
    pipe: Pipeline, prompts: list[str], negatives: list[str], steps: int, after: After
) -> torch.Tensor:
    images, side = len(prompts), SIZE // pipe.vae_scale_factor

    def encode(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        embeds, _, pooled, _ = pipe.encode_prompt(
            texts, None, None, do_classifier_free_guidance=False, max_sequence_length=LENGTH
        )
        return embeds, pooled

    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    scheduler.set_timesteps(N)
    latents = noise(images, 4, side, side)

    def predict(text: tuple[torch.Tensor, torch.Tensor], t: torch.Tensor) -> torch.Tensor:
        rows = len(text[0])
        output: torch.Tensor = pipe.transformer(
            hidden_states=latents.repeat(rows // images, 1, 1, 1),
            timestep=t.expand(rows),
            encoder_hidden_states=text[0],
            pooled_projections=text[1],
        ).sample
        return output

    positive, negative, null = encode(prompts), encode(negatives), encode([""] * images)
    for i, t in enumerate(scheduler.timesteps):
        against = negative if i < steps else null if after == "null" else None
        if against is None:
            velocity = predict(positive, t)
        else:
            both = [torch.cat(pair) for pair in zip(against, positive, strict=True)]
            unconditional, conditional = predict((both[0], both[1]), t).chunk(2)
            velocity = guide(SCALE, conditional, unconditional)
        latents = scheduler.step(velocity, t, latents).prev_sample
    return latents


CASE = Case(
    family="Stable Diffusion 3.5",
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
