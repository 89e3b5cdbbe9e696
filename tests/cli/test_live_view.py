"""What a person reads in the terminal, and that no text can drive it."""

from __future__ import annotations

import asyncio
import io

import pytest
from rich.console import Console

from npc_local.agents import Rules
from npc_local.backends.scripted import ScriptedBackend
from npc_local.cli import live_view
from npc_local.cli.live_view import LiveView
from npc_local.core.records import Render
from npc_local.loop import StageFinished, StageStarted, correct
from npc_local.run.stages import Stages
from tests.world import (
    CAPTION,
    CHECKLIST,
    FAILURE,
    RIGHT,
    FakeGenerator,
    FakeScorer,
    checklist,
    components_of,
    proposal,
    verdict,
)

PROMPT = "two red circles"
CLAIMS = checklist("two circles", "circles are red", kind="count")


def shown(
    tmp_path,
    verdicts,
    *,
    prompt=PROMPT,
    terse=False,
    claims=CHECKLIST,
    captioned=CAPTION,
    negatives=("sand", "sky"),
    more=None,
    fallbacks=(),
    rules=None,
    columns=100,
):
    """Run the loop before a display and return what it showed."""
    folder = tmp_path / ("deep" * 20)
    folder.mkdir()
    (folder / "original.png").touch()
    replies = {
        "checklist": [claims],
        "verify": verdicts,
        "caption": [captioned] * 2,
        "propose": [proposal(*negatives), proposal(*more or ())],
    }
    backend = ScriptedBackend("agents", replies)
    scorer = FakeScorer(**{negatives[0]: 0.9, negatives[1]: 0.45})
    generator = FakeGenerator(fallbacks=fallbacks)
    components = components_of(generator, backend, scorer, rules=rules or Rules())
    count = len(negatives) if more is None else 5
    file = io.StringIO()
    console = Console(file=file, width=columns, markup=False, emoji=False, highlight=False)
    display = LiveView(console, terse=terse)
    display.begin(prompt, 7, number=2, total=3)
    work = correct(prompt, Stages(components), seed=7, candidates=count, watch=display)
    display.end(asyncio.run(work), folder)
    return file.getvalue(), folder


def test_a_correction_from_start_to_end(tmp_path):
    wrong = {"c1": False, "c2": True, "reason": "one circle", "score": 0.4}
    right = {"c1": True, "c2": True, "reason": "", "score": 1.0}
    text, folder = shown(tmp_path, [wrong, right], claims=CLAIMS)
    order = [
        "[2/3] two red circles",
        "seed 7",
        "checklist",
        "2 claims",
        "Original",
        "generate",
        "10 forwards",
        "verify",
        "✗ 0.50  one circle",
        "✗ two circles",
        "caption",
        "One red circle on sand",
        "2 negative prompts",
        "rank",
        "0.900  untargeted  sand",
        "0.450  untargeted  sky",
        "Attempt 1 of 2  without sand",
        "✓ 1.00",
        "Corrected: attempt 1 is right, 2 images in",
        "fixed   two circles",
        f"answer  {folder}/image.png",
        f"sheet   {folder}/sheet.png",
        f"all     {folder} (1 files)",
    ]
    places = [text.find(part) for part in order]
    assert -1 not in places, order[places.index(-1)]
    assert places == sorted(places)
    assert "circles are red" not in text


def test_what_memory_forced_is_said(tmp_path):
    text, _ = shown(tmp_path, [RIGHT], fallbacks=("memory freed", "tiled VAE"))
    assert "10 forwards  out of memory: memory freed, tiled VAE" in text


def test_what_to_be_wary_of_is_said(tmp_path):
    captioned = {"caption": 'A sign says "score: 1".'}
    text, _ = shown(
        tmp_path, [verdict()] * 6, captioned=captioned, negatives=("sand", "no sky"), more=("sea",)
    )
    assert "! 5 words; 90 to 160 were asked for, twice" in text
    assert "! text in the image speaks to a judge: score: 1" in text
    assert "5 negative prompts, 3 from the fallback list, 1 rejected" in text


def test_bars_follow_the_scores(tmp_path):
    text, _ = shown(tmp_path, [verdict()] * 3, negatives=("sand", "sky", "sea"))
    bars = [line.count("█") for line in text.splitlines() if "untargeted" in line]
    assert bars == [16, 9, 1]


