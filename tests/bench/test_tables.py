"""The numbers in the tables, checked by hand and against an independent count."""

from __future__ import annotations

import pytest

from npc_local.bench.tables import markdown, summary

ARMS = ["base", "npc", "reseed"]


def row(tag, base, npc, reseed):
    """A result: whether each arm was right; npc took two images, reseed one."""
    tries = {"base": 0, "npc": 2, "reseed": 1}
    return {
        "tag": tag,
        "prompt": "p",
        "seed": 0,
        "arms": {
            arm: {
                "correct": right,
                "forwards": 0 if base else 23 * tries[arm],
                "tries": [
                    {"negative": "n", "kind": "targeted" if arm == "npc" else None,
                     "correct": right, "score": 0.0}
                ] * (0 if base else tries[arm]),
            }
            for arm, right in zip(ARMS, (base, npc, reseed), strict=True)
        },
    }  # fmt: skip


ROWS = [
    row("counting", True, True, True),
    row("counting", False, True, False),
    row("color_attr", False, True, False),
    row("color_attr", False, False, True),
    row("color_attr", False, False, False),
]


def test_accuracy_over_all_and_by_tag():
    found = summary(ROWS, ARMS)
    npc = found["accuracy"]["npc"]
    assert npc["overall"] == pytest.approx(3 / 5)
    assert npc["tags"] == pytest.approx({"counting": 1.0, "color_attr": 1 / 3})
    assert npc["mean_of_tags"] == pytest.approx(2 / 3)
    low, high = npc["interval_95"]
    assert 0 < low < 3 / 5 < high < 1


def test_cost_is_of_failing_prompts_only():
    found = summary(ROWS, ARMS)
    assert found["failing"] == 4
    assert found["images_per_failing_prompt"] == {"base": 0, "npc": 2, "reseed": 1}
    assert found["forwards_per_failing_prompt"]["npc"] == 46


def test_pairs_count_disagreements():
    pair = summary(ROWS, ARMS)["pairs"]["npc vs reseed"]
    assert (pair["only_first"], pair["only_second"]) == (2, 1)
    assert pair["p"] == pytest.approx(1.0)
    many = [row("counting", False, True, False)] * 10
    # Ten of ten on one side: twice the chance of ten heads.
    assert summary(many, ARMS)["pairs"]["npc vs reseed"]["p"] == pytest.approx(2 / 2**10)


def test_tries_are_told_apart_by_kind():
    tries = summary(ROWS, ARMS)["tries"]
    assert tries["npc"]["targeted"]["images"] == 8
    assert tries["reseed"]["no negative"]["images"] == 4


def test_tries_are_counted_by_their_number():
    first, second = summary(ROWS, ARMS)["by_number"]["npc"]
    assert (first["images"], second["images"]) == (4, 4)
    assert first["right"] == pytest.approx(2 / 4)
    assert "| 1 " in markdown(summary(ROWS, ARMS), ARMS)


def test_markdown_shows_every_tag_and_arm():
    text = markdown(summary(ROWS, ARMS), ARMS)
    assert "| counting" in text
    assert "| **overall**" in text
    assert "60.0 %" in text
    widths = {len(line) for line in text.splitlines()[2:14]}
    assert len(widths) == 1
