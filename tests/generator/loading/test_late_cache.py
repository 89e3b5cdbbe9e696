"""diffusers' caches, in the late steps only."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from npc_local.core.errors import (
    ConfigError,
    GeneratorError,
)
from npc_local.core.records import Shot
from npc_local.generator.diffusers_generator import DiffusersGenerator
from npc_local.generator.loading import directory
from npc_local.generator.loading import load as loading
from tests.generator.images import NEGATIVE, PROMPT, image_of, settings
from tests.generator.loading.models import (
    difference,
    other,
    refusal,
)

STEPS, EARLY = 8, 2


def cached(path: Path, kind: str | None, threshold: float = 99.0) -> Any:
    cache = None if kind is None else {"kind": kind, "threshold": threshold}
    return settings(path, steps=STEPS, negative_steps=EARLY, cache=cache)


@pytest.fixture
def latents(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """What each scheduler step returns."""
    import diffusers

    kept: list[torch.Tensor] = []
    step = diffusers.FlowMatchEulerDiscreteScheduler.step

    @functools.wraps(step)
    def recorded(*args: Any, **options: Any) -> Any:
        result = step(*args, **options)
        kept.append(result[0].clone())
        return result

    monkeypatch.setattr(diffusers.FlowMatchEulerDiscreteScheduler, "step", recorded)
    return kept


def forwards(generator: DiffusersGenerator, negative: str | None = NEGATIVE) -> int:
    """Make an image and return how often the last block was computed."""
    count = 0

    def counted(*_: Any) -> None:
        nonlocal count
        count += 1

    block = generator.pipe.transformer.single_transformer_blocks[-1]
    hook = block.attn.register_forward_pre_hook(counted)
    image_of(generator, negative)
    hook.remove()
    return count


@pytest.mark.parametrize("kind", ["mag", "first-block"])
def test_the_cache_skips_late_steps_only(
    flux_directory: Path, latents: list[torch.Tensor], kind: str
) -> None:
    plain = forwards(DiffusersGenerator(cached(flux_directory, None)))
    without = latents.copy()
    latents.clear()
    assert plain == STEPS + EARLY
    assert forwards(DiffusersGenerator(cached(flux_directory, kind))) < plain
    assert all(torch.equal(*pair) for pair in zip(latents[:EARLY], without[:EARLY], strict=True))
    assert not torch.equal(latents[-1], without[-1])


# One of mag's ratios is exactly 1: the step that it expects to change nothing.
@pytest.mark.parametrize(("kind", "skipped"), [("mag", 1), ("first-block", 0)])
def test_a_small_threshold_skips_what_changes_nothing(
    flux_directory: Path, kind: str, skipped: int
) -> None:
    wanted = cached(flux_directory, kind, threshold=1e-9)
    assert forwards(DiffusersGenerator(wanted)) == STEPS + EARLY - skipped
    assert (difference(wanted, cached(flux_directory, None)) == 0) is (skipped == 0)


@pytest.mark.parametrize("after", ["off", "null"])
@pytest.mark.parametrize("kind", ["mag", "first-block"])
def test_a_cache_leaves_nothing_behind(
    flux_directory: Path, monkeypatch: pytest.MonkeyPatch, kind: str, after: str
) -> None:
    wanted = cached(flux_directory, kind).model_copy(update={"after": after})
    shots = [Shot(PROMPT, NEGATIVE, seed) for seed in (1, 2)] + [Shot("a clock", None, 3)]
    alone = [DiffusersGenerator(wanted).generate(shot).image.tobytes() for shot in shots]
    generator = DiffusersGenerator(wanted)
    assert [made.image.tobytes() for made in map(generator.generate, shots)] == alone
    assert not generator.pipe.transformer.is_cache_enabled
    with monkeypatch.context() as patch:
        patch.setattr(generator.pipe.vae, "decode", mock.Mock(side_effect=ValueError("broken")))
        with pytest.raises(GeneratorError, match="broken"):
            generator.generate(shots[0])
    assert not generator.pipe.transformer.is_cache_enabled
    assert generator.generate(shots[1]).image.tobytes() == alone[1]


def test_mag_gets_the_ratios_of_the_late_steps(flux_directory: Path) -> None:
    from diffusers.hooks.mag_cache import FLUX_MAG_RATIOS

    wanted = settings(
        flux_directory, steps=28, negative_steps=3, cache={"kind": "mag", "threshold": 0.1}
    )
    make = loading.late_cache(wanted, directory.check_directory(wanted)[0])
    assert make is not None
    config = make()
    assert (config.threshold, config.num_inference_steps) == (0.1, 25)
    assert torch.equal(config.mag_ratios, FLUX_MAG_RATIOS[3:])


def test_a_cache_that_diffusers_has_no_blocks_for_is_refused(
    flux_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers.hooks._helpers import TransformerBlockRegistry

    unknown = mock.Mock(side_effect=ValueError("Model class FluxTransformerBlock not registered."))
    monkeypatch.setattr(TransformerBlockRegistry, "get", unknown)
    message = refusal(ConfigError, cached(flux_directory, "first-block"))
    assert message.startswith("cache: kind = 'first-block' does not fit this model")


def test_a_cache_for_no_late_step_is_none(flux_directory: Path) -> None:
    wanted = settings(flux_directory, negative_steps=4, cache={"kind": "mag", "threshold": 99.0})
    assert loading.late_cache(wanted, directory.check_directory(wanted)[0]) is None
    assert difference(wanted, settings(flux_directory, negative_steps=4)) == 0


def test_mag_is_for_flux_only(sd3_directory: Path) -> None:
    family, _ = directory.check_directory(other(sd3_directory))
    wanted = other(sd3_directory, cache={"kind": "mag"})
    with pytest.raises(ConfigError, match="leave cache out"):
        loading.late_cache(wanted, family)
