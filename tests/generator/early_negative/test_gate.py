"""The gate's manners on a FLUX pipeline; that each family comes out right is in test_families."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from npc_local.core.errors import ConfigError
from npc_local.generator.early_negative.gate import check_true_cfg_scale, early_negative
from npc_local.generator.families import REFUSED, distilled_name, family_of
from npc_local.generator.family import Pipeline
from tests.generator.families.case import NEGATIVES, PROMPTS, N, generators
from tests.generator.families.flux import CASE, LENGTH


def sample(pipe: Pipeline, images: int = 1, **changes: Any) -> torch.Tensor:
    """Call the pipeline as a user would, up to the packed latents."""
    arguments = {"negative_prompt": NEGATIVES[:images]} | changes
    return CASE.sample(pipe, PROMPTS[:images], **arguments)


def test_embeddings_serve_as_well_as_texts(pipe: Pipeline) -> None:
    with early_negative(pipe, 2, "null"):
        from_texts = sample(pipe)
    with torch.no_grad():
        encoded = [
            pipe.encode_prompt(text, max_sequence_length=LENGTH)[:2]
            for text in (PROMPTS[0], NEGATIVES[0], "")
        ]
    (embeds, pooled), (negative_embeds, negative_pooled), (null_embeds, null_pooled) = encoded
    given = {
        "prompt": None,
        "negative_prompt": None,
        "prompt_embeds": embeds,
        "pooled_prompt_embeds": pooled,
        "negative_prompt_embeds": negative_embeds,
        "negative_pooled_prompt_embeds": negative_pooled,
    }
    with early_negative(pipe, 2, "null"):
        assert torch.equal(sample(pipe, **given), from_texts)
    pipe.text_encoder_2 = None  # so that nothing can be encoded anew
    null = {
        "negative_prompt_embeds": null_embeds,
        "negative_pooled_prompt_embeds": null_pooled,
    }
    with early_negative(pipe, 2, "null", null=null):
        assert torch.equal(sample(pipe, **given), from_texts)


def test_another_null_prompt_can_be_given(pipe: Pipeline) -> None:
    with early_negative(pipe, 0, "null", null={"negative_prompt": "red"}):
        gated = sample(pipe)
    assert torch.equal(gated, sample(pipe, negative_prompt="red"))


def test_the_null_prompt_draws_no_random_number(pipe: Pipeline) -> None:
    """Latents drawn from the global generator, which the null prompt's own call must not move."""
    torch.manual_seed(3)
    stock = sample(pipe, generator=None)
    torch.manual_seed(3)
    with early_negative(pipe, N, "null"):
        assert torch.equal(sample(pipe, generator=None), stock)


