"""A generator on a pipeline in memory: what it refuses, and what it takes for granted."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import numpy as np
import pytest
import torch

import npc_local
from npc_local.core.errors import ConfigError, DeviceLostError, GeneratorError, PromptError
from npc_local.core.records import Shot
from npc_local.generator import pipeline_generator as sampling
from npc_local.generator.early_negative import text_memo
from npc_local.generator.early_negative.gate import Gate, early_negative
from npc_local.generator.families import FAMILIES
from npc_local.generator.family import Pipeline, denoiser_of
from npc_local.generator.pipeline_generator import PipelineGenerator
from tests.generator.families import auraflow, flux, longcat, pixart, sana, sd1, sd3, sdxl
from tests.generator.families.case import NEGATIVES, PROMPTS, N

PROMPT, NEGATIVE = PROMPTS[0], NEGATIVES[0]
ARGUMENTS = {"num_inference_steps": N, "height": 32, "width": 32, "max_sequence_length": 24}


def made(pipe: Pipeline, negative: str | None = NEGATIVE, **arguments: Any) -> tuple[bytes, int]:
    generator = PipelineGenerator(pipe, **(ARGUMENTS | arguments))
    render = generator.generate(Shot(PROMPT, negative, 7))
    return render.image.tobytes(), render.forwards


def quiet(pipe: Pipeline) -> Pipeline:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_left_out_settings_are_the_family_s(pipe: Pipeline) -> None:
    paper = made(pipe, true_cfg_scale=1.8, negative_steps=3, after="off")
    assert made(pipe) == paper
    assert made(pipe, true_cfg_scale=2.0) != paper
    assert made(pipe, negative_steps=2) != paper
    assert made(pipe, after="null") != paper


def test_every_family_has_a_scale_that_guides() -> None:
    import diffusers

    for family in FAMILIES:
        if family.default_scale is None and family.scale != "guider":
            call = inspect.signature(getattr(diffusers, family.pipeline).__call__)
            assert call.parameters[family.scale].default > family.scale_off, family.name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"true_cfg_scale": 1.0}, "greater than 1"),
        ({"negative_steps": 0}, "would ignore the negative prompt"),
        ({"negative_steps": True}, "negative_steps = True must be a whole number"),
        ({"negative_steps": 3.0}, "negative_steps = 3.0 must be a whole number"),
        (
            {"negative_steps": 5, "num_inference_steps": 4},
            "= 5 must be at most .* a call, 4",
        ),
        ({"negative_steps": 29}, "= 29 must be at most .* a call, 28"),
        ({"negative_steps": 3, "sigmas": [1.0, 0.5]}, "= 3 must be at most .* a call, 2"),
        ({"num_inference_steps": 4.0}, "num_inference_steps = 4.0 must be a whole number"),
        ({"hight": 64}, "FluxPipeline takes no argument 'hight'"),
        ({"generator": None}, "set for each image"),
        ({"negative_prompt": "fog"}, "set for each image"),
        ({"negative_prompt_2": "fog"}, "set for each image"),
        ({"prompt_embeds": None}, "set for each image"),
        ({"return_dict": False}, "set for each image"),
        ({"height": "64"}, "height = '64': must be a multiple of 4"),
        ({"height": 33}, "height = 33: must be a multiple of 4"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(
    pipe: Pipeline, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        PipelineGenerator(pipe, **arguments)


def test_a_scale_goes_by_one_name_only() -> None:
    with pytest.raises(ConfigError, match="give the scale as true_cfg_scale"):
        PipelineGenerator(sd3.build(), guidance_scale=4.0)


@pytest.mark.parametrize(
    ("negative", "message"),
    [
        (" ".join(["cat"] * 600), "the negative prompt is 601 tokens long.*reads 24"),
        (PROMPT, "the negative prompt is the prompt itself"),
        (f" {PROMPT} ", "the negative prompt is the prompt itself"),
    ],
)
def test_a_negative_that_cannot_act_is_refused(pipe: Pipeline, negative: str, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        made(pipe, negative)


def test_an_empty_negative_is_the_null_prompt(pipe: Pipeline) -> None:
    pixels, forwards = made(pipe, "", after="null")
    assert (pixels, forwards) == made(pipe, None, after="null")


def test_a_size_that_the_pipeline_changes_is_refused(
    pipe: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = pipe.vae.decode

    def tall(*args: Any, **options: Any) -> tuple[torch.Tensor]:
        return (torch.cat([decode(*args, **options)[0]] * 2, dim=2),)

    monkeypatch.setattr(pipe.vae, "decode", tall)
    with pytest.raises(ConfigError, match=r"size 32 x 32: FLUX.1 makes 32 x 64 of it"):
        made(pipe)


def test_the_fingerprint_follows_weights_and_settings(pipe: Pipeline) -> None:
    def print_of(**arguments: Any) -> str:
        return PipelineGenerator(pipe, **(ARGUMENTS | arguments)).fingerprint()

    first = print_of()
    assert print_of() == first
    assert print_of(true_cfg_scale=2.0) != first
    with torch.no_grad():
        pipe.transformer.proj_out.bias[0] += 1
    assert print_of() != first


@pytest.mark.parametrize("family", [flux, sd1, pixart, sana, auraflow])
def test_sequential_offload_leaves_the_fingerprint_as_it_is(family: Any) -> None:
    """Weights of a model itself, and not of a layer in it, lie behind a chain of hooks."""
    import accelerate

    pipe = quiet(family.build())

    def print_of() -> str:
        return PipelineGenerator(pipe, true_cfg_scale=2.0, num_inference_steps=N).fingerprint()

    expected = print_of()
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):  # what enable_sequential_cpu_offload does
            accelerate.cpu_offload(part, torch.device("cpu"), offload_buffers=True)
    assert print_of() == expected
    hooks = [hook for part in denoiser_of(pipe).modules() for hook in _hooks(part)]
    weights = next(hook.weights_map.dataset for hook in hooks if hook.weights_map is not None)
    with torch.no_grad():
        next(iter(weights.values())).add_(1)
    assert print_of() != expected


def _hooks(module: Any) -> list[Any]:
    hook = getattr(module, "_hf_hook", None)
    hooks = getattr(hook, "hooks", (hook,))
    return [hook for hook in hooks if hasattr(hook, "weights_map")]


def test_the_pipeline_is_given_back_as_it_was(pipe: Pipeline) -> None:
    def state() -> list[Any]:
        parts = [part for part in pipe.components.values() if part is not None]
        return [type(pipe)] + [set(vars(part)) for part in parts]

    pipe(PROMPT, **ARGUMENTS, output_type="latent")  # which leaves marks of its own
    before = state()
    made(pipe)
    made(pipe, None)
    assert state() == before


def test_correct_takes_a_pipeline_or_a_generator(pipe: Pipeline) -> None:
    with pytest.raises(ConfigError, match="either a pipeline or an npc_local generator"):
        npc_local.correct(PROMPT, pipeline=pipe, generator=PipelineGenerator(pipe))
    with pytest.raises(TypeError, match="with a pipeline only: height"):
        npc_local.correct(PROMPT, height=64)
    with pytest.raises(ConfigError, match="takes no argument 'hight'"):
        npc_local.correct(PROMPT, pipeline=pipe, hight=64)


@pytest.mark.parametrize("after", ["off", "null"])
def test_skip_layer_guidance_of_sd3_is_no_ignored_negative(after: Any) -> None:
    """It asks the denoiser a second time in a step, with the conditional half alone."""
    pipe = sd3.build()
    pipe.set_progress_bar_config(disable=True)
    skipping = {"skip_guidance_layers": [0], "skip_layer_guidance_stop": 0.9}
    arguments = {"negative_prompt": [NEGATIVE], **skipping}
    stock = sd3.CASE.sample(pipe, [PROMPT], **arguments)
    assert not torch.equal(stock, sd3.CASE.sample(pipe, [PROMPT], negative_prompt=[NEGATIVE]))
    with early_negative(pipe, N, after):
        assert torch.equal(sd3.CASE.sample(pipe, [PROMPT], **arguments), stock)


def test_negative_prompt_2_alone_is_refused_before_any_work() -> None:
    """Stable Diffusion XL would guide against zeros in its place, in silence."""
    pipe = sdxl.build()
    pipe.set_progress_bar_config(disable=True)
    with early_negative(pipe, 2), pytest.raises(ConfigError, match="a negative prompt is needed"):
        sdxl.CASE.sample(pipe, [PROMPT], negative_prompt_2=[NEGATIVE])


@pytest.mark.parametrize("adapters", [1, 2])
def test_ip_adapters_keep_their_images(adapters: int) -> None:
    """Their embeddings are lists of an adapter each, with the batch inside."""
    pipe = sdxl.build()
    pipe.set_progress_bar_config(disable=True)
    give_ip_adapters(pipe, adapters)
    draw = torch.Generator().manual_seed(0)
    embeds = [torch.randn(2, 1, 8, generator=draw) for _ in range(adapters)]
    arguments = {"negative_prompt": [NEGATIVE], "ip_adapter_image_embeds": embeds}
    with early_negative(pipe, 0, "off"):
        gated = sdxl.CASE.sample(pipe, [PROMPT], **arguments)
    positive = {"ip_adapter_image_embeds": [both[1:] for both in embeds], "guidance_scale": 1.0}
    assert torch.equal(gated, sdxl.CASE.sample(pipe, [PROMPT], **positive))


def give_ip_adapters(pipe: Pipeline, count: int) -> None:
    """Put random IP-Adapters for image embeddings of 8 numbers into a tiny Stable Diffusion XL."""
    width, states = pipe.unet.config.cross_attention_dim, []
    for seed in range(count):
        torch.manual_seed(seed)
        keys = [name for name in pipe.unet.attn_processors if name.endswith("attn2.processor")]
        states.append(
            {
                "image_proj": {
                    "proj.weight": torch.randn(4 * width, 8),
                    "proj.bias": torch.randn(4 * width),
                    "norm.weight": torch.ones(width),
                    "norm.bias": torch.zeros(width),
                },
                "ip_adapter": {
                    f"{2 * place + 1}.to_{part}_ip.weight": torch.randn(
                        pipe.unet.get_submodule(name.removesuffix(".processor")).to_k.out_features,
                        width,
                    )
                    for place, name in enumerate(keys)
                    for part in ("k", "v")
                },
            }
        )
    pipe.unet._load_ip_adapter_weights(states)


def test_a_picture_that_a_safety_checker_blacked_out_is_named(
    pipe: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock = type(pipe).__call__

    def flagged(self: Pipeline, *args: Any, **options: Any) -> Any:
        result = stock(self, *args, **options)
        result.nsfw_content_detected = [True]
        return result

    functools.update_wrapper(flagged, stock)
    monkeypatch.setattr(type(pipe), "__call__", flagged)
    with pytest.raises(GeneratorError, match="safety checker blacked the image out"):
        made(pipe)


def test_prompts_that_take_turns_keep_their_first_predictions(
    pipe: Pipeline, monkeypatch: pytest.MonkeyPatch, gates: list[Gate]
) -> None:
    monkeypatch.setattr(sampling, "_FIRSTS", 2)
    generator = PipelineGenerator(pipe, **ARGUMENTS)

    def forwards(*shots: tuple[str, str | None]) -> list[int]:
        orders = [Shot(prompt, negative, 7) for prompt, negative in shots]
        gates.clear()
        renders = list(map(generator.generate, orders))
        assert [render.forwards for render in renders] == [
            gate.forwards + gate.recalled for gate in gates
        ]
        return [gate.forwards for gate in gates]

    assert forwards(("a", None), ("b", None)) == [N, N]
    known = forwards(("a", NEGATIVE))
    assert forwards(("b", NEGATIVE), ("a", NEGATIVE)) == known * 2
    assert forwards(("c", NEGATIVE), ("d", NEGATIVE), ("a", NEGATIVE)) == [known[0] + 1] * 3
    one = generator.generate(Shot("a", NEGATIVE, 7)).image.tobytes()
    other = PipelineGenerator(pipe, **ARGUMENTS).generate(Shot("a", NEGATIVE, 7))
    assert other.image.tobytes() == one


class Restless:
    """Draws from torch's own generator in each step, as stochastic schedulers do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, pipe: Pipeline) -> None:
        self.noise_sampler: Any = None
        kind = type(pipe.scheduler)
        step = kind.step

        @functools.wraps(step)
        def noisy(scheduler: Any, *args: Any, **options: Any) -> Any:
            if scheduler.noise_sampler is None:
                scheduler.noise_sampler = iter(torch.randn(4 * N).tolist())
            noise = next(scheduler.noise_sampler) + torch.randn(())
            return (step(scheduler, *args, **options)[0] + noise,)

        monkeypatch.setattr(kind, "step", noisy)
        monkeypatch.setattr(kind, "noise_sampler", None, raising=False)


