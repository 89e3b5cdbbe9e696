"""Stable Diffusion XL: one batch a step, unconditional first; the null prompt is zeros."""

from __future__ import annotations

from typing import Any

import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from npc_local.generator.family import After, Pipeline
from tests.generator.families.case import Case, N, guide, noise
from tests.generator.families.parts import tiny_clip_tokenizer, tiny_kl_autoencoder

SIZE, SCALE = 32, 1.8


def build() -> Pipeline:
    import diffusers

    classes: Any = diffusers
    tokenizer = tiny_clip_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        projection_dim=16,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return classes.StableDiffusionXLPipeline(
        scheduler=classes.EulerDiscreteScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012
        ),
        vae=tiny_kl_autoencoder(),
        text_encoder=CLIPTextModel(config),
        tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(config),
        tokenizer_2=tokenizer,
        unet=classes.UNet2DConditionModel(
            sample_size=16,
            in_channels=4,
            out_channels=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(8, 16),
            layers_per_block=1,
            cross_attention_dim=32,
            attention_head_dim=(2, 4),
            transformer_layers_per_block=(1, 1),
            norm_num_groups=4,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 16,
        ),
        add_watermarker=False,
    )


@torch.no_grad()
def plain_loop(
    pipe: Pipeline, prompts: list[str], negatives: list[str], steps: int, after: After
) -> torch.Tensor:
    images, side = len(prompts), SIZE // pipe.vae_scale_factor

    def encode(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        embeds, _, pooled, _ = pipe.encode_prompt(texts, do_classifier_free_guidance=False)
        return embeds, pooled

    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    scheduler.set_timesteps(N)
    latents = noise(images, 4, side, side) * scheduler.init_noise_sigma
    where = torch.tensor([SIZE, SIZE, 0, 0, SIZE, SIZE], dtype=torch.float32)

    def predict(text: tuple[torch.Tensor, torch.Tensor], t: torch.Tensor) -> torch.Tensor:
        rows = len(text[0])
        output: torch.Tensor = pipe.unet(
            scheduler.scale_model_input(latents.repeat(rows // images, 1, 1, 1), t),
            t,
            encoder_hidden_states=text[0],
            added_cond_kwargs={"text_embeds": text[1], "time_ids": where.repeat(rows, 1)},
        ).sample
        return output

    positive, negative = encode(prompts), encode(negatives)
    null = torch.zeros_like(positive[0]), torch.zeros_like(positive[1])
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
    family="Stable Diffusion XL",
    build=build,
    plain_loop=plain_loop,
    arguments={"height": SIZE, "width": SIZE, "guidance_scale": SCALE},
    without_cfg=lambda _: {"guidance_scale": 1.0},
)
