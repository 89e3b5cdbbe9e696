"""CogView4: two calls a step; texts of their own lengths, padded in front."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from npc_local.generator.family import After, Pipeline
from tests.generator.families.case import Case, N, guide, noise
from tests.generator.families.parts import tiny_kl_autoencoder, tiny_marked_tokenizer

SIZE, SCALE = 32, 1.8


def build() -> Pipeline:
    import diffusers
    import transformers

    classes: Any = diffusers
    glm: Any = transformers.GlmModel
    tokenizer = tiny_marked_tokenizer(
        "[gMASK]", "<sop>", pad_token="<|endoftext|>", padding_side="left"
    )
    return classes.CogView4Pipeline(
        tokenizer=tokenizer,
        text_encoder=glm(
            transformers.GlmConfig(
                vocab_size=len(tokenizer),
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                head_dim=8,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=None,
                initializer_range=0.5,  # or the texts would hardly differ
            )
        ),
        vae=tiny_kl_autoencoder(),
        transformer=classes.CogView4Transformer2DModel(
            in_channels=4,
            out_channels=4,
            num_layers=2,
            num_attention_heads=2,
            attention_head_dim=8,
            text_embed_dim=16,
            time_embed_dim=16,
            condition_dim=8,
            sample_size=16,
            rope_axes_dim=(16, 16),
        ),
        scheduler=classes.FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True,
            base_shift=0.25,
            max_shift=0.75,
            time_shift_type="linear",
        ),
    )


@torch.no_grad()
def plain_loop(
    pipe: Pipeline, prompts: list[str], negatives: list[str], steps: int, after: After
) -> torch.Tensor:
    images, side = len(prompts), SIZE // pipe.vae_scale_factor

    def encode(texts: list[str]) -> torch.Tensor:
        embeds: torch.Tensor = pipe.encode_prompt(texts, do_classifier_free_guidance=False)[0]
        return embeds

    config = pipe.scheduler.config
    root = ((side // 2) ** 2 / config.base_image_seq_len) ** 0.5
    times = np.linspace(1000, 1, N).astype(np.int64).astype(np.float32)
    schedule = type(pipe.scheduler).from_config(config)
    schedule.set_timesteps(
        timesteps=times, sigmas=times / 1000, mu=root * config.max_shift + config.base_shift
    )
    latents = noise(images, 4, side, side)
    size = torch.tensor([[SIZE, SIZE]], dtype=torch.float32).repeat(images, 1)

    def predict(text: torch.Tensor, i: int) -> torch.Tensor:
        output: torch.Tensor = pipe.transformer(
            hidden_states=latents,
            encoder_hidden_states=text,
            timestep=schedule.timesteps[i].expand(images),
            original_size=size,
            target_size=size,
            crop_coords=torch.zeros(images, 2),
        ).sample
        return output

    positive, negative, null = encode(prompts), encode(negatives), encode([""] * images)
    for i in range(N):
        velocity = predict(positive, i)
        against = negative if i < steps else null if after == "null" else None
        if against is not None:
            velocity = guide(SCALE, velocity, predict(against, i))
        latents = latents + (schedule.sigmas[i + 1] - schedule.sigmas[i]) * velocity
    return latents


CASE = Case(
    family="CogView4",
    build=build,
    plain_loop=plain_loop,
    arguments={"height": SIZE, "width": SIZE, "guidance_scale": SCALE},
    without_cfg=lambda _: {"guidance_scale": 1.0},
)
