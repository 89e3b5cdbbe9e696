"""The whole training, in miniature: every stage runs, goes on where it stopped, and repeats."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from npc_local.shapes.train import __main__ as command
from npc_local.shapes.train.progress import Run

ROOT = Path(__file__).parents[3]
STEPS = 3
STAGES = ("autoencoder", "text", "denoiser", "guidance")


def _arguments(work: Path, steps: int) -> list[str]:
    options = {"--scenes": 100, "--samples": 1, "--batch": 4, "--work": work}
    options |= {"--out": work / "pipeline"}
    options |= dict.fromkeys(
        ("--autoencoder-steps", "--text-steps", "--steps", "--guidance-steps"), steps
    )
    return [*(str(word) for pair in options.items() for word in pair), "--no-compile"]


def _train(work: Path, steps: int, *more: str) -> Any:
    return CliRunner().invoke(command.main, [*_arguments(work, steps), *more])


@pytest.fixture(scope="module", autouse=True)
def _same_random_numbers_afterwards():
    with torch.random.fork_rng():
        yield


@pytest.fixture(scope="module", autouse=True)
def _one_sheet():
    """Samples are drawn in the other process alone: they decide nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "sheet", lambda *_, **__: 0.0)
        yield


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A training run in a process of its own, start to end."""
    work = tmp_path_factory.mktemp("elsewhere")
    arguments = [sys.executable, "-m", "npc_local.shapes.train", *_arguments(work, STEPS)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return work


def _train_until(work: Path, stage: str, step: int, *more: str) -> dict[str, Any]:
    """Train, and be killed when that step of that stage has been saved; return what was saved."""
    save = Run.save

    def save_and_die(run, at, **parts):
        save(run, at, **parts)
        if (run.stage, at) == (stage, step):
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "save", save_and_die)
        patch.setattr(Run, "due", lambda *_: True)
        killed = _train(work, STEPS, *more)
    assert killed.exit_code != 0
    assert not (work / "pipeline").exists()
    return _checkpoint(work, stage, step)


def _checkpoint(work: Path, stage: str, step: int) -> dict[str, Any]:
    saved: dict[str, Any] = torch.load(work / stage / "checkpoint.pt", weights_only=True)
    assert saved["step"] == step
    return saved


@pytest.fixture(scope="module")
def resumed(tmp_path_factory, tokenizer_files):
    """The same training run here, killed twice in the middle of a stage and started again."""
    work = tmp_path_factory.mktemp("resumed")
    shutil.copytree(tokenizer_files, work, dirs_exist_ok=True)
    for stage in ("text", "denoiser"):
        _train_until(work, stage, 1)
    done = _train(work, STEPS)
    assert done.exit_code == 0, done.output
    return work


def _files(pipeline: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(pipeline)): file.read_bytes()
        for file in sorted(pipeline.rglob("*"))
        if file.is_file()
    }


def _steps(work: Path, stage: str) -> list[int]:
    return [json.loads(line)["step"] for line in (work / stage / "log.jsonl").open()]


def test_the_same_seed_gives_the_same_bytes_also_after_a_kill(elsewhere, resumed):
    unbroken, broken = _files(elsewhere / "pipeline"), _files(resumed / "pipeline")
    assert list(unbroken) == list(broken)
    assert [name for name in unbroken if unbroken[name] != broken[name]] == []
    assert sum(name.endswith(".safetensors") for name in unbroken) == 4


def test_another_seed_gives_other_weights(elsewhere, tmp_path, monkeypatch):
    """Told by the first stage: all random numbers come from one seed."""
    monkeypatch.setattr(command, "make_tokenizers", lambda *_: None)  # which it does not need
    expected = _checkpoint(elsewhere, "autoencoder", STEPS)["model"]
    for seed, same in (("0", True), ("1", False)):
        made = _train_until(tmp_path / seed, "autoencoder", STEPS, "--seed", seed)["model"]
        assert all(torch.equal(made[name], expected[name]) is same for name in expected)


def test_diffusers_loads_and_runs_what_comes_out(elsewhere):
    import diffusers

    family: Any = diffusers.FluxPipeline
    pipe = family.from_pretrained(elsewhere / "pipeline", local_files_only=True)
    pipe.set_progress_bar_config(disable=True)

    def image(prompt):
        return pipe(
            prompt,
            height=64,
            width=64,
            num_inference_steps=2,
            guidance_scale=3.0,
            max_sequence_length=26,
            generator=torch.Generator().manual_seed(0),
        ).images[0]

    made = image("a red star")
    assert made.size == (64, 64)
    assert made.tobytes() == image("A Red Star").tobytes()


def test_a_sheet_and_a_log_are_left(elsewhere):
    assert (elsewhere / "final.png").stat().st_size > 0
    for stage in STAGES:
        assert _steps(elsewhere, stage) == [STEPS]


def test_more_steps_go_on_from_the_checkpoint(resumed):
    done = _train(resumed, STEPS + 1)
    assert done.exit_code == 0, done.output
    for stage in STAGES:
        assert _steps(resumed, stage)[-2:] == [STEPS, STEPS + 1]
        _checkpoint(resumed, stage, STEPS + 1)


def test_other_data_in_the_same_place_is_refused(elsewhere):
    done = _train(elsewhere, STEPS, "--seed", "5")
    assert done.exit_code == 2
    assert "was begun with --seed 0, --scenes 100" in done.output
