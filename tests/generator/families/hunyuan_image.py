"""HunyuanImage-2.1: two calls a step, combined by a guider that remembers the steps before.

Quoted words go through a second text encoder; here only the negatives have some.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from npc_local.generator.family import After, Pipeline
from tests.generator.families.case import Case, N, guide, noise
from tests.generator.families.parts import tiny_qwen_tokenizer, tiny_qwen_vl, tiny_t5_encoder

SIZE = 32
GUIDER = {
    "guidance_scale": 1.8,
    "adaptive_projected_guidance_scale": 2.5,
    "adaptive_projected_guidance_momentum": -0.5,
    "adaptive_projected_guidance_rescale": 0.1,  # shortens some updates, not all
    "adaptive_projected_guidance_start_step": 0,  # the last step of CFG
    "eta": 0.25,
}


def build() -> Pipeline:
    import diffusers
    import transformers

    classes: Any = diffusers
    tokenizer = tiny_qwen_tokenizer()
    glyphs: Any = transformers.ByT5Tokenizer()
    return classes.HunyuanImagePipeline(
        scheduler=classes.FlowMatchEulerDiscreteScheduler(shift=5.0),
        vae=classes.AutoencoderKLHunyuanImage(
            in_channels=3,
            out_channels=3,
            latent_channels=4,
            block_out_channels=(32, 32, 32),
            layers_per_block=1,
            spatial_compression_ratio=4,
            sample_size=SIZE,
            scaling_factor=0.75,
        ),
        text_encoder=tiny_qwen_vl(tokenizer),
        tokenizer=tokenizer,
        text_encoder_2=tiny_t5_encoder(glyphs, 16),
        tokenizer_2=glyphs,
        transformer=classes.HunyuanImageTransformer2DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=1,
            num_single_layers=1,
            num_refiner_layers=1,
            text_embed_dim=16,
            text_embed_2_dim=16,
            rope_axes_dim=(4, 4),
        ).eval(),
        guider=classes.AdaptiveProjectedMixGuidance(**GUIDER),
    )
    # Shorter than the makers', whose letters would outnumber the prompt's.


def quoting(texts: list[str]) -> list[str]:
    return [f'{text} and "12"' for text in texts]


def shorten(pipe: Pipeline) -> None:
    """Read few tokens: the makers' template and lengths take most of the time."""
    pipe.prompt_template_encode = "<|im_start|>user\n{}<|im_end|>"
    pipe.prompt_template_encode_start_idx = 6
    pipe.tokenizer_max_length = pipe.tokenizer_2_max_length = 32


@torch.no_grad()
def plain_loop(
    pipe: Pipeline, prompts: list[str], negatives: list[str], steps: int, after: After
) -> torch.Tensor:
    images, side = len(prompts), SIZE // pipe.vae_scale_factor
    schedule = type(pipe.scheduler).from_config(pipe.scheduler.config)
    schedule.set_timesteps(sigmas=np.linspace(1, 0, N + 1)[:-1])
    latents = noise(images, 4, side, side)

    def encode(texts: list[str]) -> tuple[torch.Tensor, ...]:
        encoded: tuple[torch.Tensor, ...] = pipe.encode_prompt(texts, batch_size=images)
        return encoded

    def predict(text: tuple[torch.Tensor, ...], i: int) -> torch.Tensor:
        output: torch.Tensor = pipe.transformer(
            hidden_states=latents,
            timestep=schedule.timesteps[i].expand(images),
            encoder_hidden_states=text[0],
            encoder_attention_mask=text[1],
            encoder_hidden_states_2=text[2],
            encoder_attention_mask_2=text[3],
        ).sample
        return output

    def project(
        conditional: torch.Tensor, unconditional: torch.Tensor, average: torch.Tensor
    ) -> torch.Tensor:
        """Adaptive projected guidance: shortens `average`, then its part along `conditional`."""
        dims: Any = (-3, -2, -1)
        limit = GUIDER["adaptive_projected_guidance_rescale"]
        length = average.norm(p=2, dim=dims, keepdim=True)
        update = average * torch.minimum(torch.ones_like(average), limit / length)
        direction = torch.nn.functional.normalize(conditional.double(), dim=dims)
        along = (update.double() * direction).sum(dims, keepdim=True) * direction
        across = (update.double() - along).float()
        scale = GUIDER["adaptive_projected_guidance_scale"]
        return unconditional + scale * (across + GUIDER["eta"] * along.float())

    positive, negative, null = encode(prompts), encode(quoting(negatives)), encode([""] * images)
    average = torch.zeros_like(latents)
    for i in range(N):
        velocity = predict(positive, i)
        against = negative if i < steps else null if after == "null" else None
        if against is not None:
            unconditional = predict(against, i)
            momentum = GUIDER["adaptive_projected_guidance_momentum"]
            average = (velocity - unconditional) + momentum * average
            if i <= GUIDER["adaptive_projected_guidance_start_step"]:
                velocity = guide(GUIDER["guidance_scale"], velocity, unconditional)
            else:
                velocity = project(velocity, unconditional, average)
        latents = latents + (schedule.sigmas[i + 1] - schedule.sigmas[i]) * velocity
    return latents


def without_cfg(pipe: Pipeline) -> dict[str, Any]:
    pipe.guider.disable()
    return {}


CASE = Case(
    family="HunyuanImage-2.1",
    build=build,
    plain_loop=plain_loop,
    arguments={"height": SIZE, "width": SIZE},
    without_cfg=without_cfg,
    negative=lambda _, texts: {"negative_prompt": quoting(texts)},
    shorten=shorten,
)
