"""Kolors: an SDXL-like loop with the text of a ChatGLM; the null prompt is encoded text."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from npc_local.generator.family import After, Pipeline
from tests.generator.families.case import NEGATIVES, PROMPTS, Case, N, guide, noise
from tests.generator.families.parts import drawn_anew, tiny_kl_autoencoder

SIZE, SCALE, WIDTH = 32, 1.8, 32
_FOLDER = tempfile.TemporaryDirectory()


def _tokenizer() -> Any:
    """Return the pipeline's own tokenizer over a few SentencePiece words."""
    from diffusers.pipelines import kolors

    classes: Any = kolors
    sentencepiece = pytest.importorskip("sentencepiece")
    words = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(PROMPTS + NEGATIVES),
        model_writer=words,
        vocab_size=40,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    path = Path(_FOLDER.name, "tokenizer.model")  # which saving the pipeline copies
    path.write_bytes(words.getvalue())
    return classes.ChatGLMTokenizer(str(path))


def _text_encoder(vocabulary: int) -> Any:
    from diffusers.pipelines.kolors import text_encoder

    classes: Any = text_encoder
    encoder = classes.ChatGLMModel(
        classes.ChatGLMConfig(
            num_layers=2,
            padded_vocab_size=vocabulary,
            hidden_size=WIDTH,
            ffn_hidden_size=48,
            kv_channels=16,
            num_attention_heads=2,
            seq_length=256,
            add_qkv_bias=True,
            multi_query_attention=True,
            multi_query_group_num=1,
            original_rope=True,
        ),
        empty_init=False,
    )
    return drawn_anew(encoder)  # whose class leaves some parameters as the memory was


def build() -> Pipeline:
    import diffusers

    classes: Any = diffusers
    tokenizer = _tokenizer()
    return classes.KolorsPipeline(
        scheduler=classes.EulerDiscreteScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.014,
            num_train_timesteps=1100,
            steps_offset=1,
            timestep_spacing="leading",
        ),
        vae=tiny_kl_autoencoder(),
        text_encoder=_text_encoder(tokenizer.vocab_size),
        tokenizer=tokenizer,
        unet=classes.UNet2DConditionModel(
            sample_size=16,
            in_channels=4,
            out_channels=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(8, 16),
            layers_per_block=1,
            cross_attention_dim=16,
            attention_head_dim=(2, 4),
            transformer_layers_per_block=(1, 1),
            norm_num_groups=4,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + WIDTH,
            encoder_hid_dim=WIDTH,
            encoder_hid_dim_type="text_proj",
        ),
        force_zeros_for_empty_prompt=False,
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
    latents: torch.Tensor = noise(images, 4, side, side) * scheduler.init_noise_sigma
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
    family="Kolors",
    build=build,
    plain_loop=plain_loop,
    arguments={"height": SIZE, "width": SIZE, "guidance_scale": SCALE},
    without_cfg=lambda _: {"guidance_scale": 1.0},
)
