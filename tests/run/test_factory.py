"""What a profile opens, and that no text encoder is in memory twice."""

from __future__ import annotations

import asyncio

import pytest

from npc_local.backends.scripted import ScriptedBackend
from npc_local.core.config.load import load_config
from npc_local.core.config.settings import EncoderSettings
from npc_local.core.errors import ConfigError
from npc_local.core.offline.switches import go_offline
from npc_local.core.records import Shot
from npc_local.generator.diffusers_generator import DiffusersGenerator
from npc_local.generator.pipeline_generator import PipelineGenerator
from npc_local.loop import correct
from npc_local.run import factory as factory
from npc_local.run.factory import open_components
from npc_local.run.stages import Stages
from npc_local.salience.scorer import SalienceScorer
from tests.generator.tiny_flux import build_tiny_flux
from tests.world import CAPTION, CHECKLIST, RIGHT, FakeGenerator, FakeScorer, proposal, verdict

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
tokens = "quantity"
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
        async with open_components(profile, **parts) as components:
            return components

    return asyncio.run(scenario())


def test_the_scorer_shares_the_generator_s_text_encoder(home):
    components = opened(home)
    assert isinstance(components.generator, DiffusersGenerator)
    assert "pipe" not in vars(components.generator)  # nothing is loaded before it is needed
    [score] = components.scorer.score("two cats", ["one cat"])
    encoder = components.scorer._encoder
    assert encoder.model is components.generator.pipe.text_encoder_2
    assert encoder.tokenizer is components.generator.pipe.tokenizer_2
    own = SalienceScorer.open(EncoderSettings(path=home / "tiny-flux", tokens="quantity"))
    assert own.score("two cats", ["one cat"]) == pytest.approx([score], abs=1e-5)


def test_another_encoder_of_the_generator_is_shared_too(home):
    parts = {"kind": "clip", "text_encoder": "text_encoder", "tokenizer": "tokenizer"}
    components = opened(home, *(f"encoders.tiny.{key}={value}" for key, value in parts.items()))
    components.scorer.score("two cats", ["one cat"])
    assert components.scorer._encoder.model is components.generator.pipe.text_encoder


def test_the_scorer_shares_the_text_encoder_of_a_pipeline_from_its_directory(home):
    import diffusers

    for place, shared in (("tiny-flux", True), ("other", False)):
        pipe = diffusers.FluxPipeline.from_pretrained(home / place, local_files_only=True)
        components = opened(home, generator=PipelineGenerator(pipe, height=64, width=64))
        components.scorer.score("two cats", ["one cat"])
        assert (components.scorer._encoder.model is pipe.text_encoder_2) is shared


@pytest.mark.parametrize(
    "override",
    [
        "encoders.tiny.dtype=bfloat16",
        "encoders.tiny.device=auto",
        "encoders.tiny.path=other",
    ],
)
def test_an_encoder_with_other_settings_is_its_own(home, override):
    components = opened(home, override)
    model = components.scorer._encoder.model
    assert "pipe" not in vars(components.generator)
    assert model is not components.generator.pipe.text_encoder_2
    assert not components.shared_encoder


def test_a_generator_has_a_worker_on_each_of_its_devices(home):
    components = opened(home, "generators.tiny.more_devices=['cpu','cpu']")
    assert len(components.more_generators) == 2
    everyone = [components.generator, *components.more_generators]
    assert len({id(one) for one in everyone}) == 3
    alone = opened(home).generator.fingerprint()
    assert {one.fingerprint() for one in everyone} == {alone}  # who makes an image does not matter


def test_more_devices_do_not_share_a_gpu_with_agents(home):
    with pytest.raises(ConfigError, match='"phased" is for one GPU'):
        opened(home, "generators.tiny.more_devices=['cpu']", "profiles.tiny.gpu=phased")


@pytest.mark.parametrize(
    ("override", "shared"),
    [("generators.tiny.loras=[{path='lora'}]", False), ("encoders.tiny.memory_gib=2.0", True)],
)
def test_a_clip_that_loras_may_change_is_not_shared(home, override, shared):
    parts = {"kind": "clip", "text_encoder": "text_encoder", "tokenizer": "tokenizer"}
    overrides = [*(f"encoders.tiny.{key}={value}" for key, value in parts.items()), override]
    profile = load_config(home / "models.toml", overrides).profile()
    assert profile.encoder.is_held_by(profile.generator) is shared


def test_a_generator_without_a_pipeline_shares_nothing(home):
    generator = FakeGenerator()
    components = opened(home, generator=generator)
    assert components.generator is generator
    assert len(components.scorer.score("two cats", ["one cat"])) == 1


