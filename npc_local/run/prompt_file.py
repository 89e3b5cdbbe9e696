"""Files of prompts: .txt, .jsonl and .csv, checked whole before any work."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from npc_local.core.errors import ConfigError, NpcError
from npc_local.core.prompts import check_prompt
from npc_local.core.strict_json import read_object

_SHOWN = 10  # bad lines named at once
_SEEDS = range(2**63)


@dataclass(frozen=True, slots=True)
class Order:
    """One prompt of a file: `number` from 1, the seed of its images, and the file's own name.

    `line` is where it begins, for messages; two orders are equal wherever they are.
    """

    number: int
    prompt: str
    seed: int
    id: str | None = None
    line: int = field(default=0, compare=False)


def read_prompts(file: Path, seed: int) -> tuple[Order, ...]:
    """Read all prompts of a file.

    In .txt, a line is a prompt; blank lines and lines that begin with # are passed over. In .jsonl,
    a line is an object, and in .csv, under a header, a row: with a "prompt" and, if wanted, a
    "seed" and an "id". Other fields are not read. The text is UTF-8.

    Args:
        file: the file.
        seed: of the prompts that have none of their own.

    Raises:
        ConfigError: the file cannot be read or has no prompt, or lines are not as above.
        PromptError: prompts cannot be used. Both messages name the lines, the first ten.
    """
    reader = {".txt": _text, ".jsonl": _jsonl, ".csv": _csv}.get(file.suffix.lower())
    if reader is None:
        raise ConfigError(f"{file}: must end in .txt, .jsonl or .csv")
    orders: list[Order] = []
    bad: list[tuple[int, NpcError]] = []
    lines_of_ids: dict[str, int] = {}
    for line, found in reader(file, _read(file)):
        try:
            if isinstance(found, NpcError):
                raise found
            order = _order(len(orders) + 1, found, seed)
            if order.id is not None and (first := lines_of_ids.setdefault(order.id, line)) != line:
                raise ConfigError(f"the same id as line {first}: {order.id!r}")
            orders.append(replace(order, line=line))
        except NpcError as error:
            bad.append((line, error))
    if bad:
        lines = [f"{file}, line {line}: {error}" for line, error in bad[:_SHOWN]]
        lines += [f"and {len(bad) - _SHOWN} more lines"] if len(bad) > _SHOWN else []
        raise type(bad[0][1])("\n".join(lines))
    if not orders:
        raise ConfigError(f"{file}: no prompt in it")
    return tuple(orders)


_Found = Iterator[tuple[int, Mapping[str, Any] | NpcError]]


def _text(file: Path, text: str) -> _Found:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip() and not line.startswith("#"):
            yield number, {"prompt": line}


def _jsonl(file: Path, text: str) -> _Found:
    # Not splitlines: JSON strings may hold further characters that it splits at.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield number, read_object(line)
        except ValueError as error:
            yield number, ConfigError(str(error))


def _csv(file: Path, text: str) -> _Found:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    begins = 1  # a row may take several lines
    try:
        for row in rows:
            if header is None:
                header = [name.strip() for name in row]
                if header.count("prompt") != 1 or len(set(header)) != len(header):
                    raise ConfigError(
                        f"{file}, line 1: the header must name each column once, one of them "
                        f"prompt; found {', '.join(header)}"
                    )
            elif len(row) not in (0, len(header)):
                yield begins, ConfigError(f"{len(row)} fields, where the header has {len(header)}")
            elif row:
                cells = dict(zip(header, row, strict=True))
                yield begins, {k: v for k, v in cells.items() if v or k == "prompt"}
            begins = rows.line_num + 1
    except csv.Error as error:
        yield begins, ConfigError(f"not CSV: {error}")


def _order(number: int, found: Mapping[str, Any], seed: int) -> Order:
    """Check one line's fields.

    Raises:
        ConfigError: a field is missing or of another type.
        PromptError: the prompt cannot be used.
    """
    if not isinstance(found.get("prompt"), str):
        raise ConfigError('needs a "prompt", a text')
    prompt = check_prompt(found["prompt"])
    own, name = found.get("seed"), found.get("id")
    if own is not None:
        try:
            seed = own if type(own) is int else int(own) if isinstance(own, str) else -1
        except ValueError:
            seed = -1
        if seed not in _SEEDS:
            raise ConfigError(f"seed: found {own!r}; must be a whole number from 0 to 2**63 - 1")
    if name is not None and type(name) not in (str, int):
        raise ConfigError(f"id: found {name!r}; must be a text or a whole number")
    return Order(number, prompt, seed, None if name is None else str(name))


def _read(file: Path) -> str:
    try:
        # Newlines as they are: "utf-8-sig" passes over the mark that some editors put first.
        return file.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{file}, line {line}: not UTF-8") from error
