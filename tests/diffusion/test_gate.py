"""The gate against a plain Euler loop that knows nothing of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from npc_local.diffusion.gate import After, Pipeline, check_true_cfg_scale, early_negative
from npc_local.errors import ConfigError

N = 5
SIZE = 32
LENGTH = 24
GUIDANCE = 3.5
SCALE = 1.8
PROMPTS = ["two red cats", "three clocks"]
NEGATIVES = ["one cat", "red clock"]


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator("cpu").manual_seed(7 + index) for index in range(count)]


def sample(pipe: Pipeline, images: int = 1, **changes: Any) -> torch.Tensor:
    """Call the pipeline as a user would, up to the packed latents."""
    arguments: dict[str, Any] = {
        "prompt": PROMPTS[:images],
        "negative_prompt": NEGATIVES[:images],
        "true_cfg_scale": SCALE,
        "guidance_scale": GUIDANCE,
        "num_inference_steps": N,
        "height": SIZE,
        "width": SIZE,
        "max_sequence_length": LENGTH,
        "generator": generators(images),
        "output_type": "latent",
    }
    result: torch.Tensor = pipe(**(arguments | changes)).images
    return result


@torch.no_grad()
def plain_loop(pipe: Pipeline, images: int, steps: int, after: After) -> torch.Tensor:
    """The rule written out: i < steps sees the negative, later steps see nothing or the null."""

    def encode(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        embeds, pooled, _ = pipe.encode_prompt(texts, max_sequence_length=LENGTH)
        return embeds, pooled

    side = SIZE // pipe.vae_scale_factor // 2
    noise = torch.cat([torch.randn(1, 4, 2 * side, 2 * side, generator=g) for g in generators(2)])
    latents = noise[:images].reshape(images, 4, side, 2, side, 2).permute(0, 2, 4, 1, 3, 5)
    latents = latents.reshape(images, side * side, 16)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    positions = torch.stack([torch.zeros_like(rows), rows, columns], -1).reshape(-1, 3).float()

    config = pipe.scheduler.config
    slope = (config.max_shift - config.base_shift) / (
        config.max_image_seq_len - config.base_image_seq_len
    )
    mu = config.base_shift + slope * (side * side - config.base_image_seq_len)
    # The table of noise levels is diffusers' own: its rounding is not what is tested here.
    schedule = type(pipe.scheduler).from_config(config)
    schedule.set_timesteps(sigmas=np.linspace(1, 1 / N, N), mu=mu)
    sigmas, times = schedule.sigmas, schedule.timesteps

    def predict(text: tuple[torch.Tensor, torch.Tensor], i: int) -> torch.Tensor:
        output: torch.Tensor = pipe.transformer(
            hidden_states=latents,
            timestep=times[i].expand(images) / 1000,
            guidance=torch.full((images,), GUIDANCE),
            encoder_hidden_states=text[0],
            pooled_projections=text[1],
            txt_ids=torch.zeros(LENGTH, 3),
            img_ids=positions,
            return_dict=False,
        )[0]
        return output

    positive, negative = encode(PROMPTS[:images]), encode(NEGATIVES[:images])
    embeds, pooled = encode([""])
    null = embeds.expand(images, -1, -1), pooled.expand(images, -1)
    for i in range(N):
        velocity = predict(positive, i)
        against = negative if i < steps else null if after == "null" else None
        if against is not None:
            other = predict(against, i)
            velocity = other + SCALE * (velocity - other)
        latents = latents + (sigmas[i + 1] - sigmas[i]) * velocity
    return latents


@pytest.mark.parametrize("after", ["off", "null"])
@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("steps", [1, 3])
def test_matches_the_plain_loop_bit_for_bit(
    pipe: Pipeline, after: After, images: int, steps: int
) -> None:
    with early_negative(pipe, steps, after, max_sequence_length=LENGTH) as gate:
        gated = sample(pipe, images)
    assert torch.equal(gated, plain_loop(pipe, images, steps, after))
    assert gate.forwards == (N + steps if after == "off" else 2 * N)


def test_each_setting_makes_another_image(pipe: Pipeline) -> None:
    """Guards the equalities of this file against a model that ignores its text."""
    made = [sample(pipe), sample(pipe, negative_prompt=None)]
    for steps, after in ((1, "off"), (3, "off"), (0, "null"), (3, "null")):
        with early_negative(pipe, steps, after, max_sequence_length=LENGTH):  # type: ignore[arg-type]
            made.append(sample(pipe))
    assert len({latents.numpy().tobytes() for latents in made}) == len(made)


def test_no_steps_and_off_is_the_baseline_without_negative(pipe: Pipeline) -> None:
    with early_negative(pipe, 0, "off") as gate:
        gated = sample(pipe)
    assert torch.equal(gated, sample(pipe, negative_prompt=None))
    assert gate.forwards == N


def test_no_steps_and_null_is_the_baseline_with_the_null_prompt(pipe: Pipeline) -> None:
    with early_negative(pipe, 0, "null", max_sequence_length=LENGTH):
        gated = sample(pipe)
    assert torch.equal(gated, sample(pipe, negative_prompt=""))


@pytest.mark.parametrize("steps", [N, N + 9])
@pytest.mark.parametrize("after", ["off", "null"])
def test_all_steps_is_the_stock_pipeline(pipe: Pipeline, steps: int, after: After) -> None:
    stock = sample(pipe, 2)
    with early_negative(pipe, steps, after, max_sequence_length=LENGTH) as gate:
        assert torch.equal(sample(pipe, 2), stock)
    assert gate.forwards == 2 * N


def test_embeddings_serve_as_well_as_texts(pipe: Pipeline) -> None:
    with early_negative(pipe, 2, "null", max_sequence_length=LENGTH):
        from_texts = sample(pipe)
    with torch.no_grad():
        encoded = [
            pipe.encode_prompt(text, max_sequence_length=LENGTH)[:2]
            for text in (PROMPTS[0], NEGATIVES[0], "")
        ]
    (embeds, pooled), (negative_embeds, negative_pooled), null = encoded
    pipe.text_encoder_2 = None  # so that nothing can be encoded anew
    with early_negative(pipe, 2, "null", null=null):
        from_embeddings = sample(
            pipe,
            prompt=None,
            negative_prompt=None,
            prompt_embeds=embeds,
            pooled_prompt_embeds=pooled,
            negative_prompt_embeds=negative_embeds,
            negative_pooled_prompt_embeds=negative_pooled,
        )
    assert torch.equal(from_embeddings, from_texts)


def test_every_call_inside_starts_at_its_first_step(pipe: Pipeline) -> None:
    def fail_in_step_1(pipe: Pipeline, step: int, *_: Any) -> dict[str, Any]:
        if step == 1:
            raise KeyboardInterrupt
        return {}

    with early_negative(pipe, 3) as gate:
        first = sample(pipe)
        assert torch.equal(sample(pipe), first)
        assert gate.forwards == 2 * (N + 3)
        with pytest.raises(KeyboardInterrupt):
            sample(pipe, callback_on_step_end=fail_in_step_1)
        assert torch.equal(sample(pipe), first)


def test_survives_offload_hooks_that_the_pipeline_renews(pipe: Pipeline) -> None:
    """enable_model_cpu_offload removes and adds its hooks after every call."""
    from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module

    with early_negative(pipe, 3):
        expected = sample(pipe)
    stock = sample(pipe)
    add_hook_to_module(pipe.transformer, ModelHook())
    with early_negative(pipe, 3) as gate:
        assert torch.equal(sample(pipe), expected)
        remove_hook_from_module(pipe.transformer)
        add_hook_to_module(pipe.transformer, ModelHook())
        assert torch.equal(sample(pipe), expected)
        assert gate.forwards == 2 * (N + 3)
    assert torch.equal(sample(pipe), stock)
    remove_hook_from_module(pipe.transformer)
    assert torch.equal(sample(pipe), stock)


@pytest.mark.parametrize("own_forward", [False, True])
def test_the_pipeline_is_restored_after_an_exception(pipe: Pipeline, own_forward: bool) -> None:
    if own_forward:  # as caches and hooks leave it
        pipe.transformer.forward = pipe.transformer.forward
    stock, before = sample(pipe), dict(vars(pipe.transformer))

    def fail_inside() -> None:
        with early_negative(pipe):
            assert vars(pipe.transformer) != before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert vars(pipe.transformer) == before
    assert torch.equal(sample(pipe), stock)


def test_nested_use_is_refused_and_leaves_the_outer_gate_alone(pipe: Pipeline) -> None:
    with early_negative(pipe, 3) as gate:
        with pytest.raises(ConfigError, match="already active"), early_negative(pipe, 1):
            pass
        sample(pipe)
    assert gate.forwards == N + 3


@pytest.mark.parametrize(
    "ignored",
    [
        {"true_cfg_scale": 1.0},
        {"negative_prompt": None},
        {"true_cfg_scale": 1.0, "num_inference_steps": 1},
    ],
)
def test_a_call_that_ignores_the_negative_is_refused(
    pipe: Pipeline, ignored: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match="ignored the negative"), early_negative(pipe):
        sample(pipe, **ignored)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"steps": -1}, "0 or more"), ({"after": "later"}, "'off' or 'null'")],
)
def test_arguments_out_of_range_are_refused(
    pipe: Pipeline, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message), early_negative(pipe, **arguments):
        pass


def test_a_null_prompt_of_another_length_is_refused(pipe: Pipeline) -> None:
    with (
        pytest.raises(ConfigError, match="max_sequence_length"),
        early_negative(pipe, 0, "null", max_sequence_length=LENGTH + 1),
    ):
        sample(pipe)


def test_other_pipelines_are_refused_by_name() -> None:
    class SanaPipeline:
        pass

    with (
        pytest.raises(ConfigError, match="not SanaPipeline"),
        early_negative(SanaPipeline()),
    ):
        pass


@pytest.mark.parametrize("scale", [1.0, 0.0, float("nan")])
def test_a_scale_that_ignores_the_negative_is_refused(scale: float) -> None:
    with pytest.raises(ConfigError, match="greater than 1"):
        check_true_cfg_scale(scale)


def test_a_scale_above_one_is_accepted() -> None:
    check_true_cfg_scale(1.01)
