"""Lumina 2: two calls a step; guidance keeps the conditional prediction's norm."""

from __future__ import annotations

from typing import Any

import torch

from npc_local.generator.family import After, Pipeline
from tests.generator.families.case import Case, N, guide, noise
from tests.generator.families.parts import (
    flow_schedule,
    tiny_gemma,
    tiny_gemma_tokenizer,
    tiny_kl_autoencoder,
)

SIZE, SCALE = 32, 1.8
# Long, because the tiny tokenizer spends a token a letter on the pipeline's own instruction.
LENGTH = 192


def build() -> Pipeline:
    import diffusers

    classes: Any = diffusers
    tokenizer = tiny_gemma_tokenizer()
    return classes.Lumina2Pipeline(
        scheduler=classes.FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=tiny_kl_autoencoder(halvings=3),  # the pipeline takes a factor of 8 for granted
        text_encoder=tiny_gemma(tokenizer),
        tokenizer=tokenizer,
        transformer=classes.Lumina2Transformer2DModel(
            sample_size=4,
            in_channels=4,
            hidden_size=24,
            num_layers=1,
            num_refiner_layers=1,
            num_attention_heads=2,
            num_kv_heads=1,
            multiple_of=8,
            axes_dim_rope=(4, 4, 4),
            axes_lens=(256, 32, 32),
            cap_feat_dim=16,
        ),
    )


@torch.no_grad()
def plain_loop(
    pipe: Pipeline, prompts: list[str], negatives: list[str], steps: int, after: After
) -> torch.Tensor:
    images, side = len(prompts), SIZE // pipe.vae_scale_factor

    def encode(texts: list[str], instruction: str = "") -> tuple[torch.Tensor, torch.Tensor]:
        tokens = pipe.tokenizer(
            [instruction + text for text in texts],
            padding="max_length",
            max_length=LENGTH,
            return_tensors="pt",
        )
        hidden = pipe.text_encoder(**tokens, output_hidden_states=True).hidden_states[-2]
        return hidden, tokens.attention_mask

    latents = noise(images, 4, side, side)
    sigmas, times = flow_schedule(pipe)

    def predict(text: tuple[torch.Tensor, torch.Tensor], i: int) -> torch.Tensor:
        output: torch.Tensor = pipe.transformer(
            hidden_states=latents,
            timestep=(1 - times[i] / 1000).expand(images),
            encoder_hidden_states=text[0],
            encoder_attention_mask=text[1],
            return_dict=False,
        )[0]
        return output

    # The instruction goes before the positive prompt only.
    positive = encode(prompts, f"{pipe.system_prompt} <Prompt Start> ")
    negative, null = encode(negatives), encode([""] * images)
    for i in range(N):
        predicted = conditional = predict(positive, i)
        against = negative if i < steps else null if after == "null" else None
        if against is not None:
            guided = guide(SCALE, conditional, predict(against, i))
            norms = [torch.norm(one, dim=-1, keepdim=True) for one in (conditional, guided)]
            predicted = guided * (norms[0] / norms[1])
        latents = latents - (sigmas[i + 1] - sigmas[i]) * predicted
    return latents


CASE = Case(
    family="Lumina 2",
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
