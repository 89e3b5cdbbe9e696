"""What may be a prompt, and how the rest is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_local.core.errors import PromptError
from npc_local.core.prompts import MAX_CHARACTERS, check_prompt


@pytest.mark.parametrize(
    "text",
    [
        "/etc/passwd",
        "../prompts.txt",
        "<b>two</b> [red]circles[/red]",
        "$reason ${prompt} {prompt} %s",
        "zwei Kreise\n\tund eine Katze",
        "三只猫 👩‍🎨",
        "x" * MAX_CHARACTERS,
    ],
)
def test_any_text_is_only_text(text):
    assert check_prompt(text) == text


def test_outer_whitespace_goes():
    assert check_prompt("\n  two red circles \t") == "two red circles"


@pytest.mark.parametrize("text", ["", " ", "\n\t "])
def test_empty(text):
    with pytest.raises(PromptError, match="empty"):
        check_prompt(text)


def test_too_long_says_limit_and_length():
    with pytest.raises(PromptError, match=r"2,001 characters; at most 2,000"):
        check_prompt("x" * 2001)


def test_length_counts_without_outer_whitespace():
    assert len(check_prompt("x" * 2000 + "   ")) == 2000


@pytest.mark.parametrize(
    ("text", "name"), [("a\x00b", "U\\+0000"), ("a\x1b[31m", "U\\+001B"), ("a\ud800b", "U\\+D800")]
)
def test_control_characters_are_named(text, name):
    with pytest.raises(PromptError, match=f"{name} at position 1"):
        check_prompt(text)


@given(st.text())
def test_refused_or_unchanged_inside(text):
    try:
        prompt = check_prompt(text)
    except PromptError:
        return
    assert prompt == text.strip()
    prompt.encode()  # whatever passes, a tokenizer can encode