def test_each_text_is_encoded_once_a_call(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, texts = pipe.text_encoder_2.forward, []

    def forward(ids: torch.Tensor, **options: Any) -> Any:
        texts.append(ids)
        return encode(ids, **options)

    monkeypatch.setattr(pipe.text_encoder_2, "forward", forward)
    with early_negative(pipe, 2, "null"):
        sample(pipe)
    assert len(texts) == 3  # prompt, negative, null


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


def test_two_pipelines_that_share_their_models_keep_apart(pipe: Pipeline) -> None:
    twin = type(pipe)(**pipe.components)
    twin.set_progress_bar_config(disable=True)
    stock = sample(pipe)
    with early_negative(pipe, 1), early_negative(twin, 3) as second:
        one, three = sample(pipe), sample(twin)
        assert torch.equal(sample(pipe), one)
    assert second.forwards == N + 3
    assert len({latents.numpy().tobytes() for latents in (stock, one, three)}) == 3
    with early_negative(pipe, 3):
        assert torch.equal(sample(twin), stock)
        assert torch.equal(sample(pipe), three)


def test_a_call_inside_a_call_is_refused(pipe: Pipeline) -> None:
    def again(pipe: Pipeline, *_: Any) -> dict[str, Any]:
        sample(pipe)
        return {}

    with early_negative(pipe, 2):
        with pytest.raises(ConfigError, match="inside its own call"):
            sample(pipe, callback_on_step_end=again)
        sample(pipe)


def test_survives_offload_hooks_that_the_pipeline_renews(pipe: Pipeline) -> None:
    """enable_model_cpu_offload removes and adds its hooks at the end of every call."""
    pipe.enable_model_cpu_offload(device="cpu")
    stock = sample(pipe)
    with early_negative(pipe, 3) as gate:
        first, second = sample(pipe), sample(pipe)
        assert gate.forwards == 2 * (N + 3)
    assert torch.equal(sample(pipe), stock)
    pipe.remove_all_hooks()
    assert torch.equal(sample(pipe), stock)
    with early_negative(pipe, 3):
        expected = sample(pipe)
    assert torch.equal(first, expected)
    assert torch.equal(second, expected)


def test_a_pipeline_that_shares_the_denoiser_cannot_be_called_inside(pipe: Pipeline) -> None:
    """It would be answered for the outer call's step, and both images spoilt in silence."""
    twin = type(pipe)(**{**pipe.components, "scheduler": copy.deepcopy(pipe.scheduler)})
    twin.set_progress_bar_config(disable=True)

    def call_twin(pipe: Pipeline, *_: Any) -> dict[str, Any]:
        sample(twin)
        return {}

    with early_negative(pipe, 2):
        expected = sample(pipe)
        with pytest.raises(ConfigError, match="more predictions than one step has"):
            sample(pipe, callback_on_step_end=call_twin)
        with early_negative(twin, 2), pytest.raises(ConfigError, match="in the middle of a call"):
            sample(pipe, callback_on_step_end=call_twin)
        assert torch.equal(sample(pipe), expected)


def test_copies_made_inside_have_no_gate(pipe: Pipeline) -> None:
    with early_negative(pipe, 2) as gate:
        twin = copy.deepcopy(pipe)
        inside = sample(twin)
        assert gate.forwards == 0
        with pytest.raises(ConfigError, match="made from one inside early_negative"):
            sample(type(pipe)(**pipe.components))
    assert torch.equal(sample(twin), inside)
    with early_negative(twin, 2) as gate:
        assert not torch.equal(sample(twin), inside)
    assert gate.forwards == N + 2


def test_a_call_that_stock_refuses_is_refused_alike(pipe: Pipeline) -> None:
    with early_negative(pipe, 2, "null"):
        with pytest.raises(TypeError, match="multiple values for argument 'prompt'"):
            pipe("two cats", prompt="a clock", negative_prompt="red", true_cfg_scale=2.0)
        with pytest.raises(ValueError, match="Provide either `prompt`"):
            pipe(negative_prompt="red", true_cfg_scale=2.0)


def test_several_images_a_prompt(pipe: Pipeline) -> None:
    four = {"num_images_per_prompt": 2, "generator": generators(4)}
    with early_negative(pipe, N):
        gated = sample(pipe, 2, **four)
    assert torch.equal(gated, sample(pipe, 2, **(four | {"generator": generators(4)})))


@pytest.mark.parametrize(
    "prepare",
    [
        lambda pipe: pipe.enable_group_offload(torch.device("cpu"), offload_type="leaf_level"),
        lambda pipe: pipe.transformer.compile(backend="eager"),
        lambda pipe: setattr(pipe, "transformer", torch.compile(pipe.transformer, backend="eager")),
    ],
    ids=["group offload", "compiled in place", "compiled"],
)
def test_works_with(pipe: Pipeline, prepare: Callable[[Pipeline], None]) -> None:
    torch._dynamo.reset()
    with early_negative(pipe, 3, "null"):
        expected = sample(pipe)
    stock = sample(pipe)
    prepare(pipe)
    with early_negative(pipe, 3, "null") as gate:
        assert torch.equal(sample(pipe), expected)
    assert gate.forwards == 2 * N
    assert torch.equal(sample(pipe), stock)


@pytest.mark.parametrize("own_forward", [False, True])
def test_the_pipeline_is_restored_after_an_exception(pipe: Pipeline, own_forward: bool) -> None:
    if own_forward:  # as caches and hooks leave it
        pipe.transformer.forward = pipe.transformer.forward
    stock = sample(pipe)
    parts = [pipe, pipe.transformer, pipe.text_encoder, pipe.text_encoder_2, pipe.scheduler]

    def state() -> list[Any]:
        return [type(part) for part in parts] + [set(vars(part)) for part in parts]

    def fail_inside() -> None:
        def fail(*_: Any) -> None:
            assert type(pipe.scheduler) is not before[4]
            raise ZeroDivisionError

        with early_negative(pipe, 3, "null"):
            sample(pipe, callback_on_step_end=fail)

    before, forward = state(), vars(pipe.transformer).get("forward")
    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert state() == before
    assert vars(pipe.transformer).get("forward") is forward
    assert torch.equal(sample(pipe), stock)


def test_nested_use_is_refused_and_leaves_the_outer_gate_alone(pipe: Pipeline) -> None:
    with early_negative(pipe, 3) as gate:
        with pytest.raises(ConfigError, match="already active"), early_negative(pipe, 1):
            pass
        sample(pipe)
    assert gate.forwards == N + 3


@pytest.mark.parametrize(
    ("ignored", "message"),
    [
        ({"true_cfg_scale": 1.0}, "true_cfg_scale = 1.0 switches guidance off"),
        ({"true_cfg_scale": float("nan")}, "switches guidance off"),
        ({"negative_prompt": None}, "a negative prompt is needed"),
    ],
)
def test_a_call_that_ignores_the_negative_is_refused_before_any_work(
    pipe: Pipeline, ignored: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message), early_negative(pipe) as gate:
        sample(pipe, **ignored)
    assert gate.forwards == 0


def test_a_negative_that_equals_the_prompt_cancels_to_no_guidance(pipe: Pipeline) -> None:
    with early_negative(pipe, N):
        gated = sample(pipe, negative_prompt=PROMPTS[0])
    assert torch.equal(gated, sample(pipe, true_cfg_scale=1.0))


def test_an_empty_negative_is_the_null_prompt(pipe: Pipeline) -> None:
    with early_negative(pipe, 2, "null"):
        gated = sample(pipe, negative_prompt="")
    assert torch.equal(gated, sample(pipe, negative_prompt=""))


def test_a_long_negative_is_cut_as_the_pipeline_cuts_it(pipe: Pipeline) -> None:
    long = " ".join(["cat"] * 600)
    with early_negative(pipe, N):
        assert torch.equal(
            sample(pipe, negative_prompt=long), sample(pipe, negative_prompt=f"{long} clock")
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": -1}, "0 or more"),
        ({"steps": 2.5}, "a whole number"),
        ({"after": "later"}, "'off', 'null'"),
    ],
)
def test_arguments_out_of_range_are_refused(
    pipe: Pipeline, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message), early_negative(pipe, **arguments):
        pass


