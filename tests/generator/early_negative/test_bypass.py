"""Nothing gets past the gate unnoticed: what is replaced works below it, or is an error."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from npc_local.core.errors import ConfigError
from npc_local.core.records import Shot
from npc_local.generator.early_negative.gate import early_negative
from npc_local.generator.family import Pipeline, denoiser_of
from npc_local.generator.pipeline_generator import PipelineGenerator
from tests.generator.conftest import offload_in_groups
from tests.generator.families import flux, qwen_image, sd3, sdxl
from tests.generator.families.case import NEGATIVES, PROMPTS, Case, N

CASES = [flux.CASE, qwen_image.CASE, sd3.CASE, sdxl.CASE]


def built(case: Case) -> Pipeline:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipe = case.build()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sample(case: Case, pipe: Pipeline, **changes: Any) -> torch.Tensor:
    return case.sample(pipe, PROMPTS[:1], **case.negative(pipe, NEGATIVES[:1]), **changes)


def test_an_image_of_a_run_that_goes_on_is_the_same_with_group_offload(streams: Any) -> None:
    """The first image of a process has a negative then, and is what the hook leaves in."""
    pipe = built(sdxl.CASE)
    shot = Shot(PROMPTS[0], NEGATIVES[0], 1)

    def made() -> bytes:
        generator = PipelineGenerator(
            pipe, true_cfg_scale=3.0, negative_steps=2, num_inference_steps=N, height=32, width=32
        )
        return generator.generate(shot).image.tobytes()

    expected = made()
    for model in (pipe.unet, pipe.text_encoder, pipe.text_encoder_2):
        offload_in_groups(model, streams)
    assert made() == expected
    assert made() == expected


def test_forwards_of_an_image_without_a_negative_are_counted_with_group_offload(
    pipe: Pipeline, streams: Any
) -> None:
    offload_in_groups(pipe.transformer, streams)
    generator = PipelineGenerator(
        pipe, num_inference_steps=N, height=32, width=32, max_sequence_length=24
    )
    assert generator.generate(Shot(PROMPTS[0], None, 1)).forwards == N


def test_the_memo_of_texts_holds_when_an_encoder_s_forward_is_overwritten(pipe: Pipeline) -> None:
    encoder = pipe.text_encoder_2
    stock, encoded = encoder.forward, []

    def overwriting(ids: torch.Tensor, **options: Any) -> Any:
        encoded.append(ids)
        encoder.forward = overwriting_again
        return stock(ids, **options)

    def overwriting_again(ids: torch.Tensor, **options: Any) -> Any:
        encoded.append(ids)
        return stock(ids, **options)

    encoder.forward = overwriting
    generator = PipelineGenerator(
        pipe, num_inference_steps=N, height=32, width=32, max_sequence_length=24
    )
    for negative in (None, "red", "clock", "red", "clock"):
        generator.generate(Shot(PROMPTS[0], negative, 1))
    assert len(encoded) == 3
    assert encoder.forward is overwriting_again


def compile_in_place(pipe: Pipeline) -> None:
    torch._dynamo.reset()
    pipe.transformer.compile(backend="eager")


def add_an_adapter(pipe: Pipeline) -> None:
    peft = pytest.importorskip("peft", reason="adapters need npc-local[lora]")
    pipe.transformer.add_adapter(peft.LoraConfig(target_modules=["to_q"]))  # zero at first


def hook_with_accelerate(pipe: Pipeline) -> None:
    import accelerate

    accelerate.cpu_offload(pipe.transformer, torch.device("cpu"), offload_buffers=True)


@pytest.mark.parametrize("change", [compile_in_place, add_an_adapter, hook_with_accelerate])
def test_what_is_done_to_the_denoiser_during_a_call_leaves_the_gate_where_it_is(
    pipe: Pipeline, change: Any
) -> None:
    with early_negative(pipe, 2) as gate:
        expected = sample(flux.CASE, pipe)

    def at_a_step(pipe: Pipeline, step: int, *_: Any) -> dict[str, Any]:
        if step == 1:
            change(pipe)
        return {}

    with early_negative(pipe, 2) as gate:
        made = sample(flux.CASE, pipe, callback_on_step_end=at_a_step)
    assert torch.equal(made, expected)
    assert gate.forwards == N + 2


def test_a_class_that_is_derived_during_a_call_leaves_the_gate_where_it_is(pipe: Pipeline) -> None:
    """Parametrizations and FSDP give a module a class derived from its own."""
    with early_negative(pipe, 2):
        expected = sample(flux.CASE, pipe)
    stock = type(pipe.transformer)

    def derive(pipe: Pipeline, step: int, *_: Any) -> dict[str, Any]:
        if step == 0:
            pipe.transformer.__class__ = type("Derived", (type(pipe.transformer),), {})
        return {}

    with early_negative(pipe, 2) as gate:
        assert torch.equal(sample(flux.CASE, pipe, callback_on_step_end=derive), expected)
    assert gate.forwards == N + 2
    assert isinstance(pipe.transformer, stock)
    with early_negative(pipe, 2):
        assert torch.equal(sample(flux.CASE, pipe), expected)


def replace_the_denoiser(pipe: Pipeline) -> None:
    pipe.transformer = copy.deepcopy(pipe.transformer)


def take_the_class_away(pipe: Pipeline) -> None:
    import diffusers

    kind: Any = diffusers.FluxTransformer2DModel
    pipe.transformer.__class__ = kind


@pytest.mark.parametrize("get_past", [replace_the_denoiser, take_the_class_away])
@pytest.mark.parametrize("when", range(N - 1))
def test_a_step_that_gets_past_the_gate_is_an_error(
    pipe: Pipeline, get_past: Any, when: int
) -> None:
    def at_the_step(pipe: Pipeline, step: int, *_: Any) -> dict[str, Any]:
        if step == when:
            get_past(pipe)
        return {}

    with (
        pytest.raises(ConfigError, match=rf"step {when + 2} of FluxPipeline got past the gate"),
        early_negative(pipe, 2),
    ):
        sample(flux.CASE, pipe, callback_on_step_end=at_the_step)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.family)
@pytest.mark.parametrize("negative", [None, NEGATIVES[0]])
def test_a_pipeline_that_calls_forward_itself_is_an_error(
    case: Case, negative: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With and without a negative: what nobody has counted is not reported as a number."""
    pipe = built(case)
    denoiser = denoiser_of(pipe)

    class Direct:
        """What a pipeline that calls `self.transformer.forward` would see."""

        def __getattr__(self, name: str) -> Any:
            return getattr(denoiser, name)

        def __call__(self, *args: Any, **inputs: Any) -> Any:
            return denoiser.forward(*args, **inputs)

    stock = type(pipe).__call__

    def bypassing(self: Any, *args: Any, **options: Any) -> Any:
        name = "unet" if getattr(self, "transformer", None) is None else "transformer"
        with monkeypatch.context() as patch:
            patch.setattr(self, name, Direct())
            return stock(self, *args, **options)

    kind = type(type(pipe).__name__, (type(pipe),), {"__call__": bypassing})
    pipe.__class__ = kind
    fields = {"height": 32, "width": 32, "num_inference_steps": N}
    generator = PipelineGenerator(pipe, true_cfg_scale=2.0, **fields)
    with pytest.raises(ConfigError, match=r"step 1 of .* got past the gate"):
        generator.generate(Shot(PROMPTS[0], negative, 1))