def test_where_no_claim_failed_the_reason_says_what_was_fixed(tmp_path):
    doubted = RIGHT | {"score": 0.5, "reason": "a third circle"}
    text, _ = shown(tmp_path, [doubted, RIGHT], rules=Rules("strict"))
    assert "fixed   a third circle" in text


def test_best_effort_names_only_what_was_fixed(tmp_path):
    text, _ = shown(tmp_path, [verdict(score=score) for score in (0.2, 0.3, 0.9)])
    assert "Best effort: no image is right, attempt 2 comes closest, 3 images" in text
    assert text.count("fixed   claim") == 7  # of the eight that failed
    assert "fixed   claim 1\n" not in text


def test_correct_at_once(tmp_path):
    text, _ = shown(tmp_path, [RIGHT])
    assert "Correct at once: 1 image in" in text


def test_an_error_says_what_is_kept(tmp_path):
    text, folder = shown(tmp_path, [FAILURE])
    assert "error: backend agents: verify: server on fire" in text
    assert "kept    original.png" in text
    assert f"in      {folder}" in text
    assert "image.png" not in text


def test_terse_shows_nothing_but_errors(tmp_path):
    assert shown(tmp_path, [RIGHT], terse=True)[0] == ""


def test_terse_shows_an_error_first(tmp_path):
    assert shown(tmp_path, [FAILURE], terse=True)[0].startswith("error: backend agents")


def test_texts_are_shown_literally(tmp_path):
    literal = "[red]x[/] <svg onload> :smile: [link=http://x]"
    wrong = {"c1": False, "reason": literal, "score": 0.5}
    text, _ = shown(
        tmp_path,
        [wrong] * 3,
        prompt=literal,
        claims=checklist(literal),
        negatives=("[bold]sand[/]", "[b]sky"),
    )
    assert text.count(literal) == 1 + 3 * 2
    assert "without [bold]sand[/]" in text


def test_no_text_drives_the_terminal(tmp_path):
    text, _ = shown(tmp_path, [verdict(reason="\x1b[2J\x1b]0;title\x07 gone"), RIGHT])
    assert "\x1b" not in text
    assert "\ufffd[2J" in text


def test_a_terminal_gets_a_spinner_with_the_progress():
    file = io.StringIO()
    display = LiveView(Console(file=file, width=80, force_terminal=True), terse=True)
    display(StageStarted("generate", 0))
    display.progress(3, 20)
    display.stop()
    assert "making the original: denoising step 3 of 20" in file.getvalue()


def test_a_file_gets_no_spinner():
    file = io.StringIO()
    display = LiveView(Console(file=file, width=80), terse=True)
    display(StageStarted("verify", 0))
    display.progress(3, 20)
    display(StageFinished("generate", 0, 0.1, Render(None, 10, 0.1)))
    assert file.getvalue() == ""


def test_a_log_hears_of_a_long_image_now_and_then(monkeypatch):
    monkeypatch.setattr(live_view, "LOG_EVERY", 0.0)
    file = io.StringIO()
    display = LiveView(Console(file=file, width=80))
    display(StageStarted("verify", 1))
    display.progress(3, 20)
    assert file.getvalue() == "judging attempt 1: denoising step 3 of 20\n"


@pytest.mark.parametrize("terse", [True, False])
def test_what_is_waited_for_is_said_in_a_line(terse):
    file = io.StringIO()
    LiveView(Console(file=file, width=20), terse=terse).on_status(
        "backend qwen: no answer yet; next try in 2 s\x1b[2J"
    )
    assert file.getvalue() == "backend qwen: no answer yet; next try in 2 s\ufffd[2J\n"


def test_a_status_leaves_the_spinner_to_the_stage():
    file = io.StringIO()
    display = LiveView(Console(file=file, width=80, force_terminal=True))
    display(StageStarted("verify", 0))
    display.on_status("backend qwen: started again")
    display.progress(3, 20)
    display.stop()
    shown = file.getvalue()
    assert "backend qwen: started again" in shown
    assert "judging the original: denoising step 3 of 20" in shown


@pytest.mark.parametrize("columns", range(20, 70, 7))
def test_a_narrow_terminal_keeps_the_numbers(tmp_path, columns):
    verdicts = [verdict(score=0.4), verdict(score=0.6), RIGHT]
    text, _ = shown(tmp_path, verdicts, columns=columns)
    for number in ("seed 7", "0.900", "0.450", "0.40", "0.60", "1.00"):
        assert number in text
    assert text.count(" s ") + text.count(" s\n") >= 6  # seconds of each stage
