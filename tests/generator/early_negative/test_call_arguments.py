"""What the user passes reaches the pipeline as it would without us, whatever the signature."""

from __future__ import annotations

import functools
from typing import Any

import diffusers
import pytest
import torch

from npc_local.core.errors import ConfigError
from npc_local.core.records import Shot
from npc_local.generator.early_negative.call_arguments import CallArguments, hands_on, parameters
from npc_local.generator.early_negative.gate import early_negative
from npc_local.generator.family import Pipeline
from npc_local.generator.pipeline_generator import PipelineGenerator
from tests.generator.families import flux, sdxl
from tests.generator.families.case import NEGATIVES, PROMPTS, N

StableDiffusionXL: Any = diffusers.StableDiffusionXLPipeline  # type: ignore[attr-defined]
Flux: Any = diffusers.FluxPipeline  # type: ignore[attr-defined]


class HandsAllOn(StableDiffusionXL):  # type: ignore[misc]
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


class TakesOneMore(StableDiffusionXL):  # type: ignore[misc]
    """With an argument of its own that no signature names."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.seen = kwargs.pop("mood", None)
        return super().__call__(*args, **kwargs)


class PromptFirst(StableDiffusionXL):  # type: ignore[misc]
    def __call__(self, prompt: Any, *rest: Any, guidance_scale: float = 1.8, **more: Any) -> Any:
        return super().__call__(prompt, *rest, guidance_scale=guidance_scale, **more)


class Twice(HandsAllOn):
    def __call__(self, prompt: Any, **kwargs: Any) -> Any:
        return super().__call__(prompt=prompt, **kwargs)


class Scales(Flux):  # type: ignore[misc]
    """Gives the scale itself."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **{"true_cfg_scale": 1.8} | kwargs)


def decorated(call: Any) -> Any:
    @functools.wraps(call)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return call(*args, **kwargs)

    return wrapper


class Decorated(HandsAllOn):
    __call__ = decorated(HandsAllOn.__call__)


KINDS = [HandsAllOn, TakesOneMore, PromptFirst, Twice, Decorated]


@pytest.fixture(scope="module")
def stock() -> Pipeline:
    pipe = sdxl.build()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def of_kind(kind: Any, stock: Pipeline) -> Pipeline:
    pipe = kind(**stock.components)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def call(pipe: Pipeline, after: Any, *args: Any, **options: Any) -> torch.Tensor:
    given: dict[str, Any] = {
        "negative_prompt": NEGATIVES[0],
        "num_inference_steps": N,
        "guidance_scale": 1.8,
        "height": 32,
        "width": 32,
        "output_type": "latent",
        "generator": torch.Generator().manual_seed(0),
    }
    with early_negative(pipe, 2, after) as gate:
        images: torch.Tensor = pipe(*args, **(given | options)).images
    assert gate.forwards == (N + 2 if after == "off" else 2 * N)
    return images


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("after", ["off", "null"])
def test_a_subclass_that_hands_its_arguments_on_is_confined_like_its_parent(
    stock: Pipeline, kind: Any, after: Any
) -> None:
    expected = call(stock, after, prompt=PROMPTS[0])
    pipe = of_kind(kind, stock)
    assert torch.equal(call(pipe, after, PROMPTS[0]), expected)
    assert torch.equal(call(pipe, after, prompt=PROMPTS[0]), expected)


@pytest.mark.parametrize("kind", [HandsAllOn, TakesOneMore, PromptFirst, Decorated])
@pytest.mark.parametrize("after", ["off", "null"])
def test_arguments_by_position_stay_where_they_are(stock: Pipeline, kind: Any, after: Any) -> None:
    expected = by_position(stock, after)
    assert expected.shape[-2:] == (16, 24)
    assert torch.equal(by_position(of_kind(kind, stock), after), expected)
    pipe = of_kind(kind, stock)
    with (
        early_negative(pipe, 2, after),
        pytest.raises(TypeError, match="multiple values for argument 'prompt'"),
    ):
        pipe(PROMPTS[0], prompt=PROMPTS[0], negative_prompt="red")


