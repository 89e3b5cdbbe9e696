"""HiDream-I1: four text encoders, one batch a step; Llama's layers come before its batch."""

from __future__ import annotations

from typing import Any

import torch

from npc_local.generator.family import After, Pipeline
from tests.generator.families.case import Case, N, guide, noise
from tests.generator.families.parts import (
    tiny_clip_config,
    tiny_clip_tokenizer,
    tiny_kl_autoencoder,
    tiny_marked_tokenizer,
    tiny_t5_encoder,
    tiny_t5_tokenizer,
)

SIZE, LENGTH, SCALE = 32, 24, 1.8


def build() -> Pipeline:
    import diffusers
    import transformers

    classes: Any = diffusers
    models: Any = transformers
    clip_words, t5_words = tiny_clip_tokenizer(), tiny_t5_tokenizer()
    llama_words = tiny_marked_tokenizer("<|begin_of_text|>", eos_token="<|eot_id|>")
    clip = tiny_clip_config(clip_words, 16)
    llama = models.LlamaConfig(
        vocab_size=len(llama_words),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation="eager",  # the pipeline asks for the attentions
    )
    return classes.HiDreamImagePipeline(
        scheduler=classes.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        vae=tiny_kl_autoencoder(shift_factor=0.1),
        text_encoder=models.CLIPTextModelWithProjection(clip),
        tokenizer=clip_words,
        text_encoder_2=models.CLIPTextModelWithProjection(clip),
        tokenizer_2=clip_words,
        text_encoder_3=tiny_t5_encoder(t5_words, 16),
        tokenizer_3=t5_words,
        text_encoder_4=models.LlamaForCausalLM(llama),
        tokenizer_4=llama_words,
        transformer=classes.HiDreamImageTransformer2DModel(
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            caption_channels=[16, 16],
            text_emb_dim=32,
            num_routed_experts=2,
            num_activated_experts=1,
            axes_dims_rope=(4, 2, 2),
            max_resolution=(16, 16),
            llama_layers=[0, 1],  # as many as one guided image has rows: not to be mixed up
        ).eval(),  # it returns tokens while it is trained
    )
    # The pipeline scales every size to the area of this one.


def shorten(pipe: Pipeline) -> None:
    """Make images of the tiny size: its pipeline brings every other to one area."""
    pipe.default_sample_size = SIZE // pipe.vae_scale_factor


@torch.no_grad()
def plain_loop(
    pipe: Pipeline, prompts: list[str], negatives: list[str], steps: int, after: After
) -> torch.Tensor:
    images, side = len(prompts), SIZE // pipe.vae_scale_factor

    def encode(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        t5, _, llama, _, pooled, _ = pipe.encode_prompt(
            texts, do_classifier_free_guidance=False, max_sequence_length=LENGTH
        )
        return t5, llama, pooled

    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    scheduler.set_timesteps(N)
    latents = noise(images, 4, side, side)

    def predict(
        t5: torch.Tensor, llama: torch.Tensor, pooled: torch.Tensor, t: torch.Tensor
    ) -> torch.Tensor:
        rows = len(t5)
        output: torch.Tensor = pipe.transformer(
            hidden_states=latents.repeat(rows // images, 1, 1, 1),
            timesteps=t.expand(rows),
            encoder_hidden_states_t5=t5,
            encoder_hidden_states_llama3=llama,
            pooled_embeds=pooled,
        ).sample
        return -output

    positive, negative, null = encode(prompts), encode(negatives), encode([""] * images)
    for i, t in enumerate(scheduler.timesteps):
        against = negative if i < steps else null if after == "null" else None
        if against is None:
            predicted = predict(*positive, t)
        else:
            t5 = torch.cat([against[0], positive[0]])
            llama = torch.cat([against[1], positive[1]], dim=1)
            pooled = torch.cat([against[2], positive[2]])
            unconditional, conditional = predict(t5, llama, pooled, t).chunk(2)
            predicted = guide(SCALE, conditional, unconditional)
        latents = scheduler.step(predicted, t, latents).prev_sample
    return latents


CASE = Case(
    family="HiDream-I1",
    build=build,
    plain_loop=plain_loop,
    arguments={
        "height": SIZE,
        "width": SIZE,
        "guidance_scale": SCALE,
        "max_sequence_length": LENGTH,
    },
    without_cfg=lambda _: {"guidance_scale": 1.0},
    shorten=shorten,
)
