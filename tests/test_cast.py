"""What a profile opens, and that no text encoder is in memory twice."""

from __future__ import annotations

import asyncio

import pytest

from npc_local.cast import open_cast
from npc_local.config import load_config
from npc_local.diffusion.generator import DiffusersGenerator
from npc_local.offline import go_offline
from npc_local.salience.scorer import T5Scorer
from tests.fakes import FakeGenerator, FakeScorer
from tests.tiny_flux import build_tiny_flux

go_offline()

CONFIG = """\
default_profile = "tiny"

[profiles.tiny]
generator = "tiny"
verifier = "shapes"
captioner = "shapes"
proposer = "shapes"
encoder = "tiny"

[generators.tiny]
path = "tiny-flux"
steps = 4
guidance_scale = 3.5
true_cfg_scale = 2.0
height = 64
width = 64
device = "cpu"

[backends.shapes]
kind = "shapes"

[encoders.tiny]
path = "tiny-flux"
device = "cpu"
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    build_tiny_flux(folder / "tiny-flux")
    build_tiny_flux(folder / "other")
    (folder / "models.toml").write_text(CONFIG)
    return folder


def opened(home, *overrides, **parts):
    """Open the profile, close it again, and return the cast."""

    async def scenario():
        profile = load_config(home / "models.toml", overrides).profile()
        async with open_cast(profile, **parts) as cast:
            return cast

    return asyncio.run(scenario())


def test_the_scorer_shares_the_generator_s_text_encoder(home):
    cast = opened(home)
    assert isinstance(cast.generator, DiffusersGenerator)
    assert "pipe" not in vars(cast.generator)  # nothing is loaded before it is needed
    [score] = cast.scorer.score("two cats", ["one cat"])
    tokenizer, model = cast.scorer._encoder
    assert model is cast.generator.pipe.text_encoder_2
    assert tokenizer is cast.generator.pipe.tokenizer_2
    assert T5Scorer(cast.scorer.settings).score("two cats", ["one cat"]) == [score]


@pytest.mark.parametrize(
    "override",
    [
        "encoders.tiny.dtype=bfloat16",
        "encoders.tiny.device=auto",
        "encoders.tiny.path=other",
        "encoders.tiny.tokenizer=tokenizer",
    ],
)
def test_an_encoder_with_other_settings_is_its_own(home, override):
    cast = opened(home, override)
    _, model = cast.scorer._encoder
    assert "pipe" not in vars(cast.generator)
    assert model is not cast.generator.pipe.text_encoder_2


def test_a_generator_without_a_pipeline_shares_nothing(home):
    generator = FakeGenerator()
    cast = opened(home, generator=generator)
    assert cast.generator is generator
    assert len(cast.scorer.score("two cats", ["one cat"])) == 1


def test_parts_of_one_s_own_replace_the_profile_s(home):
    generator, scorer = FakeGenerator(), FakeScorer()
    cast = opened(home, "encoders.tiny.path=nowhere", generator=generator, scorer=scorer)
    assert (cast.generator, cast.scorer) == (generator, scorer)
    assert cast.verifier is cast.captioner is cast.proposer
