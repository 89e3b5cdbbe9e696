"""PixArt-Sigma: one batch a step, unconditional first; masked text, half the output unused."""

from __future__ import annotations

from typing import Any

import torch

from npc_local.generator.family import After, Pipeline
from tests.generator.families.case import Case, N, guide, noise
from tests.generator.families.parts import (
    drawn_anew,
    tiny_kl_autoencoder,
    tiny_t5_encoder,
    tiny_t5_tokenizer,
)

SIZE, LENGTH, SCALE = 32, 24, 1.8


def build() -> Pipeline:
    import diffusers

    classes: Any = diffusers
    tokenizer = tiny_t5_tokenizer()
    transformer = classes.PixArtTransformer2DModel(
        sample_size=16,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        cross_attention_dim=32,
        caption_channels=32,
    )
    return classes.PixArtSigmaPipeline(
        scheduler=classes.DPMSolverMultistepScheduler(),
        vae=tiny_kl_autoencoder(),
        text_encoder=tiny_t5_encoder(tokenizer, width=32),
        tokenizer=tokenizer,
        transformer=drawn_anew(transformer),
    )


@torch.no_grad()
def plain_loop(
    pipe: Pipeline, prompts: list[str], negatives: list[str], steps: int, after: After
) -> torch.Tensor:
    images, side = len(prompts), SIZE // pipe.vae_scale_factor

    def encode(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        embeds, mask, _, _ = pipe.encode_prompt(texts, False, max_sequence_length=LENGTH)
        return embeds, mask

    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    scheduler.set_timesteps(N)
    latents: torch.Tensor = noise(images, 4, side, side) * scheduler.init_noise_sigma

    def predict(text: tuple[torch.Tensor, torch.Tensor], t: torch.Tensor) -> torch.Tensor:
        rows = len(text[0])
        output: torch.Tensor = pipe.transformer(
            scheduler.scale_model_input(latents.repeat(rows // images, 1, 1, 1), t),
            encoder_hidden_states=text[0],
            encoder_attention_mask=text[1],
            timestep=t.expand(rows),
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        ).sample
        return output[:, :4]  # the rest is a learned variance

    positive, negative, null = encode(prompts), encode(negatives), encode([""] * images)
    for i, t in enumerate(scheduler.timesteps):
        against = negative if i < steps else null if after == "null" else None
        if against is None:
            predicted = predict(positive, t)
        else:
            both = [torch.cat(pair) for pair in zip(against, positive, strict=True)]
            unconditional, conditional = predict((both[0], both[1]), t).chunk(2)
            predicted = guide(SCALE, conditional, unconditional)
        latents = scheduler.step(predicted, t, latents).prev_sample
    return latents


CASE = Case(
    family="PixArt-Sigma",
    build=build,
    plain_loop=plain_loop,
    arguments={
        "height": SIZE,
        "width": SIZE,
        "max_sequence_length": LENGTH,
        "guidance_scale": SCALE,
        "clean_caption": False,
        "use_resolution_binning": False,
    },
    without_cfg=lambda _: {"guidance_scale": 1.0},
)
