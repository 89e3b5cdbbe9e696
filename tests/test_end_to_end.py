"""The whole job as a user does it: the installed command on the embedded world, no fakes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from npc_local.shapes.claims import check
from npc_local.shapes.detect import detect
from npc_local.shapes.reading import read

COMMAND = Path(sys.executable).parent / "npc-local"
PROMPTS = (
    "A photo of two red circles and three blue stars",
    "three yellow crosses at the top and two green squares at the bottom",
    "a wizard with a <b>hat</b>",
    "one black triangle",
)
STEPS, NEGATIVE_STEPS, CANDIDATES = 20, 3, 5


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    assert COMMAND.exists(), f"{COMMAND} is missing: install the package (make test does)"
    settings = [
        f"generators.shapes.steps={STEPS}",
        f"generators.shapes.negative_steps={NEGATIVE_STEPS}",
    ]
    flags = [flag for setting in settings for flag in ("--set", setting)]
    return subprocess.run(
        [str(COMMAND), "run", *flags, *arguments], cwd=cwd, capture_output=True, text=True
    )


def _score(prompt: str, image: str) -> float:
    """Return the share of the prompt's claims that the detector finds in a file."""
    findings = check(read(prompt), detect(Image.open(image)))
    return sum(finding.holds for finding in findings) / len(findings)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One command on several prompts, one of them outside the shapes world."""
    home = tmp_path_factory.mktemp("home")
    return run("--json", "--seed", "11", "--out", "out", *PROMPTS, cwd=home), home / "out"


@pytest.fixture(scope="module")
def records(finished):
    return [json.loads(line) for line in finished[0].stdout.splitlines()]


def test_one_json_object_a_prompt_and_the_exit_code_of_the_bad_one(finished, records):
    process, _ = finished
    assert [record["prompt"] for record in records] == list(PROMPTS)
    assert process.returncode == 3
    assert "Traceback" not in process.stderr


def test_a_prompt_outside_the_world_is_told_which_words_are_known(records):
    refused = records[2]
    assert refused["status"] == "error"
    assert "'wizard'" in refused["error"]
    assert "circle" in refused["error"]
    assert "models.toml" in refused["error"]
    assert refused["attempts"] == []
    assert (refused["correct"], refused["original"]) == (None, None)


def test_the_verdict_is_what_the_detector_says_of_the_file(records):
    good = [record for record in records if record["status"] != "error"]
    assert len(good) == 3
    for record in good:
        score = _score(record["prompt"], record["image"])
        assert record["score"] == pytest.approx(score)
        assert record["correct"] == (score == 1)


def test_attempts_are_in_rank_order_and_stop_at_the_first_correct_one(records):
    for record in records:
        tried = [attempt["negative"] for attempt in record["attempts"]]
        ranked = sorted(record["candidates"], key=lambda candidate: -candidate["score"])
        assert tried == [candidate["negative"] for candidate in ranked][: len(tried)]
        assert len(tried) <= CANDIDATES
        assert not any(attempt["correct"] for attempt in record["attempts"][:-1])
        if record["status"] == "best-effort":
            assert len(tried) == len(record["candidates"])
            scores = [_score(record["prompt"], record["original"])]
            scores += [attempt["score"] for attempt in record["attempts"]]
            assert record["score"] == pytest.approx(max(scores))


def test_forwards_are_those_of_the_method(records):
    for record in records:
        if record["status"] == "error":
            assert record["forwards"] == 0
            continue
        attempts = len(record["attempts"])
        assert record["forwards"] == STEPS + attempts * (STEPS + NEGATIVE_STEPS)


def test_every_file_is_there(finished, records):
    _, out = finished
    folders = sorted(out.glob("0*"))
    assert len(folders) == len(PROMPTS)
    for folder, record in zip(folders, records, strict=True):
        assert json.loads((folder / "correction.json").read_text())["prompt"] == record["prompt"]
        if record["status"] == "error":
            continue
        assert Image.open(folder / "original.png").size == (64, 64)
        assert Image.open(folder / "sheet.png").width > 300
        for attempt in record["attempts"]:
            assert Path(attempt["image"]).parent == folder
            assert Image.open(attempt["image"]).size == (64, 64)


def test_results_are_not_overwritten(finished):
    _, out = finished
    before = sorted(path.stat().st_mtime_ns for path in out.rglob("*.png"))
    again = run("--out", str(out), "one black triangle", cwd=out.parent)
    assert again.returncode == 2
    assert f"{out / 'journal'}: a run with other settings (" in again.stderr
    assert sorted(path.stat().st_mtime_ns for path in out.rglob("*.png")) == before


def test_the_live_view_says_what_was_done_and_where(tmp_path):
    process = run("--out", "here", "two green stars", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert process.stdout == ""
    for word in ("generate", "verify", "here"):
        assert word in process.stderr


def test_it_works_without_any_network(tmp_path):
    """In a network namespace of its own, where not even loopback is up."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rn", "true"]).returncode:
        pytest.skip("this machine cannot make a network namespace (unshare -rn)")
    process = subprocess.run(
        [unshare, "-rn", str(COMMAND), "run", "--json", "two green stars"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout)["status"] != "error"
