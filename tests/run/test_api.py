"""From a profile's name to a correction: what is opened, checked, closed and refused."""

from __future__ import annotations

import asyncio
import json

import pytest

import npc_local
from npc_local.backends.scripted import ScriptedBackend
from npc_local.core.config.load import load_config
from npc_local.core.errors import BackendError, ConfigError, ModelFilesError, PromptError
from npc_local.core.records import Checklist, Claim, Demand
from npc_local.run import factory as factory
from npc_local.run.factory import open_components
from tests.fakes import CAPTION, CHECKLIST, RIGHT, FakeGenerator, FakeScorer, proposal, verdict

CONFIG = """\
default_profile = "replay"

[profiles.replay]
generator = "none"
verifier = "judge"
captioner = "writer"
proposer = "writer"
encoder = "none"
candidates = 2

[generators.none]
path = "nowhere"
steps = 4
guidance_scale = 3.5
true_cfg_scale = 2.0
height = 64
width = 64

[backends.judge]
kind = "scripted"
replies = "judge.json"

[backends.writer]
kind = "scripted"
replies = "writer.json"

[encoders.none]
path = "nowhere"
"""


@pytest.fixture
def config(tmp_path):
    """A configuration whose agents are scripted and whose models do not exist."""
    path = tmp_path / "models.toml"
    path.write_text(CONFIG)
    judge = {"checklist": [CHECKLIST], "verify": [verdict(), verdict(), RIGHT]}
    writer = {"caption": [CAPTION], "propose": [proposal("sand", "sky", "sea")]}
    (tmp_path / "judge.json").write_text(json.dumps(judge))
    (tmp_path / "writer.json").write_text(json.dumps(writer))
    return path


@pytest.fixture
def opened(monkeypatch):
    """The backends that `open_components` opens, each noting that it was checked and closed."""
    backends = []

    class Noting(ScriptedBackend):
        fails = False

        async def check(self):
            self.calls.append("check")
            if self.fails:
                raise BackendError("not reachable")

        async def aclose(self):
            self.calls.append("close")

    def open_noting(name, settings, *, log, sees, on_status):
        backend = Noting.from_file(name, settings.replies)
        backend.calls = []
        backends.append(backend)
        return backend

    monkeypatch.setattr(factory, "open_backend", open_noting)
    open_noting.kind = Noting
    open_noting.backends = backends
    return open_noting


def test_correct_runs_the_profile(config):
    generator = FakeGenerator()
    correction = npc_local.correct(
        " two red circles ", config=config, seed=3, generator=generator, scorer=FakeScorer()
    )
    assert correction.status == "corrected"
    assert correction.prompt == "two red circles"
    assert [shot.negative for shot in generator.shots] == [None, "sand", "sky"]
    assert {shot.seed for shot in generator.shots} == {3}


def test_candidates_override_the_profile(config):
    correction = npc_local.correct(
        "two red circles",
        config=load_config(config),
        candidates=1,
        generator=FakeGenerator(),
        scorer=FakeScorer(),
    )
    assert correction.status == "best-effort"
    assert len(correction.attempts) == 1


def test_claims_known_beforehand_are_checked_instead_of_the_verifier_s(config):
    right = {"c1": True, "reason": "", "score": 1.0}
    (config.parent / "judge.json").write_text(json.dumps({"verify": [right]}))
    correction = npc_local.correct(
        "two red circles",
        config=config,
        checklist=Checklist((Demand("two circles", "count"),)),
        generator=FakeGenerator(),
        scorer=FakeScorer(),
    )
    assert correction.status == "already-correct"
    assert correction.answer.verdict.claims == (Claim("two circles", True, "count"),)


def test_the_profile_s_rules_hold(config):
    settings = [
        f"profiles.replay.{setting}"
        for setting in ("strictness=strict", "votes=2", "proposals=prompt-only")
    ]
    doubted = RIGHT | {"score": 0.5}
    judge = {"checklist": [CHECKLIST], "verify": [RIGHT, doubted, RIGHT, RIGHT]}
    writer = {"propose": [proposal("sand", "sky")]}
    (config.parent / "judge.json").write_text(json.dumps(judge))
    (config.parent / "writer.json").write_text(json.dumps(writer))
    correction = npc_local.correct(
        "two red circles",
        config=load_config(config, settings),
        generator=FakeGenerator(),
        scorer=FakeScorer(),
    )
    assert correction.original.verdict.model_score == 0.75
    assert (correction.status, correction.caption) == ("corrected", None)


def test_each_backend_is_opened_once_checked_before_and_closed_after(config, opened):
    async def scenario():
        profile = load_config(config).profile()
        async with open_components(
            profile, generator=FakeGenerator(), scorer=FakeScorer()
        ) as components:
            assert components.captioner is components.proposer
            assert components.verifier.name == "judge"
            return [list(backend.calls) for backend in opened.backends]

    assert asyncio.run(scenario()) == [["check"], ["check"]]
    assert [backend.calls for backend in opened.backends] == [["check", "close"]] * 2


def test_a_backend_that_cannot_serve_stops_before_any_work(config, opened):
    opened.kind.fails = True
    generator = FakeGenerator()
    with pytest.raises(BackendError, match="not reachable"):
        npc_local.correct("x", config=config, generator=generator, scorer=FakeScorer())
    assert [backend.calls for backend in opened.backends] == [["check", "close"], ["close"]]
    assert generator.shots == []


def test_missing_model_files_stop_it_before_any_server_starts(config, opened):
    with pytest.raises(ModelFilesError, match="nowhere"):
        npc_local.correct("x", config=config)
    assert opened.backends == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"seed": -1}, ConfigError, "seed: found -1"),
        ({"seed": 2**63}, ConfigError, "seed: found 9223372036854775808"),
        ({"candidates": 0}, ConfigError, "candidates: found 0"),
        ({"checklist": Checklist(())}, ConfigError, "checklist: empty"),
        ({"profile": "reply"}, ConfigError, "did you mean 'replay'"),
        ({"prompt": " "}, PromptError, "empty"),
    ],
)
def test_bad_arguments_are_refused_before_anything_opens(config, opened, options, error, message):
    with pytest.raises(error, match=message):
        npc_local.correct(**{"prompt": "x", "config": config} | options)
    assert opened.backends == []


def test_inside_an_event_loop_it_names_acorrect(config):
    async def scenario():
        with pytest.raises(RuntimeError, match="acorrect"):
            npc_local.correct("two red circles", config=config)
        return await npc_local.acorrect(
            "two red circles", config=config, generator=FakeGenerator(), scorer=FakeScorer()
        )

    assert asyncio.run(scenario()).status == "corrected"
