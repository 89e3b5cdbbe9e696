"""Reads a benchmark's records: one JSON object a line, checked one by one and as a whole.

What a valid record is, and how many there must be, is each benchmark's matter.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from npc_local.core.errors import ConfigError, PromptError
from npc_local.core.files import paths
from npc_local.core.prompts import check_prompt
from npc_local.core.strict_json import read_object

DIRECTORY = Path("models/benchmarks")
"""Where `scripts/download_models.sh --to models --benchmarks` puts the records."""
_HOW = (
    "on a machine with a network, scripts/download_models.sh --benchmarks fetches it "
    "(docs/guides/offline.md); --data names another place"
)

Words = Annotated[str, StringConstraints(min_length=1, pattern=r"^\S(.*\S)?$")]


class Published(BaseModel):
    """A record as published: exactly these fields, exactly these types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


RecordT = TypeVar("RecordT", bound=Published)


def find(data: Path | None, name: str) -> Path:
    """Return the path of a benchmark's file.

    Args:
        data: the file, or the directory that it lies in; None is `DIRECTORY`.
        name: the file's name in a directory.

    Raises:
        ConfigError: it is not there; the message says how to get it.
    """
    place = DIRECTORY if data is None else data
    path = place / name if data is None or paths.is_dir(place, ConfigError) else place
    if not paths.is_file(path, ConfigError):
        raise ConfigError(f"{path}: no such file; {_HOW}")
    return path


def read_records(
    path: Path,
    shape: type[RecordT],
    prompt_of: Callable[[RecordT], str],
    group_of: Callable[[RecordT], str],
    expected: Mapping[str, int],
) -> list[tuple[dict[str, Any], RecordT]]:
    """Read all records of a file, each as it was published and as a checked object.

    Args:
        path: the file.
        shape: what each record must be.
        prompt_of: its prompt, which no other record may have.
        group_of: the tag or type that it counts for.
        expected: how many records each of these must have.

    Raises:
        ConfigError: the file cannot be read; a line is not a valid record, or has the prompt of
            another; or there are too few or too many records. The message names file and line.
    """
    records: list[tuple[dict[str, Any], RecordT]] = []
    lines: dict[str, int] = {}
    for number, line in enumerate(_lines(path), start=1):
        where = f"{path}, line {number}"
        raw, record = _record(where, line, shape)
        prompt = prompt_of(record)
        try:
            clean = check_prompt(prompt)
        except PromptError as error:
            raise ConfigError(f"{where}: {error}") from error
        if (first := lines.setdefault(clean, number)) != number:
            raise ConfigError(f"{where}: the same prompt as line {first}: {clean!r}")
        records.append((raw, record))
    _check_numbers(path, Counter(group_of(record) for _, record in records), expected)
    return records


def digest(records: Iterable[Mapping[str, Any]]) -> str:
    """Return the SHA-256 of records, in their order."""
    return hashlib.sha256("\n".join(map(as_line, records)).encode()).hexdigest()


def as_line(record: Mapping[str, Any]) -> str:
    """Return a record as one line of JSON, spelt as the published files are."""
    return json.dumps(record, ensure_ascii=False)


def _lines(path: Path) -> list[str]:
    try:
        text = paths.read(path, ConfigError).decode()
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8; {_HOW}") from error
    # Not splitlines: JSON strings may hold further characters that it splits at.
    return text.removesuffix("\n").split("\n") if text else []


def _record(where: str, line: str, shape: type[RecordT]) -> tuple[dict[str, Any], RecordT]:
    try:
        raw = read_object(line)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}; {_HOW}") from error
    try:
        return raw, shape.model_validate(raw)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        place = ".".join(map(str, detail["loc"])) or "record"
        raise ConfigError(f"{where}: {place}: {detail['msg']}") from error


def _check_numbers(path: Path, numbers: Counter[str], expected: Mapping[str, int]) -> None:
    total = sum(expected.values())
    wrong = [
        f"{numbers[group]} of {group} (must be {count})"
        for group, count in expected.items()
        if numbers[group] != count
    ]
    if wrong:
        raise ConfigError(
            f"{path}: {numbers.total()} records, up to line {numbers.total()}, where {total} "
            "belong: "
            f"{', '.join(wrong)}; the file is cut off or changed: {_HOW}"
        )
