"""What people are shown: a bar, or a line now and then in a log; libraries are kept quiet."""

from __future__ import annotations

import logging
import re
import sys
import warnings

import pytest

from npc_local.core import terminal
from npc_local.core.terminal import Progress, error_console, libraries_quiet, plain


@pytest.fixture
def on_a_terminal(monkeypatch):
    """Have standard error taken for a terminal of so many columns."""

    def pretend(columns):
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TTY_COMPATIBLE", "1")
        monkeypatch.setenv("COLUMNS", str(columns))

    return pretend


def test_a_log_gets_lines_that_say_how_far_it_is(capsys, monkeypatch):
    monkeypatch.setattr(terminal, "LOG_EVERY", 0.0)
    with Progress(3, "results") as progress:
        for arm in ("base", "npc", "re[b]seed"):
            progress.advance(arm)
    out, err = capsys.readouterr()
    assert out == ""
    assert [re.sub(r"[0-9:]+ left", "TIME left", line) for line in err.splitlines()] == [
        "1 of 3 results, TIME left: base",
        "2 of 3 results, TIME left: npc",
        "3 of 3 results, TIME left: re[b]seed",
    ]
    assert "0:00:00 left: re" in err


def test_work_without_a_noun_is_told_in_percent(capsys, monkeypatch):
    monkeypatch.setattr(terminal, "LOG_EVERY", 0.0)
    with Progress(8e9) as progress:
        progress.advance("warming up", 2e9)
        progress.advance("timing", 6e9)
    shares = [line.partition(",")[0] for line in capsys.readouterr().err.splitlines()]
    assert shares == ["25%", "100%"]


def test_nothing_to_do_is_no_error(capsys, monkeypatch):
    monkeypatch.setattr(terminal, "LOG_EVERY", 0.0)
    with Progress(0) as progress:
        progress.advance("nothing", 0)
    assert capsys.readouterr().err.startswith("100%")


def test_a_short_run_says_nothing_to_a_log(capsys):
    with Progress(3, "results") as progress:
        progress.advance("base")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("columns", [24, 40, 80, 200])
def test_a_terminal_of_any_width_shows_the_numbers(capsys, on_a_terminal, columns):
    on_a_terminal(columns)
    with Progress(300, "prompts") as progress:
        for _ in range(12):
            progress.advance("7 corrected, 3 best effort, 2 [failed]")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    last = [line for line in re.split(r"[\r\n]", shown) if "/300" in line][-1]
    assert "12/300" in last
    assert re.search(r"0:00:0\d", last)
    assert len(last.rstrip()) <= columns


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" a\n\tb ", "a b"),
        ("\x1b[31m\x00\x9b", "\ufffd[31m\ufffd\ufffd"),
        ("\ud800", "\ufffd"),
        ("日本語", "日本語"),
    ],
)
def test_plain(text, expected):
    assert plain(text) == expected


def test_libraries_print_to_standard_error_and_keep_their_warnings(capsys, monkeypatch):
    monkeypatch.setattr("sys.warnoptions", [])
    before = logging.root.manager.disable
    with libraries_quiet() as stdout:
        print("loading checkpoint shards")
        warnings.warn("soon gone", FutureWarning, stacklevel=1)
        logging.getLogger("diffusers").warning("deprecated")
        print("data", file=stdout)
    assert logging.root.manager.disable == before
    print("after")
    captured = capsys.readouterr()
    assert captured.out == "data\nafter\n"
    assert captured.err == "loading checkpoint shards\n"


def test_libraries_are_heard_again_after_an_error():
    before = sys.stdout, logging.root.manager.disable
    with pytest.raises(ZeroDivisionError), libraries_quiet():
        raise ZeroDivisionError
    assert (sys.stdout, logging.root.manager.disable) == before


def test_the_console_leaves_standard_output_alone(capsys):
    error_console().print("[b]hello[/b] :smile:")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "[b]hello[/b] :smile:\n")
