"""Saves the trained parts as an ordinary diffusers FLUX pipeline directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch

from npc_local.shapes.train.autoencoder import Autoencoder
from npc_local.shapes.train.denoiser import Flow
from npc_local.shapes.train.samples import scheduler


def export(flow: Flow, autoencoder: Autoencoder, directory: Path) -> None:
    """Write model_index.json, configs, tokenizers and safetensors to `directory`.

    Denoiser and autoencoder are kept in bfloat16, to be small. The text encoders are not:
    transformers loads what it finds, diffusers float32, and FluxPipeline wants both alike.
    """
    text = flow.text
    text.tie_case()
    classes: Any = diffusers  # which carry no types
    pipeline = classes.FluxPipeline(
        scheduler=scheduler(),
        vae=autoencoder,
        text_encoder=text.clip,
        tokenizer=text.tokenizers.clip,
        text_encoder_2=text.t5,
        tokenizer_2=text.tokenizers.t5,
        transformer=flow.denoiser,
    )
    pipeline.transformer.to(torch.bfloat16)
    pipeline.vae.to(torch.bfloat16)
    pipeline.save_pretrained(directory, safe_serialization=True)
