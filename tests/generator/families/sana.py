"""Sana: one batch a step; an instruction to enhance goes before the positive prompt only."""

from __future__ import annotations

from typing import Any

import torch

from npc_local.generator.family import After, Pipeline
from tests.generator.families.case import Case, N, guide, noise
from tests.generator.families.parts import tiny_gemma, tiny_gemma_tokenizer

SIZE, LENGTH, SCALE = 32, 20, 1.8
INSTRUCTION = ["Say more of it.", "User Prompt: "]


def build() -> Pipeline:
    import diffusers

    classes: Any = diffusers
    tokenizer = tiny_gemma_tokenizer()
    widths = (8, 8, 8)  # halves each side twice
    return classes.SanaPipeline(
        tokenizer=tokenizer,
        text_encoder=tiny_gemma(tokenizer),
        vae=classes.AutoencoderDC(
            latent_channels=4,
            attention_head_dim=2,
            encoder_block_types="ResBlock",
            decoder_block_types="ResBlock",
            encoder_block_out_channels=widths,
            decoder_block_out_channels=widths,
            encoder_layers_per_block=(1, 1, 1),
            decoder_layers_per_block=(1, 1, 1),
            encoder_qkv_multiscales=((), (), ()),
            decoder_qkv_multiscales=((), (), ()),
        ),
        transformer=classes.SanaTransformer2DModel(
            in_channels=4,
            out_channels=4,
            num_layers=2,
            num_attention_heads=2,
            attention_head_dim=8,
            num_cross_attention_heads=2,
            cross_attention_head_dim=8,
            cross_attention_dim=16,
            caption_channels=16,
            sample_size=8,
        ),
        scheduler=classes.DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    )


@torch.no_grad()
def plain_loop(
    pipe: Pipeline, prompts: list[str], negatives: list[str], steps: int, after: After
) -> torch.Tensor:
    images, side = len(prompts), SIZE // pipe.vae_scale_factor

    def encode(
        texts: list[str], instruction: list[str] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        embeds, mask, _, _ = pipe.encode_prompt(
            texts,
            do_classifier_free_guidance=False,
            max_sequence_length=LENGTH,
            complex_human_instruction=instruction,
        )
        return embeds, mask

    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    scheduler.set_timesteps(N)
    latents = noise(images, 4, side, side)

    def predict(text: tuple[torch.Tensor, torch.Tensor], t: torch.Tensor) -> torch.Tensor:
        rows = len(text[0])
        output: torch.Tensor = pipe.transformer(
            latents.repeat(rows // images, 1, 1, 1),
            encoder_hidden_states=text[0],
            encoder_attention_mask=text[1],
            timestep=t.expand(rows),
        ).sample
        return output

    positive = encode(prompts, INSTRUCTION)
    negative, null = encode(negatives), encode([""] * images)
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
    family="Sana",
    build=build,
    plain_loop=plain_loop,
    arguments={
        "height": SIZE,
        "width": SIZE,
        "guidance_scale": SCALE,
        "max_sequence_length": LENGTH,
        "complex_human_instruction": INSTRUCTION,
        "use_resolution_binning": False,
    },
    without_cfg=lambda _: {"guidance_scale": 1.0},
)