@pytest.mark.parametrize("negative", [None, NEGATIVE])
def test_noise_that_is_not_of_the_call_s_generator_comes_from_the_seed(
    pipe: Pipeline, monkeypatch: pytest.MonkeyPatch, negative: str | None
) -> None:
    Restless(monkeypatch, pipe)
    generator = PipelineGenerator(pipe, after="null", **ARGUMENTS)

    def drawn(seed: int) -> bytes:
        return generator.generate(Shot(PROMPT, negative, seed)).image.tobytes()

    first = drawn(1)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    assert drawn(2) != first
    assert drawn(1) == first
    assert torch.equal(torch.random.get_rng_state(), before)
    other = PipelineGenerator(pipe, after="null", **ARGUMENTS)
    assert other.generate(Shot(PROMPT, negative, 1)).image.tobytes() == first


@pytest.mark.parametrize("kind", ["FlowMatchEulerDiscreteScheduler", "stochastic"])
def test_flow_matching_with_noise_in_each_step_is_the_same_each_time(
    pipe: Pipeline, kind: str
) -> None:
    if kind == "stochastic":
        pipe.scheduler.register_to_config(stochastic_sampling=True)
    assert made(pipe) == made(pipe)


def test_a_learned_embedding_of_several_vectors_counts_as_many_tokens() -> None:
    pipe = quiet(sd1.build())
    width = pipe.text_encoder.config.hidden_size
    pipe.load_textual_inversion(torch.randn(60, width), token="<cat>")
    assert pipe.maybe_convert_prompt("<cat>", pipe.tokenizer).count("<cat>") == 60
    generator = PipelineGenerator(pipe, num_inference_steps=N, height=32, width=32)
    assert generator.generate(Shot("<cat>", "a", 1)).image
    # 60 vectors a word, and letters, of 77.
    for shot in (Shot("<cat> <cat>", "a", 1), Shot("a", "<cat> <cat>", 1)):
        with pytest.raises(PromptError, match=r"is 122 tokens long, the generator reads 77"):
            generator.generate(shot)


