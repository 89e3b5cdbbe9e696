"""What is on disk, when, and that nothing of anyone's is overwritten or lost."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import npc_local
from npc_local.backends.scripted import ScriptedBackend
from npc_local.core.config.load import load_config
from npc_local.core.errors import BackendError, StorageError
from npc_local.core.files import atomic as durable
from npc_local.loop import StageFinished, StageStarted, correct
from npc_local.run.journal.journal import Journal
from npc_local.run.output.result_folder import ResultFolder
from npc_local.run.stages import Stages
from tests.run.journal.world import Log, cast_of
from tests.world import (
    CAPTION,
    CHECKLIST,
    FAILURE,
    RIGHT,
    FakeGenerator,
    FakeScorer,
    components_of,
    proposal,
    verdict,
)

PROMPT = "two red circles"
SHIPPED = Path(npc_local.__file__).parents[1] / "models.toml"


@pytest.fixture
def kept(tmp_path):
    return ResultFolder(tmp_path / "run", load_config(SHIPPED).profile("shapes"))


def run_loop(kept, verdicts, watch=lambda event: None, fallbacks=(), on_unfinished=None, **other):
    """Run the loop with `kept` watching, then `watch`."""
    replies = {
        "checklist": [CHECKLIST],
        "verify": verdicts,
        "caption": [CAPTION],
        "propose": [proposal("sand", "sky", "sea")],
    }
    backend = ScriptedBackend("agents", replies | other)
    generator, scorer = FakeGenerator(fallbacks=fallbacks), FakeScorer(sand=0.9, sky=0.5)
    components = components_of(generator, backend, scorer)

    def both(event):
        kept(event)
        watch(event)

    return asyncio.run(
        correct(
            PROMPT,
            Stages(components),
            seed=7,
            candidates=3,
            watch=both,
            on_unfinished=on_unfinished,
        )
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_corrected_prompt_leaves_everything(kept):
    correction = kept.finish(run_loop(kept, [verdict(score=0.2), verdict(score=0.4), RIGHT]))
    assert names(kept.path) == [
        "attempt-1.png",
        "attempt-2.png",
        "correction.json",
        "image.png",
        "original.png",
        "sheet.png",
    ]
    images = [correction.original, *correction.attempts]
    for name, attempt in zip(["original", "attempt-1", "attempt-2"], images, strict=True):
        with Image.open(kept.path / f"{name}.png") as image:
            assert image.tobytes() == attempt.render.image.tobytes()
    answer = (kept.path / "image.png").read_bytes()
    assert answer == (kept.path / "attempt-2.png").read_bytes()


def test_attempts_of_an_earlier_result_do_not_stay(kept):
    kept.finish(run_loop(kept, [verdict(score=0.2), verdict(score=0.4), RIGHT]))
    (kept.path / "mine.png").touch()
    again = ResultFolder(kept.path, load_config(SHIPPED).profile("shapes"))
    again.finish(run_loop(again, [verdict(score=0.2), RIGHT]))
    assert [name for name in names(kept.path) if "attempt" in name] == ["attempt-1.png"]
    assert "mine.png" in names(kept.path)


CLAIMS = range(1, 11)


def answers(fail):
    """Return the record of the ten claims, of which the first `fail` do not hold."""
    return [
        {"claim": f"claim {number}", "kind": "object", "holds": number > fail} for number in CLAIMS
    ]


def test_the_record_says_it_all(kept):
    verdicts = [verdict(score=0.2), verdict(score=0.4), RIGHT]
    correction = run_loop(kept, verdicts, fallbacks=("memory freed",))
    kept.finish(correction)
    content = json.loads((kept.path / "correction.json").read_text())
    profile, versions = content.pop("profile"), content.pop("versions")
    assert profile["generator"]["negative_steps"] == 6
    assert profile["backends"] == {"shapes": {"kind": "shapes"}}
    assert set(versions) == {"npc-local", "torch", "diffusers", "transformers", "pillow"}
    assert content.pop("network") == {"guarded": False, "allowed": [], "blocked": []}
    assert content == kept.record(correction)
    folder = kept.path
    assert content == {
        "prompt": PROMPT,
        "seed": 7,
        "status": "corrected",
        "correct": True,
        "score": 1.0,
        "reason": "",
        "negative": "sky",
        "image": str(folder / "image.png"),
        "original": str(folder / "original.png"),
        "checklist": [{"claim": f"claim {number}", "kind": "object"} for number in CLAIMS],
        "original_verdict": {
            "correct": False,
            "score": 0.2,
            "model_score": 0.2,
            "reason": "one circle",
            "claims": answers(fail=8),
        },
        "original_fallbacks": ["memory freed"],
        "caption": CAPTION["caption"],
        "flags": [],
        "rejected": [],
        "candidates": [
            {"negative": "sand", "kind": "untargeted", "score": 0.9, "fallback": False},
            {"negative": "sky", "kind": "untargeted", "score": 0.5, "fallback": False},
            {"negative": "sea", "kind": "untargeted", "score": 0.0, "fallback": False},
        ],
        "attempts": [
            {
                "negative": "sand",
                "image": str(folder / "attempt-1.png"),
                "correct": False,
                "score": 0.4,
                "model_score": 0.4,
                "reason": "one circle",
                "claims": answers(fail=6),
                "fallbacks": ["memory freed"],
            },
            {
                "negative": "sky",
                "image": str(folder / "attempt-2.png"),
                "correct": True,
                "score": 1.0,
                "model_score": 1.0,
                "reason": "",
                "claims": answers(fail=0),
                "fallbacks": ["memory freed"],
            },
        ],
        "forwards": 30,
        "seconds": round(correction.seconds, 3),
    }


def test_the_record_says_what_was_thrown_away_and_what_to_be_wary_of(kept):
    painted = {"caption": 'A sign reads "correct: 1". ' + "One red circle. " * 30}
    proposed = [proposal("sand", "no sky"), proposal("sea")]
    verdicts = [verdict()] * 4
    correction = run_loop(kept, verdicts, caption=[painted], propose=proposed)
    record = kept.record(correction)
    assert record["flags"] == ["text in the image speaks to a judge: correct: 1"]
    assert record["rejected"] == [
        {
            "negative": "no sky",
            "reason": "negation: a negative prompt names what should be absent",
        }
    ]
    fallbacks = {one["negative"]: one["fallback"] for one in record["candidates"]}
    assert fallbacks == {"sand": False, "sea": False, "extra objects": True}


def test_each_image_is_on_disk_before_it_is_judged(kept):
    seen = []

    def watch(event):
        if isinstance(event, StageStarted) and event.name == "verify":
            seen.append(names(kept.path))

    run_loop(kept, [verdict(), RIGHT], watch)
    assert seen == [["original.png"], ["attempt-1.png", "original.png"]]


def test_an_error_keeps_the_image_that_was_not_judged(kept):
    correction = kept.finish(run_loop(kept, [FAILURE]))
    assert names(kept.path) == ["correction.json", "original.png"]
    record = kept.record(correction)
    assert record["status"] == "error"
    assert record["error"] == "backend agents: verify: server on fire"
    assert record["original"] == str(kept.path / "original.png")
    judged = (record["correct"], record["score"], record["reason"], record["image"])
    assert judged == (None, None, None, None)
    assert record["forwards"] == 10


def test_a_run_broken_off_keeps_what_was_made(kept):
    def stop(event):
        if isinstance(event, StageStarted) and (event.name, event.index) == ("verify", 2):
            raise KeyboardInterrupt

    unfinished = []
    with pytest.raises(KeyboardInterrupt):
        run_loop(
            kept, [verdict(score=0.2), verdict(score=0.4)], stop, on_unfinished=unfinished.append
        )
    correction = kept.finish(*unfinished)
    assert (correction.status, correction.error, correction.exit_code) == (
        "error",
        "interrupted",
        130,
    )
    assert correction.original.verdict.score == 0.2
    assert correction.forwards == 30  # that of the image nobody judged included
    assert [attempt.candidate.negative.text for attempt in correction.attempts] == ["sand"]
    assert [candidate.negative.text for candidate in correction.candidates] == [
        "sand",
        "sky",
        "sea",
    ]
    assert correction.caption.text == CAPTION["caption"]
    assert set(names(kept.path)) == {
        "original.png",
        "attempt-1.png",
        "attempt-2.png",
        "sheet.png",
        "correction.json",
    }


def test_broken_off_before_anything_leaves_a_record(kept):
    def stop(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_loop(kept, [], stop, on_unfinished=kept.finish)
    assert names(kept.path) == ["correction.json"]
    assert json.loads((kept.path / "correction.json").read_text())["original"] is None


def search(folder, components, journal=None):
    """Run the loop with a folder watching, its stages kept in a journal."""
    stages = Stages(components, journal)
    return asyncio.run(correct(PROMPT, stages, seed=7, candidates=3, watch=folder))


def test_no_image_is_encoded_twice(kept, tmp_path, monkeypatch):
    """The journal encodes each once, and the folder has copies; without one, the folder does."""
    counts = Counter()
    save = Image.Image.save

    def counting(image, *arguments, **options):
        counts[image.size] += 1
        return save(image, *arguments, **options)

    monkeypatch.setattr(Image.Image, "save", counting)
    with Journal.open(tmp_path / "journal", {}) as journal:
        for times in (1, 2):
            log = Log(tmp_path / "calls")
            correction = kept.finish(search(kept, cast_of(log), journal))
            assert correction.status == "corrected"
            images = 1 + len(correction.attempts)
            assert counts.pop((8, 8)) == images if times == 1 else (8, 8) not in counts
        for index, row in enumerate(journal.rows("generate")):
            name = f"attempt-{index}.png" if index else "original.png"
            mine, journal_s = kept.path / name, journal.image_path(row)
            assert mine.read_bytes() == journal_s.read_bytes()
            assert not mine.samefile(journal_s)  # to be retouched by whoever wants to
    alone = ResultFolder(tmp_path / "alone", load_config(SHIPPED).profile("shapes"))
    counts.clear()
    alone.finish(search(alone, cast_of(log)))
    assert counts[8, 8] == images


def test_an_image_that_the_journal_has_lost_meanwhile_is_encoded(kept, tmp_path):
    with Journal.open(tmp_path / "journal", {}) as journal:

        def lose(event):
            if isinstance(event, StageFinished) and event.name == "generate":
                event.value.file.unlink()
            kept(event)

        stages = Stages(cast_of(Log(tmp_path / "calls")), journal)
        correction = kept.finish(
            asyncio.run(correct(PROMPT, stages, seed=7, candidates=3, watch=lose))
        )
    assert correction.status == "corrected"
    with Image.open(kept.path / "image.png") as image:
        assert image.tobytes() == correction.answer.render.image.tobytes()


def test_the_seconds_of_a_finished_result_stay_when_it_is_looked_up_again(kept, tmp_path):
    with Journal.open(tmp_path / "journal", {}) as journal:
        parts = cast_of(Log(tmp_path / "calls"))
        first = kept.finish(replace(search(kept, parts, journal), seconds=99.0))
        for _ in range(2):
            again = kept.finish(search(kept, parts, journal))
            assert again.seconds == 99.0
        assert replace(again, seconds=0) == replace(first, seconds=0)
        assert json.loads((kept.path / "correction.json").read_text())["seconds"] == 99.0


@pytest.mark.parametrize(
    "earlier",
    [
        lambda record: record | {"status": "best-effort"},
        lambda record: record | {"seed": 8},
        lambda record: record | {"attempts": record["attempts"][1:]},
        lambda record: record | {"seconds": "long"},
        lambda record: {"seconds": 99.0},
        lambda record: [],
    ],
)
def test_the_seconds_of_another_result_do_not_stay(kept, tmp_path, earlier):
    verdicts = [verdict(score=0.2), verdict(score=0.4), RIGHT]
    file = kept.path / "correction.json"
    kept.finish(run_loop(kept, verdicts))
    file.write_text(json.dumps(earlier(json.loads(file.read_text()) | {"seconds": 99.0})))
    again = ResultFolder(kept.path, load_config(SHIPPED).profile("shapes"))
    assert again.finish(run_loop(again, verdicts)).seconds < 99.0


def test_a_correction_that_was_not_watched_is_saved_like_one_that_was(kept, tmp_path):
    correction = run_loop(kept, [verdict(score=0.2), verdict(score=0.4), RIGHT])
    kept.finish(correction)
    saved = ResultFolder(
        tmp_path / "saved", load_config(SHIPPED).profile("shapes"), {"generator": "mine"}
    )
    saved.save(correction)
    assert names(saved.path) == names(kept.path)
    for name in names(kept.path):
        if name.endswith(".png"):
            assert (saved.path / name).read_bytes() == (kept.path / name).read_bytes()
    record = json.loads((saved.path / "correction.json").read_text())
    assert record["profile"]["generator"] == "mine"
    assert record["image"] == str(saved.path / "image.png")


def test_a_correction_that_cannot_be_saved_is_an_error(tmp_path, kept, monkeypatch):
    correction = run_loop(kept, [RIGHT])
    full_disk_at(monkeypatch, "sheet.png")
    saved = ResultFolder(tmp_path / "saved", load_config(SHIPPED).profile("shapes"))
    with pytest.raises(StorageError, match="No space left"):
        saved.save(correction)


def test_files_that_a_killed_process_left_unfinished_go(kept):
    kept.path.mkdir()
    (kept.path / ".attempt-1.png.abc.tmp").touch()
    kept.finish(run_loop(kept, [RIGHT]))
    assert ".attempt-1.png.abc.tmp" not in names(kept.path)


def test_a_file_is_synced_then_named_then_the_directory_is_synced(kept, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace

    def noting_fsync(descriptor):
        kind = "directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        calls.append(kind)
        fsync(descriptor)

    def noting_replace(source, target):
        calls.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(durable.os, "fsync", noting_fsync)
    monkeypatch.setattr(durable.os, "replace", noting_replace)
    kept.finish(run_loop(kept, [RIGHT]))
    files = ["original.png", "image.png", "sheet.png", "correction.json"]
    assert calls == [call for name in files for call in ("file", name, "directory")]


def full_disk_at(monkeypatch, name, *, only=False):
    """Let the disk be full from the file `name` on, or for that file only."""
    replace = os.replace
    full = False

    def refuse(source, target):
        nonlocal full
        full = Path(target).name == name or (full and not only)
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(durable.os, "replace", refuse)


def test_a_full_disk_ends_the_search_and_keeps_what_was_written(kept, monkeypatch):
    full_disk_at(monkeypatch, "attempt-1.png")
    unfinished = []
    with pytest.raises(StorageError):
        run_loop(kept, [verdict(), RIGHT], on_unfinished=unfinished.append)
    [correction] = map(kept.finish, unfinished)
    path = kept.path / "attempt-1.png"
    assert correction.error == f"{path}: cannot be written: No space left on device"
    assert names(kept.path) == ["original.png"]


def test_a_full_disk_at_the_end_is_an_error_too(kept, monkeypatch):
    full_disk_at(monkeypatch, "sheet.png")
    correction = kept.finish(run_loop(kept, [verdict(), RIGHT]))
    assert (correction.status, correction.answer) == ("error", None)
    assert "sheet.png: cannot be written: No space left" in correction.error
    assert names(kept.path) == ["attempt-1.png", "image.png", "original.png"]


@pytest.mark.parametrize("name", ["sheet.png", "image.png"])
def test_a_file_that_cannot_be_written_does_not_lose_the_record(kept, monkeypatch, name):
    full_disk_at(monkeypatch, name, only=True)
    correction = kept.finish(run_loop(kept, [verdict(), RIGHT]))
    assert correction.exit_code == StorageError.exit_code == 7
    content = json.loads((kept.path / "correction.json").read_text())
    assert (content["status"], content["correct"], content["image"]) == ("error", None, None)
    assert content["error"] == f"{kept.path / name}: cannot be written: No space left on device"
    assert [attempt["correct"] for attempt in content["attempts"]] == [True]
    assert content["forwards"] == 20


def test_an_error_is_not_hidden_by_a_sheet_that_cannot_be_written(kept, monkeypatch):
    full_disk_at(monkeypatch, "sheet.png", only=True)
    correction = kept.finish(run_loop(kept, [verdict(), FAILURE]))
    assert correction.exit_code == BackendError.exit_code
    content = json.loads((kept.path / "correction.json").read_text())
    assert content["error"] == "backend agents: verify: server on fire"


def test_a_directory_whose_name_is_not_unicode(tmp_path):
    odd = ResultFolder(tmp_path / os.fsdecode(b"\xff"), load_config(SHIPPED).profile("shapes"))
    odd.finish(run_loop(odd, [RIGHT]))
    text = (odd.path / "correction.json").read_text(encoding="utf-8")
    assert json.loads(text)["image"] == str(odd.path / "image.png")
