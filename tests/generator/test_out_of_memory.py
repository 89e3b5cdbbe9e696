"""What a generator does, in turn, when the memory of its device runs out."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch

from npc_local.core.errors import DeviceLostError, GeneratorError
from npc_local.core.records import Render, Shot
from npc_local.generator import out_of_memory as memory
from npc_local.generator import pipeline_generator as sampling
from npc_local.generator.diffusers_generator import DiffusersGenerator
from npc_local.generator.early_negative.gate import Pipeline
from tests.generator.images import NEGATIVE, PROMPT, settings

FREED, TILED, OFFLOADED = "memory freed", "tiled VAE", "model offload"


@pytest.fixture
def generator(flux_directory: Path) -> DiffusersGenerator:
    return DiffusersGenerator(settings(flux_directory))


def render(generator: DiffusersGenerator, seed: int = 1) -> Render:
    return generator.generate(Shot(PROMPT, NEGATIVE, seed))


def failing(model: Any, method: str, until: Callable[[], bool]) -> list[str]:
    """Let a method of a model run out of memory until told otherwise; return its calls."""
    run, calls = getattr(model, method), []

    def limited(*args: Any, **options: Any) -> Any:
        calls.append("works" if until() else "fails")
        if calls[-1] == "fails":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(*args, **options)

    setattr(model, method, limited)
    return calls


def test_without_trouble_nothing_is_recorded(generator: DiffusersGenerator) -> None:
    assert render(generator).fallbacks == ()


def test_memory_is_freed_first(generator: DiffusersGenerator) -> None:
    expected = render(generator, 2).image.tobytes()
    tries = iter([False])
    calls = failing(generator.pipe.vae, "decode", lambda: next(tries, True))
    made = render(generator, 2)
    assert made.fallbacks == (FREED,)
    assert calls == ["fails", "works"]
    assert made.image.tobytes() == expected
    assert not generator.pipe.vae.use_tiling


def test_decoding_in_tiles_comes_next_and_stays(generator: DiffusersGenerator) -> None:
    vae = generator.pipe.vae
    calls = failing(vae, "decode", lambda: vae.use_tiling)
    assert render(generator).fallbacks == (FREED, TILED)
    assert calls == ["fails", "fails", "works"]
    assert render(generator, 2).fallbacks == (TILED,)
    assert calls[3:] == ["works"]


def test_offloading_comes_last_and_stays(
    generator: DiffusersGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    offloaded: list[bool] = []
    tiled_before: list[bool] = []

    def offload(pipe: Pipeline) -> bool:
        tiled_before.append(pipe.vae.use_tiling)
        offloaded.append(True)
        return True

    ladder = [
        replace(fallback, apply=offload) if fallback.name == OFFLOADED else fallback
        for fallback in sampling.LADDER
    ]
    monkeypatch.setattr(sampling, "LADDER", ladder)
    calls = failing(generator.pipe.transformer.proj_out, "forward", lambda: bool(offloaded))
    assert render(generator).fallbacks == (FREED, TILED, OFFLOADED)
    assert calls[:4] == ["fails", "fails", "fails", "works"]
    assert tiled_before == [True]
    assert render(generator, 2).fallbacks == (TILED, OFFLOADED)
    assert offloaded == [True]


def test_when_nothing_helps_the_error_says_what_was_tried_and_the_next_image_is_made(
    generator: DiffusersGenerator, flux_directory: Path
) -> None:
    full = True
    calls = failing(generator.pipe.transformer.proj_out, "forward", lambda: not full)
    with pytest.raises(GeneratorError) as caught:
        render(generator)
    assert str(caught.value).startswith(
        f"out of memory on cpu while making a 32 x 32 image in float32 "
        f"(tried in turn: {FREED}, {TILED})"
    )
    assert "choose a smaller size" in str(caught.value)
    assert calls == ["fails"] * 3  # no offloading on the CPU
    full = False
    tiled = render(DiffusersGenerator(settings(flux_directory, vae_tiling=True)))
    assert render(generator).image.tobytes() == tiled.image.tobytes()


def test_tiles_that_are_on_already_are_no_rung(flux_directory: Path) -> None:
    generator = DiffusersGenerator(settings(flux_directory, vae_tiling=True))
    calls = failing(generator.pipe.vae, "decode", lambda: False)
    with pytest.raises(GeneratorError, match=rf"tried in turn: {FREED}\)"):
        render(generator)
    assert len(calls) == 2


def test_nothing_of_a_failed_try_is_alive_in_the_next(generator: DiffusersGenerator) -> None:
    pipe = generator.pipe
    left: list[weakref.ref[torch.Tensor]] = []
    alive: list[bool] = []

    def fails_once(latents: torch.Tensor, *_: Any, **__: Any) -> Any:
        if left:
            return decode(latents, return_dict=False)
        large = latents * 2
        ring: list[Any] = [large]
        ring.append(ring)
        left.extend([weakref.ref(latents), weakref.ref(large)])
        raise torch.OutOfMemoryError("CUDA out of memory")

    def retried(*_: Any) -> None:
        alive.extend(one() is not None for one in left)

    decode, pipe.vae.decode = pipe.vae.decode, fails_once
    pipe.transformer.register_forward_pre_hook(retried)
    assert render(generator).fallbacks == (FREED,)
    assert len(alive) >= 2
    assert not any(alive)


def test_what_is_kept_to_save_time_is_dropped(generator: DiffusersGenerator) -> None:
    encoded = mock.Mock(return_value=None)
    generator.pipe.text_encoder_2.encoder.register_forward_pre_hook(encoded)
    render(generator)
    before = encoded.call_count
    tries = iter([False])
    failing(generator.pipe.vae, "decode", lambda: next(tries, True))
    render(generator)
    assert encoded.call_count == 2 * before > 0


def test_offloading_moves_everything_off_the_device_first() -> None:
    pipe = mock.Mock(device=torch.device("cuda:1"), components={"vae": SimpleNamespace()})
    pipe._maybe_raise_error_if_group_offload_active.return_value = False
    assert memory.offload(pipe)
    assert [call for call in pipe.mock_calls if "group" not in str(call)] == [
        mock.call.to("cpu"),
        mock.call.enable_model_cpu_offload(device=torch.device("cuda:1")),
    ]


@pytest.mark.parametrize("offload", ["model", "sequential", "group"])
def test_a_pipeline_that_is_offloaded_is_not_offloaded_again(
    pipe: Pipeline, monkeypatch: pytest.MonkeyPatch, offload: str
) -> None:
    if offload == "model":
        pipe.enable_model_cpu_offload(device="cuda")
    elif offload == "sequential":
        pipe.enable_sequential_cpu_offload(device="meta")
    else:
        pipe.enable_group_offload(onload_device=torch.device("cuda"), offload_type="leaf_level")
    monkeypatch.setattr(type(pipe), "device", torch.device("cuda:0"))  # as while one computes
    assert not memory.offload(pipe)


def test_a_failed_call_leaves_no_model_on_the_device(
    generator: DiffusersGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    freed = mock.Mock()
    monkeypatch.setattr(type(generator.pipe), "maybe_free_model_hooks", freed)
    failing(generator.pipe.transformer.proj_out, "forward", lambda: False)
    with pytest.raises(GeneratorError):
        render(generator)
    assert freed.call_count == 4  # before each rung, and after the last


def test_an_autoencoder_without_tiles_is_no_rung() -> None:
    untiled = mock.Mock(use_tiling=False)
    untiled.enable_tiling.side_effect = NotImplementedError
    assert not memory.tile_vae(SimpleNamespace(vae=untiled))
    assert not memory.tile_vae(SimpleNamespace(vae=object()))
    assert not memory.tile_vae(SimpleNamespace())


@pytest.mark.parametrize(
    "failure",
    [
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        MemoryError(),
        MemoryError("Unable to allocate 3.00 GiB for an array with shape (1024, 1024, 3)"),
    ],
    ids=lambda failure: f"{type(failure).__name__}: {str(failure)[:30]}",
)
def test_the_ladder_is_for_memory_that_runs_out_by_any_name(
    generator: DiffusersGenerator, failure: Exception
) -> None:
    decode, left = generator.pipe.vae.decode, [1]

    def limited(*args: Any, **options: Any) -> Any:
        if left.pop() if left else 0:
            raise failure
        return decode(*args, **options)

    generator.pipe.vae.decode = limited
    assert render(generator).fallbacks == (FREED,)
    generator.pipe.vae.decode = mock.Mock(side_effect=failure)
    with pytest.raises(GeneratorError, match="out of memory on cpu") as caught:
        render(generator)
    assert (str(failure) or "MemoryError") in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: the launch timed out and was terminated",
        "CUDA driver error: an illegal memory access was encountered",
        "HIP error: unspecified launch failure",
    ],
)
@pytest.mark.parametrize("kind", [RuntimeError, torch.AcceleratorError])
@pytest.mark.parametrize("where", ["while an image is made", "while memory is freed"])
def test_a_lost_gpu_by_any_name_is_no_failure_of_one_image(
    generator: DiffusersGenerator,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    kind: type[Exception],
    where: str,
) -> None:
    lost = mock.Mock(side_effect=kind(words))
    if where == "while an image is made":
        generator.pipe.vae.decode = lost
    else:
        generator.pipe.vae.decode = mock.Mock(side_effect=torch.OutOfMemoryError("CUDA out"))
        monkeypatch.setattr(type(generator.pipe), "maybe_free_model_hooks", lost)
    with pytest.raises(DeviceLostError, match=words):
        render(generator)


@pytest.mark.parametrize(
    "failure",
    [
        *(KeyError("x"), AssertionError("N"), AttributeError("a"), ImportError("no torchsde")),
        *(OverflowError("int too large"), ZeroDivisionError("x"), FloatingPointError("y")),
    ],
)
def test_whatever_a_model_raises_is_a_generator_error(
    generator: DiffusersGenerator, failure: Exception
) -> None:
    generator.pipe.vae.decode = mock.Mock(side_effect=failure)
    with pytest.raises(GeneratorError, match="the model failed"):
        render(generator)
    assert generator.pipe.vae.decode.call_count == 1
