"""The sheet shows every image with its own pixels, who won, and stays inside its margins."""

from __future__ import annotations

import pytest
from PIL import Image

from npc_local.core.records import Attempt, Candidate, Correction, Negative, Render, Shot, Verdict
from npc_local.run.output.sheet import sheet

INK = (1, 2, 3)  # a colour that nothing else on a sheet has
GREEN, RED, BLUE, PAPER = (26, 127, 55), (207, 34, 46), (31, 95, 191), (243, 244, 246)
CANDIDATES = tuple(
    Candidate(Negative(text, "targeted"), score)
    for text, score in (("sand", 0.9), ("sky", 0.5), ("sea", -0.1))
)


def attempt(candidate=None, *, correct=False, reason="one circle", size=(64, 64), fallbacks=()):
    render = Render(Image.new("RGB", size, INK), forwards=10, seconds=0.1, fallbacks=fallbacks)
    shot = Shot("a prompt", candidate and candidate.negative.text, 0)
    return Attempt(shot, candidate, render, Verdict(correct, 1.0 if correct else 0.5, reason))


def correction(original, *attempts, status="best-effort", answer=None, prompt="a cat", **rest):
    return Correction(
        prompt=prompt,
        seed=7,
        status=status,
        original=original,
        attempts=attempts,
        candidates=rest.pop("candidates", CANDIDATES),
        caption=None,
        answer=answer,
        forwards=10,
        seconds=1.0,
        **rest,
    )


def count(picture, color):
    return {found: number for number, found in picture.getcolors(1 << 24)}.get(color, 0)


@pytest.mark.parametrize(("side", "factor"), [(64, 4), (100, 3), (1, 256), (400, 1)])
def test_small_images_are_enlarged_by_a_whole_number(side, factor):
    picture = sheet(correction(attempt(size=(side, side))))
    assert count(picture, INK) == (side * factor) ** 2


def test_large_images_are_shrunk():
    picture = sheet(correction(attempt(size=(2048, 1024))))
    assert count(picture, INK) == 512 * 256


def test_what_memory_forced_is_labelled():
    plain, labelled = sheet(correction(attempt())), sheet(correction(attempt(fallbacks=("x",))))
    assert labelled.height > plain.height


def test_every_image_is_shown():
    attempts = [attempt(candidate) for candidate in CANDIDATES]
    picture = sheet(correction(attempt(), *attempts))
    assert count(picture, INK) == 4 * 256 * 256


def test_the_image_itself_is_left_alone():
    original = attempt(size=(2048, 1024))
    sheet(correction(original))
    assert original.render.image.size == (2048, 1024)


def test_frames_tell_right_from_wrong():
    frame = 4 * 4 * (256 + 4)
    wrong, right = attempt(), attempt(CANDIDATES[0], correct=True, reason="")
    both = sheet(correction(wrong, right, status="corrected", answer=right))
    assert count(both, GREEN) > frame
    assert count(both, RED) > frame
    alone = sheet(correction(right, status="already-correct", candidates=()))
    assert count(alone, RED) == 0


def test_the_answer_is_marked():
    original, other = attempt(), attempt(CANDIDATES[0])
    assert count(sheet(correction(original, other, status="error", error="x")), BLUE) == 0
    first = sheet(correction(original, other, answer=original))
    second = sheet(correction(original, other, answer=other))
    half = first.width // 2
    assert count(first.crop((0, 0, half, first.height)), BLUE) > 0
    assert count(first.crop((half, 0, *first.size)), BLUE) == 0
    assert count(second.crop((0, 0, half, second.height)), BLUE) == 0


def test_candidates_not_tried_are_listed_below():
    attempts = [attempt(candidate) for candidate in CANDIDATES]
    all_tried = sheet(correction(attempt(), *attempts[:2], candidates=CANDIDATES[:2]))
    one_left = sheet(correction(attempt(), *attempts[:2]))
    assert one_left.height > all_tried.height


@pytest.mark.parametrize(
    "text",
    [
        "w" * 2000,
        "many words " * 180,
        "ночь 日本語 ليل \N{GRINNING FACE}",
        "<svg onload=alert(1)> [red]x[/] ../../x",
        "two\nlines\tand \x1b[31m \ud800",
        "",
    ],
)
def test_any_text_stays_inside_the_margins(text):
    candidate = Candidate(Negative(text, "untargeted"), 0.1)
    original, other = attempt(reason=text), attempt(candidate, reason=text)
    picture = sheet(
        correction(
            original,
            other,
            prompt=text,
            status="error",
            error=text,
            candidates=(candidate, candidate),
        )
    )
    margin = picture.crop((picture.width - 20, 0, *picture.size))
    assert margin.getcolors() == [(20 * picture.height, PAPER)]
    assert picture.height < 1200


def test_nothing_made_is_nothing_to_show():
    with pytest.raises(ValueError, match="without an original"):
        sheet(correction(None, status="error", error="x"))