@pytest.mark.parametrize("size", [np.int64(32), np.int32(32)])
def test_numpy_s_integers_are_counts_like_others(pipe: Pipeline, size: Any) -> None:
    numbers = {"height": size, "width": size, "negative_steps": np.int64(3)}
    assert made(pipe, **numbers) == made(pipe)


@pytest.mark.parametrize("count", [True, 2.0, "2"])
def test_what_is_no_count_is_refused(pipe: Pipeline, count: Any) -> None:
    with pytest.raises(ConfigError, match=r"negative_steps = .* must be a whole number"):
        PipelineGenerator(pipe, negative_steps=count)
    with pytest.raises(ConfigError, match=r"steps = .* must be a whole number"):
        early_negative(pipe, count).__enter__()


def test_a_gpu_that_has_failed_for_good_is_no_failure_of_one_image(
    pipe: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any, **__: Any) -> Any:
        raise RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be")

    monkeypatch.setattr(pipe.vae, "decode", failing)
    with pytest.raises(DeviceLostError, match="the GPU failed while making an image: CUDA error"):
        made(pipe)


def test_without_its_t5_stable_diffusion_3_reads_as_much_as_clip() -> None:
    pipe = sd3.build()
    pipe.set_progress_bar_config(disable=True)
    pipe.register_modules(tokenizer_3=None, text_encoder_3=None)
    generator = PipelineGenerator(pipe, num_inference_steps=N, height=32, width=32)
    with pytest.raises(PromptError, match="the generator reads 77"):
        generator.generate(Shot("cat " * 80, NEGATIVE, 1))


