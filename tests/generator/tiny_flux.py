"""A real FLUX pipeline with tiny random weights, written to a directory without any network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.generator.families.parts import (
    CLIP_LENGTH,
    tiny_clip_tokenizer,
    tiny_kl_autoencoder,
    tiny_t5_tokenizer,
)


def build_tiny_flux(directory: Path) -> Path:
    """Save the pipeline in diffusers' layout and return `directory`."""
    import diffusers
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    classes: Any = diffusers  # whose constructors carry no types
    clip_tokenizer, t5_tokenizer = tiny_clip_tokenizer(), tiny_t5_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = classes.FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=24,
            axes_dims_rope=(4, 4, 8),
            guidance_embeds=True,
        )
        vae = tiny_kl_autoencoder(
            use_quant_conv=False,
            use_post_quant_conv=False,
            shift_factor=0.1,
            scaling_factor=0.4,
        )
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(clip_tokenizer),
                hidden_size=24,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=CLIP_LENGTH,
                bos_token_id=clip_tokenizer.bos_token_id,
                eos_token_id=clip_tokenizer.eos_token_id,
                pad_token_id=clip_tokenizer.pad_token_id,
            )
        )
        text_encoder_2 = T5EncoderModel(
            T5Config(
                vocab_size=len(t5_tokenizer),
                d_model=32,
                d_ff=48,
                d_kv=8,
                num_layers=2,
                num_heads=2,
                feed_forward_proj="gated-gelu",
            )
        )
    classes.FluxPipeline(
        scheduler=classes.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=clip_tokenizer,
        text_encoder_2=text_encoder_2,
        tokenizer_2=t5_tokenizer,
        transformer=transformer,
    ).save_pretrained(directory, safe_serialization=True)
    return directory
