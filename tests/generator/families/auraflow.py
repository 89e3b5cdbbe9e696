"""AuraFlow: one batch a step, unconditional first; padding of the text is zeroed, not masked."""

from __future__ import annotations

from typing import Any

import torch
from transformers import UMT5Config, UMT5EncoderModel

from npc_local.generator.family import After, Pipeline
from tests.generator.families.case import Case, N, guide, noise
from tests.generator.families.parts import drawn_anew, tiny_kl_autoencoder, tiny_t5_tokenizer

SIZE, LENGTH, SCALE = 32, 24, 1.8


def build() -> Pipeline:
    import diffusers

    classes: Any = diffusers
    tokenizer = tiny_t5_tokenizer()
    encoder: Any = UMT5EncoderModel(
        UMT5Config(
            vocab_size=len(tokenizer), d_model=32, d_ff=48, d_kv=8, num_layers=2, num_heads=2
        )
    )
    transformer = classes.AuraFlowTransformer2DModel(
        sample_size=16,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=32,
        pos_embed_max_size=64,
    )
    return classes.AuraFlowPipeline(
        scheduler=classes.FlowMatchEulerDiscreteScheduler(shift=1.73),
        vae=tiny_kl_autoencoder(),
        text_encoder=encoder.eval(),
        tokenizer=tokenizer,
        transformer=drawn_anew(transformer),
    )


@torch.no_grad()
def plain_loop(
    pipe: Pipeline, prompts: list[str], negatives: list[str], steps: int, after: After
) -> torch.Tensor:
    images, side = len(prompts), SIZE // pipe.vae_scale_factor

    def encode(texts: list[str]) -> torch.Tensor:
        embeds: torch.Tensor = pipe.encode_prompt(
            texts, do_classifier_free_guidance=False, max_sequence_length=LENGTH
        )[0]
        return embeds

    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    scheduler.set_timesteps(N)
    latents = noise(images, 4, side, side)

    def predict(text: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        rows = len(text)
        output: torch.Tensor = pipe.transformer(
            latents.repeat(rows // images, 1, 1, 1),
            encoder_hidden_states=text,
            timestep=(t / 1000).expand(rows),
        ).sample
        return output

    positive, negative, null = encode(prompts), encode(negatives), encode([""] * images)
    for i, t in enumerate(scheduler.timesteps):
        against = negative if i < steps else null if after == "null" else None
        if against is None:
            velocity = predict(positive, t)
        else:
            unconditional, conditional = predict(torch.cat([against, positive]), t).chunk(2)
            velocity = guide(SCALE, conditional, unconditional)
        latents = scheduler.step(velocity, t, latents).prev_sample
    return latents


CASE = Case(
    family="AuraFlow",
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
