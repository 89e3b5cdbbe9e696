"""Prompts whose salient tokens a person marked, and prompts without labels, read from files.

Three sets of labels lie beside this file: salient_dev.jsonl, to tune on; salient_test.jsonl, by
the same hand; salient_second.jsonl, by another, who had seen neither rules nor test. All were
written from the prompts alone. Leaves out any comparison (`score`).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from npc_local.core.errors import ConfigError
from npc_local.core.records import SalientToken, TokenKind

Set = Literal["dev", "test", "second"]

# Kinds of prompts that count, colour, size or place things, after GenEval++; then the others,
# after Imagine-Bench and what users write besides.
QUANTITY = ("counting", "color_attr", "color_count", "spatial", "size", "multi_object")
OTHER = (
    *("color_shift", "shape", "material", "combination", "time", "environment", "pairs"),
    *("verbs", "abstractions", "sentences", "negation", "compounds", "names", "style"),
)
FAMILIES = {"quantity": QUANTITY, "non-quantity": OTHER, "all": (*QUANTITY, *OTHER)}

_MARK = re.compile(r"[⟦⟧]")
_KIND = re.compile(r"(\w*):")


@dataclass(frozen=True, slots=True)
class Labelled:
    """A prompt with its salient tokens as a person marked them, in the prompt's order."""

    group: str
    prompt: str
    tokens: tuple[SalientToken, ...]


def load(name: Set) -> tuple[Labelled, ...]:
    """Return the labelled prompts of a set."""
    return read_labels(Path(__file__).with_name(f"salient_{name}.jsonl"))


def read_labels(path: Path) -> tuple[Labelled, ...]:
    """Read labelled prompts, one JSON object a line: {"group": ..., "marked": ...}.

    Raises:
        ConfigError: a line is malformed, or a prompt stands twice; names file and line.
    """
    items: dict[str, Labelled] = {}
    for number, line in enumerate(_lines(path), start=1):
        try:
            item = _labelled(line)
            if item.prompt in items:
                raise ValueError(f"the prompt {item.prompt!r} stands twice")
        except ValueError as error:
            raise ConfigError(f"{path}: line {number}: {error}") from error
        items[item.prompt] = item
    return tuple(items.values())


def _labelled(line: str) -> Labelled:
    entry = _object(line)
    if entry.keys() != {"group", "marked"} or not all(isinstance(v, str) for v in entry.values()):
        raise ValueError('must be {"group": text, "marked": text}')
    if entry["group"] not in FAMILIES["all"]:
        raise ValueError(f"unknown group {entry['group']!r}; known: {', '.join(FAMILIES['all'])}")
    prompt, tokens = parse_marked(entry["marked"])
    return Labelled(entry["group"], prompt, tokens)


def parse_marked(marked: str) -> tuple[str, tuple[SalientToken, ...]]:
    """Split a marked prompt, like "two ⟦thing:cats⟧", into the prompt and its tokens.

    Raises:
        ValueError: a mark is nested, unclosed, unopened, empty, of no known kind, or has blanks at
            its ends.
    """
    prompt, tokens, opened, place = "", [], False, 0
    kind = ""
    for mark in _MARK.finditer(marked):
        text, place = marked[place : mark.start()], mark.end()
        if mark[0] == "⟦":
            if opened:
                raise ValueError(f"a mark inside a mark, at {marked[mark.start() :]!r}")
            prompt += text
            head = _KIND.match(marked, place)
            if head is None or head[1] not in get_args(TokenKind):
                known = ", ".join(get_args(TokenKind))
                raise ValueError(f"no known kind at {marked[mark.start() :]!r}; known: {known}")
            kind, place = head[1], head.end()
        else:
            if not opened:
                raise ValueError(f"⟧ without ⟦ after {prompt + text!r}")
            if not text or text != text.strip():
                raise ValueError(f"a mark is empty or has blanks at its ends: {text!r}")
            span = (len(prompt), len(prompt) + len(text))
            tokens.append(SalientToken(text.lower(), cast(TokenKind, kind), span))
            prompt += text
        opened = not opened
    if opened:
        raise ValueError(f"a mark is not closed after {prompt!r}")
    prompt += marked[place:]
    if not prompt.strip():
        raise ValueError("the prompt is empty")
    return prompt, tuple(tokens)


def read_prompts(path: Path) -> tuple[str, ...]:
    """Read prompts: .jsonl with a field "prompt" or "instruction", or .txt with one a line.

    Raises:
        ConfigError: the file cannot be read, a line has no prompt, or there is none at all.
    """
    if path.suffix not in (".jsonl", ".txt"):
        raise ConfigError(f"{path}: prompts come as .jsonl or .txt")
    prompts = []
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        if path.suffix == ".txt":
            prompts.append(line.strip())
            continue
        try:
            entry = _object(line)
            prompt = entry.get("prompt", entry.get("instruction"))
            if not isinstance(prompt, str) or not prompt.strip():
                raise ValueError('needs "prompt" or "instruction", a text')
        except ValueError as error:
            raise ConfigError(f"{path}: line {number}: {error}") from error
        prompts.append(prompt)
    if not prompts:
        raise ConfigError(f"{path}: there is no prompt in it")
    return tuple(prompts)


def _lines(path: Path) -> list[str]:
    try:
        # Not splitlines(), which also splits at the rarer line ends that a JSON text may hold.
        return path.read_text("utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text: {error}") from error


def _object(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON: {error.msg}") from error
    if not isinstance(entry, dict):
        raise ValueError("must be a JSON object")
    return entry
