"""FLUX.2-klein: two calls a step; takes negatives as embeddings, and has "" written in."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Qwen3ForCausalLM

from npc_local.generator.family import After, Pipeline
from tests.generator.families.case import Case, N, guide, noise
from tests.generator.families.parts import flow_schedule, tiny_qwen3_config, tiny_qwen_tokenizer

SIZE, LENGTH, SCALE = 32, 48, 1.8
LAYERS = (1, 2, 3)  # of the text encoder, whose outputs are read; the real one has more


def build() -> Pipeline:
    import diffusers

    classes: Any = diffusers
    tokenizer = tiny_qwen_tokenizer()
    vae = classes.AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        block_out_channels=(8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
    )
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 2.0)
    return classes.Flux2KleinPipeline(
        scheduler=classes.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=vae,
        text_encoder=Qwen3ForCausalLM(tiny_qwen3_config(tokenizer)),
        tokenizer=tokenizer,
        transformer=classes.Flux2Transformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=len(LAYERS) * 16,
            timestep_guidance_channels=32,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        ),
        is_distilled=False,
    )


def encode(pipe: Pipeline, texts: list[str]) -> torch.Tensor:
    embeds: torch.Tensor = pipe.encode_prompt(
        texts, max_sequence_length=LENGTH, text_encoder_out_layers=LAYERS
    )[0]
    return embeds.detach()


def shift(tokens: int) -> float:
    """Return how far the noise levels are shifted: between fits for 10 and for 200 steps."""
    at_10 = 8.73809524e-05 * tokens + 1.89833333
    at_200 = 0.00016927 * tokens + 0.45666666
    slope = (at_200 - at_10) / 190
    return slope * N + at_200 - 200 * slope


@torch.no_grad()
def plain_loop(
    pipe: Pipeline, prompts: list[str], negatives: list[str], steps: int, after: After
) -> torch.Tensor:
    images, side = len(prompts), SIZE // pipe.vae_scale_factor // 2
    latents = noise(images, 16, side, side).flatten(2).transpose(1, 2)
    line, one = torch.arange(side), torch.arange(1)
    places = torch.cartesian_prod(one, line, line, one).expand(images, -1, -1)
    words = torch.cartesian_prod(one, one, one, torch.arange(LENGTH)).expand(images, -1, -1)
    sigmas, times = flow_schedule(pipe, shift(side * side))

    def predict(text: torch.Tensor, i: int) -> torch.Tensor:
        output: torch.Tensor = pipe.transformer(
            hidden_states=latents,
            timestep=times[i].expand(images) / 1000,
            guidance=None,
            encoder_hidden_states=text,
            txt_ids=words,
            img_ids=places,
            return_dict=False,
        )[0]
        return output

    positive, negative = encode(pipe, prompts), encode(pipe, negatives)
    null = encode(pipe, [""] * images)
    for i in range(N):
        velocity = predict(positive, i)
        against = negative if i < steps else null if after == "null" else None
        if against is not None:
            velocity = guide(SCALE, velocity, predict(against, i))
        latents = latents + (sigmas[i + 1] - sigmas[i]) * velocity
    # What the pipeline calls latents is scaled for the autoencoder and unpacked from 2 by 2.
    mean, variance = pipe.vae.bn.running_mean, pipe.vae.bn.running_var
    latents = latents * torch.sqrt(variance + pipe.vae.config.batch_norm_eps) + mean
    picture: torch.Tensor = latents.transpose(1, 2).reshape(images, 4, 2, 2, side, side)
    return picture.permute(0, 1, 4, 2, 5, 3).reshape(images, 4, 2 * side, 2 * side)


CASE = Case(
    family="FLUX.2-klein",
    build=build,
    plain_loop=plain_loop,
    arguments={
        "height": SIZE,
        "width": SIZE,
        "max_sequence_length": LENGTH,
        "text_encoder_out_layers": LAYERS,
        "guidance_scale": SCALE,
    },
    without_cfg=lambda _: {"guidance_scale": 1.0},
    negative=lambda pipe, texts: {"negative_prompt_embeds": encode(pipe, texts)},
)