def by_position(pipe: Pipeline, after: Any) -> torch.Tensor:
    """Call with prompt, prompt_2, height and width by position."""
    with early_negative(pipe, 2, after):
        images: torch.Tensor = pipe(
            PROMPTS[0],
            None,
            32,
            48,
            negative_prompt=NEGATIVES[0],
            num_inference_steps=N,
            guidance_scale=1.8,
            output_type="latent",
            generator=torch.Generator().manual_seed(0),
        ).images
    return images


def test_an_argument_that_only_a_subclass_knows_reaches_it(stock: Pipeline) -> None:
    pipe = of_kind(TakesOneMore, stock)
    call(pipe, "null", prompt=PROMPTS[0], mood="calm")
    assert pipe.seen == "calm"
    generator = PipelineGenerator(
        pipe, true_cfg_scale=1.8, num_inference_steps=N, height=32, width=32, mood="wild"
    )
    generator.generate(Shot(PROMPTS[0], NEGATIVES[0], 1))
    assert pipe.seen == "wild"


def test_a_misspelt_argument_of_diffusers_own_class_is_still_refused(stock: Pipeline) -> None:
    with pytest.raises(ConfigError, match="takes no argument 'hight'"):
        PipelineGenerator(stock, true_cfg_scale=1.8, hight=32)


@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_makes_the_same_images_with_a_subclass(stock: Pipeline, kind: Any) -> None:
    def made(pipe: Pipeline) -> bytes:
        generator = PipelineGenerator(
            pipe, true_cfg_scale=1.8, num_inference_steps=N, height=32, width=32
        )
        return generator.generate(Shot(PROMPTS[0], NEGATIVES[0], 1)).image.tobytes()

    assert made(of_kind(kind, stock)) == made(stock)


def test_a_subclass_that_guides_of_its_own_accord_is_let_through() -> None:
    stock = flux.build()
    pipe = of_kind(Scales, stock)
    given = {"height": 32, "width": 32, "num_inference_steps": N, "output_type": "latent"}
    with early_negative(pipe, 2) as gate:
        pipe(PROMPTS[0], negative_prompt=NEGATIVES[0], max_sequence_length=24, **given)
    assert gate.forwards == N + 2
    with early_negative(pipe, 2), pytest.raises(ConfigError, match="switches guidance off"):
        pipe(PROMPTS[0], negative_prompt=NEGATIVES[0], true_cfg_scale=1.0, **given)


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_without_a_negative_is_refused_in_a_subclass_too(stock: Pipeline, kind: Any) -> None:
    pipe = of_kind(kind, stock)
    with early_negative(pipe, 2), pytest.raises(ConfigError, match="a negative prompt is needed"):
        pipe(PROMPTS[0])


def test_names_are_found_through_any_number_of_classes() -> None:
    for kind in KINDS:
        assert parameters(kind).keys() >= parameters(StableDiffusionXL).keys(), kind
        given = CallArguments.of(kind, ("a cat",), {"height": 8})
        assert given.named == {"prompt": "a cat", "height": 8}, kind
    assert parameters(PromptFirst)["guidance_scale"].default == 1.8
    assert hands_on(Twice, "StableDiffusionXLPipeline")
    assert not hands_on(StableDiffusionXL, "StableDiffusionXLPipeline")
    # Which takes **kwargs for old callbacks and ignores all else in it.
    assert not hands_on(diffusers.StableDiffusionPipeline, "StableDiffusionPipeline")  # type: ignore[attr-defined]


def test_a_denoiser_that_names_no_inputs_is_asked_by_those_of_what_it_wraps(
    stock: Pipeline,
) -> None:
    class Wrapper(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def __getattr__(self, name: str) -> Any:
            try:
                return super().__getattr__(name)
            except AttributeError:
                return getattr(super().__getattr__("inner"), name)

        def forward(self, *args: Any, **inputs: Any) -> Any:
            return self.inner(*args, **inputs)

    expected = call(stock, "null", prompt=PROMPTS[0])
    pipe = of_kind(StableDiffusionXL, stock)
    pipe.unet = Wrapper(stock.unet)
    assert torch.equal(call(pipe, "null", prompt=PROMPTS[0]), expected)
