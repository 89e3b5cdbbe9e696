"""Saves the trained parts as an ordinary diffusers FLUX pipeline directory."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderTiny, FluxPipeline

from npc_local.shapes.train.denoiser import Flow
from npc_local.shapes.train.samples import scheduler


def export(flow: Flow, autoencoder: AutoencoderTiny, directory: Path) -> None:
    """Write model_index.json, configs, tokenizers and bfloat16 safetensors to `directory`."""
    text = flow.text
    text.tie_case()
    pipeline = FluxPipeline(
        scheduler=scheduler(),
        vae=autoencoder,
        text_encoder=text.clip,
        tokenizer=text.tokenizers.clip,
        text_encoder_2=text.t5,
        tokenizer_2=text.tokenizers.t5,
        transformer=flow.denoiser,
    )
    pipeline.to(torch.bfloat16).save_pretrained(directory, safe_serialization=True)