def test_a_call_that_samples_nothing_is_an_error(
    pipe: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(pipe), "__call__", lambda self, prompt, **_: "an image from elsewhere")
    with early_negative(pipe, 2), pytest.raises(ConfigError, match="got past the gate"):
        pipe("two cats", negative_prompt="one cat", true_cfg_scale=2.0)


def test_a_scheduler_that_is_replaced_during_a_call_is_an_error(pipe: Pipeline) -> None:
    def replace(pipe: Pipeline, step: int, *_: Any) -> dict[str, Any]:
        if step == 1:
            pipe.scheduler = copy.deepcopy(pipe.scheduler)
        return {}

    with early_negative(pipe, 3), pytest.raises(ConfigError, match="its scheduler was replaced"):
        sample(flux.CASE, pipe, callback_on_step_end=replace)


def test_a_wrapper_around_the_scheduler_s_step_outlives_the_call_without_the_gate(
    pipe: Pipeline,
) -> None:
    stock = sample(flux.CASE, pipe)

    def wrap(pipe: Pipeline, step: int, *_: Any) -> dict[str, Any]:
        if step == 0:
            inner = pipe.scheduler.step
            pipe.scheduler.step = lambda *args, **options: inner(*args, **options)
        return {}

    with early_negative(pipe, 2) as gate:
        first = sample(flux.CASE, pipe, callback_on_step_end=wrap)
        assert torch.equal(sample(flux.CASE, pipe), first)
    assert gate.forwards == 2 * (N + 2)
    assert torch.equal(sample(flux.CASE, pipe), stock)
