"""Z-Image: one batch of lists a step, conditional first; its scale is one below the usual."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Qwen3Model

from npc_local.generator.family import After, Pipeline
from tests.generator.families.case import Case, N, noise
from tests.generator.families.parts import (
    flow_schedule,
    tiny_kl_autoencoder,
    tiny_qwen3_config,
    tiny_qwen_tokenizer,
)

SIZE, LENGTH, SCALE = 32, 64, 0.8


def build() -> Pipeline:
    import diffusers

    classes: Any = diffusers
    tokenizer = tiny_qwen_tokenizer()
    transformer = classes.ZImageTransformer2DModel(
        in_channels=4,
        dim=16,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[4, 2, 2],
        axes_lens=[256, 32, 32],
    )
    for padding in (transformer.x_pad_token, transformer.cap_pad_token):
        torch.nn.init.normal_(padding, std=0.1)
    return classes.ZImagePipeline(
        scheduler=classes.FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=tiny_kl_autoencoder(),
        text_encoder=Qwen3Model(tiny_qwen3_config(tokenizer)),
        tokenizer=tokenizer,
        transformer=transformer,
    )


@torch.no_grad()
def plain_loop(
    pipe: Pipeline, prompts: list[str], negatives: list[str], steps: int, after: After
) -> torch.Tensor:
    images, side = len(prompts), SIZE // pipe.vae_scale_factor

    def encode(texts: list[str]) -> list[torch.Tensor]:
        # A copy of the texts: encode_prompt writes its chat template into the list.
        embeds: list[torch.Tensor] = pipe.encode_prompt(
            list(texts), do_classifier_free_guidance=False, max_sequence_length=LENGTH
        )[0]
        return embeds

    latents = noise(images, 4, side, side)
    sigmas, times = flow_schedule(pipe)

    def predict(texts: list[torch.Tensor], i: int) -> torch.Tensor:
        pictures = list(latents.unsqueeze(2)) * (len(texts) // images)
        time = ((1000 - times[i]) / 1000).expand(len(texts))
        return torch.stack(pipe.transformer(pictures, time, texts, return_dict=False)[0])

    positive, negative, null = encode(prompts), encode(negatives), encode([""] * images)
    for i in range(N):
        against = negative if i < steps else null if after == "null" else None
        if against is None:
            predicted = predict(positive, i)
        else:
            conditional, unconditional = predict(positive + against, i).chunk(2)
            predicted = conditional + SCALE * (conditional - unconditional)
        latents = latents - (sigmas[i + 1] - sigmas[i]) * predicted.squeeze(2)
    return latents


CASE = Case(
    family="Z-Image",
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