def test_parts_of_one_s_own_replace_the_profile_s(home):
    generator, scorer = FakeGenerator(), FakeScorer()
    components = opened(home, "encoders.tiny.path=nowhere", generator=generator, scorer=scorer)
    assert (components.generator, components.scorer) == (generator, scorer)
    assert components.verifier is components.captioner is components.proposer


REPLIES = {
    "checklist": [CHECKLIST],
    "verify": [verdict(), verdict(), RIGHT],
    "caption": [CAPTION],
    "propose": [proposal("sand", "sky")],
}


class Server:
    """Stands in for a vLLM server, on a device that one side at a time may hold."""

    def __init__(self, device, name):
        self.device, self.name, self.settings = device, name, None

    async def wake(self):
        assert not any(who.startswith("images") for who in self.device), self.device
        self.device.append(self.name)

    async def sleep(self):
        self.device.remove(self.name)


class Images(FakeGenerator):
    """A generator that takes the device with its first image."""

    def __init__(self, device):
        super().__init__()
        self.device = device

    def generate(self, shot, on_step=None):
        if "images" not in self.device:
            self.enter_device()
        assert self.device == ["images"], self.device
        return super().generate(shot, on_step)

    def enter_device(self):
        assert self.device in ([], ["images"]), self.device
        self.device[:] = ["images"]

    def leave_device(self):
        if "images" in self.device:  # not so before the first image
            self.device.remove("images")


PHASED = """
[profiles.phased]
generator = "tiny"
verifier = "eye"
captioner = "eye"
proposer = "mind"
encoder = "tiny"
gpu = "phased"

[backends.eye]
kind = "vllm"
model = "eye"
server = { model = "eye" }

[backends.mind]
kind = "vllm"
model = "mind"
server = { model = "mind" }
"""


@pytest.fixture
def phased(home, monkeypatch):
    """The device, and a profile whose two servers and generator share it."""
    device, seen, logs = [], {}, {}

    def open_phased(name, settings, *, log, sees, on_status):
        backend = ScriptedBackend(name, REPLIES)
        complete = backend.complete
        seen[name], logs[name] = sees, log

        async def answer(request):
            assert set(device) == {"eye", "mind"}, device
            return await complete(request)

        async def check():
            assert name in device, device

        backend.complete, backend.check = answer, check
        backend.server = Server(device, name)
        return backend

    monkeypatch.setattr(factory, "open_backend", open_phased)
    file = home / "phased.toml"
    file.write_text(CONFIG + PHASED)
    return device, seen, logs, load_config(file).profile("phased")


def test_phased_parts_never_share_the_device(phased, tmp_path):
    device, seen, logs, profile = phased
    generator = Images(device)

    async def scenario():
        parts = {"generator": generator, "scorer": FakeScorer(), "logs": tmp_path}
        async with open_components(profile, **parts) as components:
            assert components.gpu_sharing.served == {"eye", "mind"}
            return await correct("two red circles", Stages(components), seed=1, candidates=2)

    correction = asyncio.run(scenario())
    assert correction.status == "corrected", correction.error
    assert len(generator.shots) == 3
    assert device == []
    assert seen == {"eye": True, "mind": False}
    assert logs == {"eye": tmp_path / "eye.log", "mind": tmp_path / "mind.log"}


def test_a_server_that_cannot_be_stopped_shares_no_gpu(home):
    text = CONFIG + PHASED.replace(
        'server = { model = "eye" }', 'base_url = "http://127.0.0.1:9/v1"'
    )
    (home / "attached.toml").write_text(text)
    profile = load_config(home / "attached.toml").profile("phased")

    async def scenario():
        async with open_components(profile, generator=Images([]), scorer=FakeScorer()):
            pass

    with pytest.raises(ConfigError, match=r"phased.*backends\.eye has a base_url.*resident"):
        asyncio.run(scenario())


def test_a_generator_gives_its_device_back_and_takes_it_again(home):
    """On the CPU nothing moves, and the images stay the same."""
    components = opened(home)
    shot = Shot("two cats", None, 1)
    before = components.generator.generate(shot)
    components.scorer.score("two cats", ["one cat"])
    components.scorer.leave_device()
    components.generator.leave_device()
    components.generator.enter_device()
    after = components.generator.generate(shot)
    assert after.image.tobytes() == before.image.tobytes()
    assert components.scorer._encoder.model is components.generator.pipe.text_encoder_2


def test_a_generator_that_keeps_the_device_shares_no_gpu(phased):
    *_, profile = phased

    async def scenario():
        async with open_components(profile, generator=FakeGenerator(), scorer=FakeScorer()):
            pass

    with pytest.raises(ConfigError, match="needs a generator that gives the GPU back"):
        asyncio.run(scenario())
