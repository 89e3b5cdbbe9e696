"""Every family under the gate, against its own loop written out (tests/generator/families)."""

from __future__ import annotations

import copy
import functools
import importlib
import pkgutil
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from npc_local.core.config.settings import GeneratorSettings, LoraSettings
from npc_local.core.errors import ModelFilesError
from npc_local.core.records import Shot
from npc_local.generator.diffusers_generator import DiffusersGenerator
from npc_local.generator.early_negative.gate import early_negative
from npc_local.generator.families import FAMILIES, family_of
from npc_local.generator.family import After, Pipeline, denoiser_of
from npc_local.generator.loading.loras import add_loras
from npc_local.generator.pipeline_generator import PipelineGenerator
from tests.generator import families
from tests.generator.conftest import offload_in_groups
from tests.generator.families.case import NEGATIVES, PROMPTS, Case, N

CASES: dict[str, Case] = {}
for module in pkgutil.iter_modules(families.__path__):
    found = importlib.import_module(f"{families.__name__}.{module.name}")
    if hasattr(found, "CASE"):
        CASES[module.name] = found.CASE

_built: dict[str, Pipeline] = {}


@pytest.fixture(params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture
def pipe(case: Case) -> Pipeline:
    """A fresh copy of the family's tiny pipeline, built once a session."""
    if case.family not in _built:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            _built[case.family] = case.build()
    fresh = copy.deepcopy(_built[case.family])
    case.shorten(fresh)
    fresh.set_progress_bar_config(disable=True)
    return fresh


class Count:
    """Counts the denoiser's forwards and their rows below any gate, in its class."""

    def __init__(self, pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls, self.rows = 0, 0
        kind = type(denoiser_of(pipe))
        compute = kind.forward

        @functools.wraps(compute)
        def forward(*args: Any, **inputs: Any) -> Any:
            output = compute(*args, **inputs)
            self.calls += 1
            self.rows += len(output[0])
            return output

        monkeypatch.setattr(kind, "forward", forward)


def negative(case: Case, pipe: Pipeline, images: int) -> dict[str, Any]:
    return case.negative(pipe, NEGATIVES[:images])


def test_every_family_has_a_case() -> None:
    assert sorted(case.family for case in CASES.values()) == sorted(one.name for one in FAMILIES)


def test_the_case_is_of_its_family(case: Case, pipe: Pipeline) -> None:
    family = family_of(type(pipe))
    assert family.name == case.family
    assert family.compiles == bool(denoiser_of(pipe)._repeated_blocks)
    assert family.loras == hasattr(pipe, "load_lora_weights")


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("after", ["off", "null"])
def test_matches_the_plain_loop_bit_for_bit(
    case: Case, pipe: Pipeline, images: int, after: After, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = case.plain_loop(pipe, PROMPTS[:images], NEGATIVES[:images], 2, after)
    arguments = negative(case, pipe, images)
    count = Count(pipe, monkeypatch)
    with early_negative(pipe, 2, after) as gate:
        gated = case.sample(pipe, PROMPTS[:images], **arguments)
    assert torch.equal(gated, expected)
    predictions = N + 2 if after == "off" else 2 * N
    assert gate.forwards == predictions
    assert count.rows == images * predictions
    two_calls = family_of(type(pipe)).guides == "two calls"
    assert count.calls == (predictions if two_calls else N)


@pytest.mark.parametrize("images", [1, 2])
def test_no_steps_is_the_baseline(case: Case, pipe: Pipeline, images: int) -> None:
    prompts, arguments = PROMPTS[:images], negative(case, pipe, images)
    with early_negative(pipe, 0, "off"):
        off = case.sample(pipe, prompts, **arguments)
    with early_negative(pipe, 0, "null"):
        null = case.sample(pipe, prompts, **arguments)
    family = family_of(type(pipe))
    named = {} if family.null is None else {"negative_prompt": [family.null] * images}
    assert torch.equal(null, case.sample(pipe, prompts, **named))
    assert torch.equal(off, case.sample(pipe, prompts, **case.without_cfg(pipe)))


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("after", ["off", "null"])
def test_all_steps_is_the_stock_pipeline(
    case: Case, pipe: Pipeline, images: int, after: After
) -> None:
    arguments = negative(case, pipe, images)
    stock = case.sample(pipe, PROMPTS[:images], **arguments)
    with early_negative(pipe, N, after) as gate:
        gated = case.sample(pipe, PROMPTS[:images], **arguments)
    assert torch.equal(gated, stock)
    assert gate.forwards == 2 * N


def test_each_setting_makes_another_image(case: Case, pipe: Pipeline) -> None:
    """Guards the equalities of this file against a model that ignores its text."""
    arguments = negative(case, pipe, 1)
    made = [case.sample(pipe, PROMPTS[:1], **arguments)]
    settings: list[tuple[int, After]] = [(0, "off"), (0, "null"), (2, "off"), (2, "null")]
    for steps, after in settings:
        with early_negative(pipe, steps, after):
            made.append(case.sample(pipe, PROMPTS[:1], **arguments))
    assert len({latents.numpy().tobytes() for latents in made}) == len(made)


def test_what_its_attention_is_given_beside_queries_and_keys(
    case: Case, pipe: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what a backend is tried out with before the first image (`Family.attention_mask`)."""
    from diffusers.models import attention_dispatch

    compute = attention_dispatch.dispatch_attention_fn
    masks: list[torch.Tensor] = []

    def noted(*args: Any, attn_mask: torch.Tensor | None = None, **options: Any) -> Any:
        masks.extend([] if attn_mask is None else [attn_mask])
        return compute(*args, attn_mask=attn_mask, **options)

    for module in list(sys.modules.values()):
        if getattr(module, "dispatch_attention_fn", None) is compute:
            monkeypatch.setattr(module, "dispatch_attention_fn", noted)
    family = family_of(type(pipe))
    with early_negative(pipe, 2, "null"):
        case.sample(pipe, PROMPTS[:1], **case.negative(pipe, ["a red clock and one cat"]))
    given = {
        ("keys" if mask.shape[-2] == 1 else "pairs") if mask.dtype == torch.bool else "weights"
        for mask in masks
    }
    assert given == ({family.attention_mask} - {None})


def offloaded(pipe: Pipeline) -> None:
    """Hook every model as enable_model_cpu_offload does, which itself asks for a GPU."""
    from accelerate import cpu_offload_with_hook

    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            cpu_offload_with_hook(part, execution_device="cpu")


def compiled(pipe: Pipeline) -> None:
    denoiser = denoiser_of(pipe)
    if not family_of(type(pipe)).compiles:
        pytest.skip(f"diffusers names no repeated blocks of {type(denoiser).__name__} to compile")
    torch._dynamo.reset()
    # Traced for each shape by itself, which takes half the time of tracing for any shape.
    denoiser.compile_repeated_blocks(backend="eager", dynamic=False)


@pytest.mark.parametrize("prepare", [offloaded, compiled])
def test_works_with(case: Case, pipe: Pipeline, prepare: Callable[[Pipeline], None]) -> None:
    arguments = negative(case, pipe, 1)
    modes: tuple[After, ...] = ("off", "null")
    plain = {}
    for after in modes:
        with early_negative(pipe, 2, after):
            plain[after] = case.sample(pipe, PROMPTS[:1], **arguments)
    prepare(pipe)  # once for both: compiling is most of this test's work
    for after in modes * 2:
        with early_negative(pipe, 2, after) as gate:
            assert torch.equal(case.sample(pipe, PROMPTS[:1], **arguments), plain[after])
        assert gate.forwards == (N + 2 if after == "off" else 2 * N)


def takes_itself_off(denoiser: Any, forwards: int) -> None:
    """Register a hook of diffusers that leaves after some forwards, as group offload's does."""
    from diffusers.hooks.hooks import HookRegistry, ModelHook

    class Leaves(ModelHook):  # type: ignore[misc]
        left = forwards

        def post_forward(self, module: Any, output: Any) -> Any:
            self.left -= 1
            if not self.left:
                module._diffusers_hook.remove_hook("leaves", recurse=False)
                assert "forward" in vars(module)  # written by diffusers
            return output

    HookRegistry.check_if_exists_or_initialize(denoiser).register_hook(Leaves(), "leaves")


def is_wrapped_anew(denoiser: Any, forwards: int) -> None:
    """Wrap `forward`, as a user may, and wrap it once more after some forwards."""
    compute, left = denoiser.forward, [forwards]

    def again(*args: Any, **inputs: Any) -> Any:
        return compute(*args, **inputs)

    def wrapper(*args: Any, **inputs: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            denoiser.forward = again
        return compute(*args, **inputs)

    denoiser.forward = wrapper


def is_given_back(denoiser: Any, forwards: int) -> None:
    """Wrap `forward`, and take the attribute away after some forwards."""
    compute, left = denoiser.forward, [forwards]

    def wrapper(*args: Any, **inputs: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            del denoiser.forward
        return compute(*args, **inputs)

    denoiser.forward = wrapper


@pytest.mark.parametrize("overwrite", [takes_itself_off, is_wrapped_anew, is_given_back])
def test_the_gate_holds_when_forward_is_overwritten_at_a_random_step(
    case: Case, pipe: Pipeline, overwrite: Callable[[Any, int], None]
) -> None:
    dice = random.Random(case.family + overwrite.__name__)
    after: After = dice.choice(["off", "null"])
    arguments = negative(case, pipe, 1)
    with early_negative(pipe, 2, after) as gate:
        expected = case.sample(pipe, PROMPTS[:1], **arguments)
    predictions, forwards = gate.forwards, N + 2 if after == "off" else 2 * N
    assert predictions == forwards
    calls = N if family_of(type(pipe)).guides == "one batch" else forwards
    overwrite(denoiser_of(pipe), dice.randrange(1, calls))
    with early_negative(pipe, 2, after) as gate:
        assert torch.equal(case.sample(pipe, PROMPTS[:1], **arguments), expected)
    assert gate.forwards == predictions


@pytest.mark.parametrize("after", ["off", "null"])
def test_group_offload_with_a_stream_leaves_the_gate_where_it_is(
    case: Case, pipe: Pipeline, after: After, streams: Any
) -> None:
    """Its prefetch hook takes itself off after the first forward, and writes `forward`."""
    arguments = negative(case, pipe, 1)
    with early_negative(pipe, 2, after) as gate:
        expected = case.sample(pipe, PROMPTS[:1], **arguments)
    forwards = gate.forwards
    offload_in_groups(denoiser_of(pipe), streams)
    for _ in range(2):
        with early_negative(pipe, 2, after) as gate:
            assert torch.equal(case.sample(pipe, PROMPTS[:1], **arguments), expected)
        assert gate.forwards == forwards


def test_a_lora_of_the_denoiser_is_taken_whole_or_refused_by_name(
    case: Case, pipe: Pipeline, tmp_path: Path
) -> None:
    pytest.importorskip("peft", reason="LoRAs need npc-local[lora]")
    if not family_of(type(pipe)).loras:
        pytest.skip(f"{type(pipe).__name__} loads none")
    part = "unet" if getattr(pipe, "transformer", None) is None else "transformer"
    layers = [
        (name, layer)
        for name, layer in denoiser_of(pipe).named_modules()
        if isinstance(layer, torch.nn.Linear)
    ]
    tensors = {}
    for name, layer in (layers[0], layers[len(layers) // 2], layers[-1]):
        tensors[f"{part}.{name}.lora_A.weight"] = torch.randn(2, layer.in_features)
        tensors[f"{part}.{name}.lora_B.weight"] = torch.randn(layer.out_features, 2)
    other = {f"{part}.nowhere.to_q.lora_{side}.weight": torch.randn(2, 2) for side in "AB"}
    whole, more = tmp_path / "whole.safetensors", tmp_path / "more.safetensors"
    save_file(tensors, whole)
    save_file(tensors | other, more)
    twin = copy.deepcopy(pipe)
    add_loras(pipe, [LoraSettings(path=whole)])
    with pytest.raises(ModelFilesError, match=rf"matches {part}\.nowhere\.to_q\.lora_A"):
        add_loras(twin, [LoraSettings(path=more)])


@pytest.mark.parametrize("after", ["off", "null"])
def test_the_generator_means_the_same_by_true_cfg_scale(
    case: Case, pipe: Pipeline, after: After
) -> None:
    """Scale 1.8 is n + 1.8 * (p - n) in every family, also where its own scale is one lower."""
    family = family_of(type(pipe))
    generator = PipelineGenerator(
        pipe, true_cfg_scale=1.8, negative_steps=2, after=after, **generator_arguments(case)
    )
    given = negative(case, pipe, 1)
    [text] = given.get("negative_prompt", NEGATIVES[:1])
    shots = [Shot(PROMPTS[0], None, 7), Shot(PROMPTS[0], text, 7)]
    baseline, corrected = map(generator.generate, shots)
    assert baseline.forwards == (N if after == "off" else 2 * N)
    assert corrected.forwards == (N + 2 if after == "off" else 2 * N)

    native = {"true_cfg_scale": 1.8, "guidance_scale": 0.8 if family.scale_off == 0 else 1.8}
    scale = {} if family.scale == "guider" else {family.scale: native[family.scale]}
    if family.scale == "guider":
        pipe.guider.guidance_scale = 1.8
    arguments = family.fixed | scale | given | {"output_type": "np"}
    with early_negative(pipe, 2, after):
        expected = case.sample(pipe, PROMPTS[:1], **arguments)[0]
    drawn = np.asarray(corrected.image.convert("RGB"), dtype=float) / 255
    if expected.shape[-1] == 4:  # transparency, shown on white
        expected = 1 - expected[..., 3:] * (1 - expected[..., :3])
    assert abs(drawn - expected).max() <= 0.5 / 255 + 1e-6
    assert baseline.image.tobytes() != corrected.image.tobytes()


def test_an_image_is_the_same_in_any_company(case: Case, pipe: Pipeline) -> None:
    shots = [
        Shot(PROMPTS[0], NEGATIVES[0], 1),
        Shot(PROMPTS[1], None, 1),
        Shot(PROMPTS[0], "red", 1),
    ]
    arguments = generator_arguments(case)
    together = [
        render.image.tobytes()
        for render in map(PipelineGenerator(pipe, **arguments).generate, shots)
    ]
    alone = [
        PipelineGenerator(pipe, **arguments).generate(shot).image.tobytes()
        for shot in reversed(shots)
    ]
    assert together == alone[::-1]
    assert len(set(together)) == len(shots)


def generator_arguments(case: Case) -> dict[str, Any]:
    """Return the case's call arguments without those that a generator sets itself."""
    family = next(one for one in FAMILIES if one.name == case.family)
    ours = {family.scale, *family.fixed}
    given = {name: value for name, value in case.arguments.items() if name not in ours}
    return {"num_inference_steps": N} | given


def test_a_directory_makes_the_same_images(case: Case, pipe: Pipeline, tmp_path: Path) -> None:
    if case.unsaved:
        pytest.skip(f"{case.family}: {case.unsaved}")
    pipe.save_pretrained(tmp_path / "model", safe_serialization=True)
    arguments = generator_arguments(case)
    known = ("height", "width", "max_sequence_length", "guidance_scale")
    settings = GeneratorSettings(
        path=tmp_path / "model",
        steps=arguments.pop("num_inference_steps"),
        true_cfg_scale=1.8,
        negative_steps=2,
        device="cpu",
        **{name: arguments.pop(name) for name in known if name in arguments},
        arguments=arguments,
    )
    shot = Shot(PROMPTS[0], NEGATIVES[0], 7)
    generator = DiffusersGenerator(settings)
    case.shorten(generator.pipe)
    loaded = generator.generate(shot)
    held = PipelineGenerator(
        pipe, true_cfg_scale=1.8, negative_steps=2, **generator_arguments(case)
    ).generate(shot)
    # Weights that are mapped from a file lie elsewhere in memory: the last bit may differ.
    near = np.asarray(loaded.image, dtype=int) - np.asarray(held.image, dtype=int)
    assert abs(near).max() <= 1
