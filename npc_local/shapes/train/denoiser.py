"""The denoiser: `FluxTransformer2DModel`, flow matching, then guidance distillation.

Phase 1 learns the velocity field at embedded guidance 1, captions dropped for one scene in ten.
Phase 2 teaches the same network to answer, in one forward, what classifier-free guidance at a
random scale would: the embedded guidance of FLUX.1-dev.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor, nn
from torch.nn import functional

from npc_local.shapes.train.autoencoder import LATENTS
from npc_local.shapes.train.data import CLASSES, TOKEN_GRID
from npc_local.shapes.train.progress import Means, Run
from npc_local.shapes.train.text import CLIP_WIDTH, T5_WIDTH, TextEncoders
from npc_local.shapes.train.tokens import T5_LENGTH

CHANNELS = 4 * LATENTS  # of a 2x2-packed image token
SHIFT = 3.5  # of the time steps, in training and in the scheduler
_HEADS, _HEAD = 6, 32
BATCH = 64  # scenes a step
_GUIDANCE = (1.0, 6.0)  # range of the distilled scales
_GAUGE_TIMES = (0.5, 0.7, 0.8, 0.9, 0.97)


def new_denoiser() -> Any:
    """An untrained FluxTransformer2DModel whose blocks all begin as the identity."""
    classes: Any = diffusers  # which carry no types
    model = classes.FluxTransformer2DModel(
        patch_size=1,
        in_channels=CHANNELS,
        num_layers=2,
        num_single_layers=5,
        attention_head_dim=_HEAD,
        num_attention_heads=_HEADS,
        joint_attention_dim=T5_WIDTH,
        pooled_projection_dim=CLIP_WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(8, 12, 12),
    )
    for name, module in model.named_modules():
        silent = name.endswith(("norm.linear", "norm1.linear", "norm1_context.linear"))
        if silent or name in ("norm_out.linear", "proj_out"):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return model


def pack(latents: Tensor) -> Tensor:
    """(n, c, 16, 16) to image tokens (n, 64, 4c), as FluxPipeline packs them."""
    n, c, h, w = latents.shape
    grid = latents.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return grid.reshape(n, h * w // 4, c * 4)


def image_ids() -> Tensor:
    """Row and column of every image token, (64, 3), as FluxPipeline gives them."""
    ids = torch.zeros(TOKEN_GRID, TOKEN_GRID, 3)
    ids[..., 1] = torch.arange(TOKEN_GRID)[:, None]
    ids[..., 2] = torch.arange(TOKEN_GRID)[None, :]
    return ids.view(-1, 3)


Words = tuple[Tensor, Tensor]  # T5's hidden states (n, 26, 128), CLIP's pooled output (n, 96)


@dataclass(frozen=True, slots=True)
class Latents:
    """The training set ready for the denoiser.

    tokens: (n, 64, 32) packed unit-sized latents; labels: (n, 64); t5 and clip: token ids of
    `captions` captions a scene, (n * captions, length).
    """

    tokens: Tensor
    labels: Tensor
    t5: Tensor
    clip: Tensor
    captions: int


class Flow(nn.Module):
    """Denoiser, text encoders and the label head that helps them learn."""

    def __init__(self, text: TextEncoders) -> None:
        super().__init__()
        self.text = text
        self.denoiser = new_denoiser()
        width = _HEADS * _HEAD
        self.labels = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, CLASSES))
        self._seen: list[Tensor] = []
        self.denoiser.single_transformer_blocks[1].register_forward_hook(self._keep)
        self.register_buffer("image_ids", image_ids(), persistent=False)
        self.register_buffer("text_ids", torch.zeros(T5_LENGTH, 3), persistent=False)

    def _keep(self, _module: nn.Module, _args: object, output: tuple[Tensor, Tensor]) -> None:
        self._seen[:] = [output[1]]

    def encode(self, t5_ids: Tensor, clip_ids: Tensor) -> Words:
        """Captions' token ids as `velocity` takes them."""
        words: Words = self.text(t5_ids, clip_ids)
        return words

    def velocity(self, noisy: Tensor, time: Tensor, guidance: Tensor, words: Words) -> Tensor:
        """Velocity (n, 64, 32) at `noisy` for time in [0, 1], scale (n,) and encoded text."""
        velocity: Tensor = self.denoiser(
            hidden_states=noisy,
            encoder_hidden_states=words[0],
            pooled_projections=words[1],
            timestep=time,
            guidance=guidance,
            img_ids=self.image_ids,
            txt_ids=self.text_ids,
            return_dict=False,
        )[0]
        return velocity

    def label_logits(self) -> Tensor:
        """What each image token of the last forward seems to show, (n, 64, classes)."""
        logits: Tensor = self.labels(self._seen[0].float())
        return logits