def test_the_memo_keeps_no_more_than_its_limit(
    pipe: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_memo, "_LIMIT", 5000)
    generator = PipelineGenerator(pipe, **ARGUMENTS)
    for word in ("one", "two", "three"):
        generator.generate(Shot(f"{word} clocks", NEGATIVE, 1))
    kept = generator._memo._answers
    assert 1 <= len(kept) < 8
    assert sum(answer.size for answer in kept.values()) <= 5000


def test_what_no_pipeline_reads_is_not_kept() -> None:
    """The logits and key-value cache of a language model are larger than all that is read."""
    pipe = longcat.build()
    pipe.set_progress_bar_config(disable=True)
    longcat.shorten(pipe)
    fields = {name: longcat.CASE.arguments[name] for name in ("height", "width")}
    generator = PipelineGenerator(pipe, num_inference_steps=1, negative_steps=1, **fields)
    generator.generate(Shot(PROMPT, NEGATIVE, 1))
    answers = [answer.output for answer in generator._memo._answers.values()]
    assert answers
    for output in answers:
        assert output.logits is None
        assert output.past_key_values is None
        assert output.hidden_states


def test_a_call_shorter_than_the_paper_s_early_steps_is_guided_throughout(pipe, gates):
    generator = PipelineGenerator(pipe, **(ARGUMENTS | {"num_inference_steps": 2}))
    generator.generate(Shot(PROMPT, NEGATIVE, 7))
    assert gates[-1].negative_steps == 2
    with pytest.raises(ConfigError, match="negative_steps = 3 must be at most"):
        PipelineGenerator(pipe, negative_steps=3, **(ARGUMENTS | {"num_inference_steps": 2}))
