"""A log gets a line now and then, with what is left."""

from __future__ import annotations

import re

from npc_local.core import terminal as progress


def test_without_a_terminal_lines_say_how_far_it_is(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_EVERY", 0.0)
    with progress.Progress(3, "results") as shown:
        for arm in ("base", "npc", "reseed"):
            shown.advance(arm)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert [re.sub(r"[0-9:]+ left", "TIME left", line) for line in lines] == [
        "1 of 3 results, TIME left",
        "2 of 3 results, TIME left",
        "3 of 3 results, TIME left",
    ]
    assert lines[-1].endswith("0:00:00 left")


def test_a_short_run_says_nothing(capsys):
    with progress.Progress(3, "results") as shown:
        shown.advance("base")
    assert capsys.readouterr().err == ""