Show = Callable[[Flow, str], float]  # writes a named sample sheet, returns the share that is right


def sample_times(number: int) -> Tensor:
    """Times in (0, 1), logit-normal and shifted towards noise, where layout is decided."""
    even = torch.sigmoid(torch.randn(number) * 1.2)
    return SHIFT * even / (1 + (SHIFT - 1) * even)


def _optimizers(flow: Flow, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW for everything else, slower for the text encoders."""
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for name, weight in flow.denoiser.named_parameters():
        in_block = "transformer_blocks" in name and weight.ndim == 2 and "norm" not in name
        (matrices if in_block else others).append(weight)
    others += flow.labels.parameters()
    slow = {"params": list(flow.text.parameters()), "lr": 0.2 * rate}
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(
            [{"params": others, "lr": 0.7 * rate}, slow], betas=(0.9, 0.98), weight_decay=0.0
        ),
    ]


def train_flow(
    flow: Flow,
    data: Latents,
    work: Path,
    steps: int,
    show: Show,
    *,
    batch: int = BATCH,
    compiled: bool = True,
) -> Flow:
    """Phase 1. Returns the exponential moving average of the weights."""
    run = Run(work, "denoiser", steps)
    optimizers = _optimizers(flow, 2e-3)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    rates = [group["lr"] for group in groups]
    average = copy.deepcopy(flow)
    start = run.resume(model=flow, average=average, optimizers=optimizers)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    if compiled:
        flow.denoiser.compile_repeated_blocks()
    means = Means()
    for step in run.count(start):
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate * _rate(step, steps)
        error, label = _losses(flow, data, batch)
        torch.autograd.backward(error + 0.1 * label)
        nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        _follow(average, flow, min(0.998, (step + 1) / (step + 20)))
        means.add(flow=error, label=label)
        if run.due(step + 1, 100):
            run.log(step + 1, **means.take())
        if (step + 1) % 500 == 0:
            run.log(step + 1, **gauge(average, data))
            run.log(step + 1, right=show(average, f"step-{step + 1:05}"))
        if run.due(step + 1, 250):
            run.save(step + 1, model=flow, average=average, optimizers=optimizers)
    return average


def _rate(step: int, steps: int) -> float:
    """Warm-up over 150 steps, flat, then straight down over the last 40 %."""
    left = (steps - step) / (0.4 * steps)
    return min(1.0, (step + 1) / 150, max(left, 0.01))


def _batch(data: Latents, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Some scenes, each with one of its captions: clean tokens, labels, T5 ids, CLIP ids."""
    scenes = torch.randint(len(data.tokens), (number,))
    captions = scenes * data.captions + torch.randint(data.captions, (number,))
    return data.tokens[scenes].float(), data.labels[scenes], data.t5[captions], data.clip[captions]


def _losses(flow: Flow, data: Latents, batch: int) -> tuple[Tensor, Tensor]:
    clean, labels, t5, clip = _batch(data, batch)
    time, noise = sample_times(batch), torch.randn_like(clean)
    noisy = torch.lerp(clean, noise, time.view(-1, 1, 1))
    with torch.autocast("cpu", torch.bfloat16):
        guess = flow.velocity(noisy, time, torch.ones(batch), flow.encode(t5, clip))
    error = functional.mse_loss(guess.float(), noise - clean)
    label = functional.cross_entropy(flow.label_logits().flatten(0, 1), labels.flatten().long())
    return error, label


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    averaged: list[Tensor] = list(average.parameters())
    fresh: list[Tensor] = list(model.parameters())
    torch._foreach_lerp_(averaged, fresh, 1 - decay)


@torch.no_grad()
def gauge(flow: Flow, data: Latents) -> dict[str, float]:
    """Does the denoiser read? Loss with the right caption, none, and another's, on fixed noise."""
    random = torch.Generator().manual_seed(1)
    clean = data.tokens[:256].float()
    number = len(clean)
    noise = torch.randn(clean.shape, generator=random)
    captions = torch.arange(number) * data.captions
    words = flow.encode(data.t5[captions], data.clip[captions])
    other = words[0].roll(1, 0), words[1].roll(1, 0)
    losses = {}
    for time in _GAUGE_TIMES:
        times = torch.full((number,), time)
        noisy = torch.lerp(clean, noise, time)
        for name, caption in (("right", words), ("none", _null(flow, number)), ("other", other)):
            guess = flow.velocity(noisy, times, torch.ones(number), caption)
            losses[f"{name}@{time}"] = float(functional.mse_loss(guess, noise - clean))
    return losses


def distil_guidance(
    teacher: Flow,
    data: Latents,
    work: Path,
    steps: int,
    *,
    batch: int = BATCH,
    compiled: bool = True,
) -> Flow:
    """Phase 2. Returns a student whose embedded guidance does the work of CFG in one forward."""
    run = Run(work, "guidance", steps)
    teacher = teacher.eval().requires_grad_(False)
    student = copy.deepcopy(teacher)
    student.denoiser.requires_grad_(True)
    average = copy.deepcopy(student)
    optimizer = torch.optim.AdamW(student.denoiser.parameters(), lr=3e-4, betas=(0.9, 0.98))
    start = run.resume(model=student, average=average, optimizer=optimizer)
    null = _null(teacher, batch)
    if compiled:
        teacher.denoiser.compile_repeated_blocks()
        student.denoiser.compile_repeated_blocks()
    means = Means()
    for step in run.count(start):
        optimizer.param_groups[0]["lr"] = 3e-4 * _rate(step, steps)
        loss = _guidance_loss(student, teacher, null, data)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(student.denoiser.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _follow(average, student, min(0.99, (step + 1) / (step + 20)))
        means.add(loss=loss)
        if run.due(step + 1, 50):
            run.log(step + 1, **means.take())
        if run.due(step + 1, 200):
            run.save(step + 1, model=student, average=average, optimizer=optimizer)
    return average


def _null(flow: Flow, number: int) -> Words:
    """The empty caption, `number` times."""
    t5, clip = flow.text.tokenizers([""])
    return flow.encode(t5.repeat(number, 1), clip.repeat(number, 1))


def _guidance_loss(student: Flow, teacher: Flow, null: Words, data: Latents) -> Tensor:
    batch = len(null[0])
    clean, _, t5, clip = _batch(data, batch)
    time, noise = sample_times(batch), torch.randn_like(clean)
    noisy = torch.lerp(clean, noise, time.view(-1, 1, 1))
    low, high = _GUIDANCE
    scale = low + (high - low) * torch.rand(batch)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            words = teacher.encode(t5, clip)
            unguided = torch.ones(batch)
            conditional = teacher.velocity(noisy, time, unguided, words).float()
            unconditional = teacher.velocity(noisy, time, unguided, null).float()
        guess = student.velocity(noisy, time, scale, words)
    target = torch.lerp(unconditional, conditional, scale.view(-1, 1, 1))
    return functional.mse_loss(guess.float(), target)
