"""What the denoiser makes while it learns: a sample sheet, and how many samples are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from npc_local.shapes.claims import check
from npc_local.shapes.detect import detect
from npc_local.shapes.prompts import sample_records
from npc_local.shapes.reading import read
from npc_local.shapes.train.autoencoder import Autoencoder
from npc_local.shapes.train.denoiser import CHANNELS, SHIFT, Flow

_COLUMNS = 14


def scheduler() -> Any:
    """The FlowMatchEulerDiscreteScheduler that goes with the training's time steps."""
    classes: Any = diffusers  # which carry no types
    return classes.FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=SHIFT)


def unpack(tokens: Tensor) -> Tensor:
    """Image tokens (n, 64, 4c) to latents (n, c, 16, 16)."""
    n, number, width = tokens.shape
    side = int(number**0.5)
    grid = tokens.view(n, side, side, width // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return grid.reshape(n, width // 4, 2 * side, 2 * side)


@torch.no_grad()
def sample(
    flow: Flow,
    autoencoder: Autoencoder,
    prompts: list[str],
    *,
    scale: float,
    embedded: bool,
    steps: int = 20,
) -> list[Image.Image]:
    """One image a prompt, seeds 0, 1, 2, ...

    `scale` is classifier-free guidance by two forwards, or the embedded guidance if `embedded`.
    """
    noise = [
        torch.randn(1, 64, CHANNELS, generator=torch.Generator().manual_seed(seed))
        for seed in range(len(prompts))
    ]
    tokens = torch.cat(noise)
    number = len(prompts)
    words = flow.encode(*flow.text.tokenizers([prompt.lower() for prompt in prompts]))
    none = flow.encode(*flow.text.tokenizers([""] * number))
    euler = scheduler()
    euler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps))
    guidance = torch.full((number,), scale if embedded else 1.0)
    for time in euler.timesteps:
        now = (time / 1000).expand(number)
        with torch.autocast("cpu", torch.bfloat16):
            velocity = flow.velocity(tokens, now, guidance, words).float()
            if not embedded:
                unconditional = flow.velocity(tokens, now, guidance, none).float()
                velocity = torch.lerp(unconditional, velocity, scale)
        tokens = euler.step(velocity, time, tokens, return_dict=False)[0]
    pixels = autoencoder.decode(unpack(tokens) / autoencoder.config.scaling_factor).sample
    bytes_ = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(array) for array in bytes_]


def sheet(
    flow: Flow,
    autoencoder: Autoencoder,
    path: Path,
    *,
    per_tag: int,
    scale: float,
    embedded: bool,
) -> float:
    """Write a sheet of samples of training-side prompts; return the share that is right."""
    prompts = [record.prompt for record in sample_records(per_tag, seed=1, test=False)]
    images = sample(flow, autoencoder, prompts, scale=scale, embedded=embedded)
    right = [
        all(finding.holds for finding in check(read(prompt), detect(image)))
        for prompt, image in zip(prompts, images, strict=True)
    ]
    rows = -(-len(images) // _COLUMNS)
    page = Image.new("RGB", (_COLUMNS * 70, rows * 70), "white")
    for index, (image, good) in enumerate(zip(images, right, strict=True)):
        frame = Image.new("RGB", (68, 68), "green" if good else "red")
        frame.paste(image, (2, 2))
        page.paste(frame, (index % _COLUMNS * 70, index // _COLUMNS * 70))
    page.resize((page.width * 2, page.height * 2), Image.Resampling.NEAREST).save(path)
    return sum(right) / len(right)