@pytest.mark.parametrize(("name", "why"), [(name, why) for name, (why, _) in REFUSED.items()])
def test_pipelines_that_would_ignore_a_negative_are_refused(name: str, why: str) -> None:
    import diffusers

    kind: Any = getattr(diffusers, name)
    pipe = kind.__new__(kind)  # refused by its class, before anything in it is looked at
    with pytest.raises(ConfigError, match=f"{why}; use .* instead"), early_negative(pipe):
        pass


def test_unknown_pipelines_are_refused_with_what_is_supported() -> None:
    class OtherPipeline:
        pass

    with (
        pytest.raises(ConfigError, match=r"OtherPipeline are not supported.*FluxPipeline"),
        early_negative(OtherPipeline()),
    ):
        pass


def schnell(pipe: Pipeline) -> None:
    pipe.transformer.register_to_config(guidance_embeds=False)
    pipe.scheduler.register_to_config(use_dynamic_shifting=False)


def lcm(pipe: Pipeline) -> None:
    import diffusers

    scheduler: Any = diffusers.LCMScheduler
    pipe.scheduler = scheduler()


@pytest.mark.parametrize(
    ("distil", "sign"),
    [
        (schnell, "neither guidance embedding nor dynamic shifting"),
        (lcm, "LCMScheduler"),
        (lambda pipe: pipe.register_to_config(is_distilled=True), "is_distilled"),
        (
            lambda pipe: pipe.register_to_config(_name_or_path="models/FLUX.1-turbo-alpha"),
            "it is called 'FLUX.1-turbo-alpha'",
        ),
        (
            lambda pipe: pipe.register_to_config(
                _name_or_path="hub/models--org--FLUX.1-schnell/snapshots/0a1b2c"
            ),
            "it is called 'models--org--FLUX.1-schnell'",
        ),
    ],
)
def test_distilled_checkpoints_are_refused_unless_told_otherwise(
    pipe: Pipeline, distil: Callable[[Pipeline], None], sign: str
) -> None:
    distil(pipe)
    with (
        pytest.raises(ConfigError, match=f"{sign}.*use FLUX.1-dev instead"),
        early_negative(pipe),
    ):
        pass
    with early_negative(pipe, allow_distilled=True):
        pass


DISTILLED = """FLUX.1-dev-turbo FLUX.1-schnell Hyper-SDXL-8steps-lora Hyper-SD15 sdxl-flash
Chroma1-Flash stable-diffusion-xl-lightning-4step dreamshaperXL_v21TurboDPMSDE dmd2_sdxl_4step
realvisxlV40_v40LightningBakedvae Z-Image-Turbo HunyuanImage-2.1-Distilled-Diffusers lcm-lora-sdxl
FLUX.1-Turbo-Alpha Qwen-Image-Lightning-8steps-V1.0 flux1-schnell-Q8_0.gguf"""
NOT_DISTILLED = """FLUX.1-dev undistilled flux-dev-de-distill not-distilled hyper-realistic-lora
chroma-unlocked-v37-detail-calibrated stable-diffusion-3.5-large flux-50-steps turbine flashlight"""


@pytest.mark.parametrize("name", DISTILLED.split())
def test_names_of_distilled_checkpoints(name: str) -> None:
    assert distilled_name(family_of("FluxPipeline"), name)


@pytest.mark.parametrize("name", [*NOT_DISTILLED.split(), "HiDream-I1-Dev"])
def test_names_of_other_checkpoints(name: str) -> None:
    assert distilled_name(family_of("FluxPipeline"), name) is None


@pytest.mark.parametrize("name", ["HiDream-I1-Dev", "hidream_i1_dev", "HiDream-I1-Fast"])
def test_names_that_mean_distilled_in_one_family_only(name: str) -> None:
    assert distilled_name(family_of("HiDreamImagePipeline"), name)


@pytest.mark.parametrize("scale", [1.0, 0.0, float("nan")])
def test_a_scale_that_ignores_the_negative_is_refused(scale: float) -> None:
    with pytest.raises(ConfigError, match="greater than 1"):
        check_true_cfg_scale(scale)
