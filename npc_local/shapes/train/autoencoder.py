"""The image autoencoder: `AutoencoderTiny`, 64 x 64 x 3 pixels to 16 x 16 x 8 latents and back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, TypeAlias

import diffusers
import torch
from torch import Tensor, nn
from torch.nn import functional

from npc_local.shapes.train.data import Corpus, pixels
from npc_local.shapes.train.progress import Means, Run

# diffusers.AutoencoderTiny; diffusers carries no types.
Autoencoder: TypeAlias = Any

LATENTS = 8  # channels
_WIDTH = 32
_EVEN_AT = 0.6  # share of the steps after which the channels are evened out; the rest heals borders
_SPREAD = 0.4  # standard deviation given to every channel: keeps the decoder's tanh near identity


def new_autoencoder() -> Autoencoder:
    """An untrained autoencoder."""
    classes: Any = diffusers
    return classes.AutoencoderTiny(
        encoder_block_out_channels=(_WIDTH, _WIDTH, _WIDTH),
        decoder_block_out_channels=(_WIDTH, _WIDTH, _WIDTH),
        num_encoder_blocks=(0, 1, 2),
        num_decoder_blocks=(2, 2, 1),
        latent_channels=LATENTS,
    )


def train_autoencoder(corpus: Corpus, work: Path, steps: int, batch: int = 32) -> Autoencoder:
    """Train on the corpus's pictures and even out the latent channels.

    The loss is the absolute error, with noise on the latents so that nearby latents decode alike.
    """
    run = Run(work, "autoencoder", steps)
    model = new_autoencoder().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.98), weight_decay=0.0)
    means = Means()
    for step in run.count(run.resume(model=model, optimizer=optimizer)):
        if step == int(_EVEN_AT * steps):
            _even_channels(model, corpus)
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, step / 100) * (0.02 + 0.98 * _cosine(step / steps))
        chosen = torch.randint(len(corpus.images), (batch,))
        real = pixels(corpus.images[chosen]).contiguous(memory_format=torch.channels_last)
        loss, pull = _losses(model, real)
        torch.autograd.backward(loss + 1e-4 * pull)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        means.add(loss=loss)
        if run.due(step + 1, 200):
            run.log(step + 1, **means.take())
        if run.due(step + 1, 1000):
            run.save(step + 1, model=model, optimizer=optimizer)
    spread = float(latents(model, corpus.images[:4000]).std())
    model.register_to_config(scaling_factor=1 / spread, shift_factor=0.0)
    return model.eval()


def _losses(model: Autoencoder, real: Tensor) -> tuple[Tensor, Tensor]:
    """Error of the pictures, and a weak pull to zero: it keeps latents in the decoder's tanh."""
    with torch.autocast("cpu", torch.bfloat16):
        latent = model.encoder(real)
        latent = latent + 0.03 * torch.randn_like(latent)
        decoded = model.decoder(latent)
    error = decoded.float() - real
    return error.abs().mean() + error.square().mean(), latent.float().square().mean()


def _cosine(share: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * share))


@torch.no_grad()
def latents(model: Autoencoder, images: Tensor, batch: int = 256) -> Tensor:
    """Encode bytes (n, 3, 64, 64) to unscaled latents (n, 8, 16, 16), float32."""
    return torch.cat([model.encode(pixels(part)).latents for part in torch.split(images, batch)])


@torch.no_grad()
def _even_channels(model: Autoencoder, corpus: Corpus) -> None:
    """Fold a rescale into the last encoder and the first decoder convolution.

    Channels come out with standard deviations up to five times apart, which starves the small ones
    in diffusion. All get `_SPREAD`; the pipeline's scaling factor then makes them unit-sized.
    """
    encoded = latents(model, corpus.images[:4000])
    mean, spread = encoded.mean((0, 2, 3)), encoded.std((0, 2, 3))
    gain = _SPREAD / spread
    last, first = model.encoder.layers[-1], model.decoder.layers[0]
    shown = functional.conv2d(mean.view(1, -1, 1, 1).expand(1, -1, 3, 3), first.weight).flatten()
    last.weight.mul_(gain.view(-1, 1, 1, 1))
    last.bias.sub_(mean).mul_(gain)
    first.weight.div_(gain.view(1, -1, 1, 1))
    first.bias.add_(shown)
