"""From a profile's name to a correction: what is opened, checked, closed and refused."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import npc_local
from npc_local.backends.scripted import ScriptedBackend
from npc_local.core.config.load import load_config
from npc_local.core.errors import (
    BackendError,
    ConfigError,
    ModelFilesError,
    NpcError,
    PromptError,
    StorageError,
)
from npc_local.core.records import Checklist, Claim, Demand
from npc_local.run import factory as factory
from npc_local.run.factory import open_components
from tests.world import CAPTION, CHECKLIST, RIGHT, FakeGenerator, FakeScorer, proposal, verdict

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
        ({"seed": True}, ConfigError, "seed = True must be a whole number"),
        ({"seed": 3.0}, ConfigError, r"seed = 3\.0 must be a whole number"),
        ({"seed": np.float32(3)}, ConfigError, "seed = .* must be a whole number"),
        ({"seed": np.True_}, ConfigError, "seed = .* must be a whole number"),
        ({"seed": "3"}, ConfigError, "seed = '3' must be a whole number"),
        ({"seed": None}, ConfigError, "seed = None must be a whole number"),
        ({"candidates": True}, ConfigError, "candidates = True must be a whole number"),
        ({"candidates": 2.0}, ConfigError, r"candidates = 2\.0 must be a whole number"),
        ({"checklist": Checklist(())}, ConfigError, "checklist: empty"),
        ({"profile": "reply"}, ConfigError, "did you mean 'replay'"),
        ({"prompt": " "}, PromptError, "empty"),
    ],
)
def test_bad_arguments_are_refused_before_anything_opens(config, opened, options, error, message):
    with pytest.raises(error, match=message):
        npc_local.correct(**{"prompt": "x", "config": config} | options)
    assert opened.backends == []


@pytest.mark.parametrize("whole", [np.int64, np.uint8, np.array, int])
def test_whole_numbers_of_other_libraries_are_numbers(config, whole):
    generator = FakeGenerator()
    correction = npc_local.correct(
        "two red circles",
        config=config,
        seed=whole(3),
        candidates=whole(1),
        generator=generator,
        scorer=FakeScorer(),
    )
    assert len(correction.attempts) == 1
    assert type(correction.seed) is int
    assert {type(shot.seed) for shot in generator.shots} == {int}


def test_inside_an_event_loop_it_names_acorrect(config):
    async def scenario():
        with pytest.raises(RuntimeError, match="acorrect"):
            npc_local.correct("two red circles", config=config)
        return await npc_local.acorrect(
            "two red circles", config=config, generator=FakeGenerator(), scorer=FakeScorer()
        )

    assert asyncio.run(scenario()).status == "corrected"


# ---------------------------------------------------------------- sessions


@pytest.fixture
def many(config):
    """A configuration whose agents have an answer for every prompt, however many there are."""
    judge = {"checklist": [CHECKLIST] * 9, "verify": [RIGHT] * 9}
    (config.parent / "judge.json").write_text(json.dumps(judge))
    return config


def opening(config, **parts):
    return npc_local.open(config=config, **({"scorer": FakeScorer()} | parts))


def test_a_session_loads_once_and_corrects_many(many, opened):
    generator = FakeGenerator()
    with opening(many, generator=generator) as npc:
        statuses = [npc.correct(f"{n} circles", seed=n).status for n in range(3)]
    assert statuses == ["already-correct"] * 3
    assert [backend.calls for backend in opened.backends] == [["check", "close"]] * 2
    assert [shot.seed for shot in generator.shots] == [0, 1, 2]


def test_a_session_serves_several_threads_and_a_notebook(many):
    """A notebook runs in an event loop, where `npc_local.correct` cannot."""
    with opening(many, generator=FakeGenerator()) as npc, ThreadPoolExecutor(3) as threads:
        prompts = [f"{n} circles" for n in range(4)]
        assert [one.prompt for one in threads.map(npc.correct, prompts)] == prompts

        async def notebook():
            return npc.correct("five circles")

        assert asyncio.run(notebook()).status == "already-correct"


def test_an_asynchronous_session_corrects_several_at_once(many, opened):
    async def scenario():
        async with opening(many, generator=FakeGenerator()) as npc:
            return await asyncio.gather(*(npc.acorrect(f"{n} circles") for n in range(3)))

    assert [one.status for one in asyncio.run(scenario())] == ["already-correct"] * 3
    assert [backend.calls for backend in opened.backends] == [["check", "close"]] * 2


def test_a_session_ends_with_its_statement_and_begins_once(many):
    session = opening(many, generator=FakeGenerator())
    with pytest.raises(RuntimeError, match="opened by `with"):
        session.correct("one circle")
    with session, pytest.raises(RuntimeError, match="is open already"):
        session.__enter__()
    with pytest.raises(RuntimeError, match="opened by `with"):
        session.correct("one circle")
    threads = {thread.name for thread in threading.enumerate()}
    assert "loop" not in threads
    with session:  # and once more, from the beginning
        assert session.correct("one circle").status == "already-correct"


def test_each_way_of_opening_has_its_own_way_of_asking(many):
    async def scenario():
        sync = opening(many, generator=FakeGenerator())
        with sync, pytest.raises(RuntimeError, match="opened by `async with"):
            await sync.acorrect("one circle")
        async with opening(many, generator=FakeGenerator()) as npc:
            with pytest.raises(RuntimeError, match="opened by `with"):
                npc.correct("one circle")

    asyncio.run(scenario())


def test_a_session_that_cannot_open_leaves_nothing_behind(many, opened):
    opened.kind.fails = True
    with pytest.raises(BackendError, match="not reachable"), opening(many, generator=object()):
        pytest.fail("opened")
    assert all("close" in backend.calls for backend in opened.backends)
    assert "loop" not in {thread.name for thread in threading.enumerate()}


def test_bad_arguments_of_a_session_are_refused_where_they_are_given(many):
    with pytest.raises(ConfigError, match="agents: found 0"):
        opening(many, agents=0)
    with pytest.raises(ConfigError, match=r"agents = 1\.5 must be a whole number"):
        opening(many, agents=1.5)
    with pytest.raises(TypeError, match="go with a pipeline only: negative_steps"):
        opening(many, negative_steps=3)
    with opening(many, generator=FakeGenerator()) as npc:
        with pytest.raises(PromptError, match="empty"):
            npc.correct(" ")
        with pytest.raises(ConfigError, match="seed = True"):
            npc.correct("x", seed=True)


def test_a_result_is_saved_as_the_command_does(many, tmp_path):
    with opening(many, generator=FakeGenerator()) as npc:
        correction = npc.correct("two red circles")
        folder = npc.save(correction, str(tmp_path / "new"))
        with pytest.raises(StorageError, match="not empty"):
            npc.save(correction, folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        *("correction.json", "image.png", "original.png", "sheet.png"),
    ]
    record = json.loads((folder / "correction.json").read_text())
    assert (record["prompt"], record["status"]) == ("two red circles", "already-correct")
    assert record["image"] == str(folder / "image.png")
    assert record["profile"]["generator"] == "FakeGenerator"  # not the profile's, which made none
    assert record["profile"]["encoder"] == "FakeScorer"


# ---------------------------------------------------------------- cancelling


class Denoising(FakeGenerator):
    """Takes denoising steps until it is told to stop."""

    def __init__(self):
        super().__init__()
        self.begun, self.stopped = threading.Event(), threading.Event()

    def generate(self, shot, on_step=None):
        try:
            for done in itertools.count(1):
                on_step(done, 10**9)
                if done == 1:
                    self.begun.set()
                time.sleep(0.001)  # a step takes its time, and lets others have theirs
        finally:
            self.stopped.set()


def test_a_cancelled_correction_stops_its_image_at_the_next_denoising_step(many):
    async def scenario(acorrect):
        task = asyncio.create_task(acorrect)
        await asyncio.to_thread(generator.begun.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    generator = Denoising()
    parts = {"generator": generator, "scorer": FakeScorer()}
    asyncio.run(scenario(npc_local.acorrect("one circle", config=many, **parts)))
    assert generator.stopped.wait(60)


def test_an_interrupt_ends_a_session_s_correction_and_leaves_the_session_open(many):
    generator = Denoising()
    main = threading.main_thread().ident

    def interrupt(event):
        if event.name == "generate":
            threading.Thread(target=lambda: generator.begun.wait(60) and press()).start()

    def press():
        signal.pthread_kill(main, signal.SIGINT)

    with opening(many, generator=generator) as npc:
        with pytest.raises(KeyboardInterrupt):
            npc.correct("one circle", watch=interrupt)
        assert generator.stopped.wait(60)
        with pytest.raises(PromptError):
            npc.correct(" ")


# ---------------------------------------------------------------- help

PUBLIC = {
    "correct": npc_local.correct,
    "acorrect": npc_local.acorrect,
    "open": npc_local.open,
    "Session.correct": npc_local.Session.correct,
    "Session.acorrect": npc_local.Session.acorrect,
    "Session.save": npc_local.Session.save,
    "PipelineGenerator": npc_local.PipelineGenerator.__init__,
    "early_negative": npc_local.early_negative,
    "load_config": npc_local.load_config,
}


@pytest.mark.parametrize("name", PUBLIC)
def test_help_says_every_argument(name):
    said = inspect.getdoc(PUBLIC[name])
    arguments = [one for one in inspect.signature(PUBLIC[name]).parameters if one != "self"]
    missing = [one for one in arguments if f"\n    {one}: " not in said]
    assert missing == []


def test_every_error_can_be_caught_by_a_public_name():
    from npc_local.core import errors

    for kind in NpcError.__subclasses__():
        assert getattr(errors, kind.__name__) is kind
    assert npc_local.DeviceLostError.exit_code == 8


def test_who_imports_everything_keeps_open():
    space = {}
    exec("from npc_local import *", space)
    assert "open" not in space
    assert "correct" in space
