"""Files of prompts: text, JSON lines and tables, read once and checked whole before any work.

What people have: Excel's semicolons and tabs, UTF-16, headers of other tools, a pipe. Whether
anybody can use a prompt is left to `check_orders`' readers: the agents and the scorer of a profile.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from npc_local.core.errors import ConfigError, NpcError, PromptError
from npc_local.core.files import paths
from npc_local.core.prompts import check_prompt
from npc_local.core.strict_json import read_object

STDIN = Path("-")
"""Stands for standard input."""
PROMPT_NAMES = ("prompt", "text", "caption")
"""Fields and columns that hold the prompt, capitals or not; the first of them that is there."""

_SHOWN = 10  # bad lines named at once
_SEEDS = range(2**63)
_DELIMITERS = (",", ";", "\t")
_MARKS = (  # the longer first: UTF-32's begins as UTF-16's
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


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


class PromptReader(Protocol):
    """Whoever has a say in whether a prompt can be used: a backend, a scorer."""

    def accepts(self, prompt: str) -> None:
        """Return if the prompt can be used.

        Raises:
            PromptError: it cannot.
        """
        ...


def read_content(file: Path) -> bytes:
    """Return what is in a file, a pipe, or standard input (`STDIN`), which can be read but once.

    Raises:
        ConfigError: it cannot be read.
    """
    if file != STDIN:
        return paths.read(file, ConfigError)
    try:
        return sys.stdin.buffer.read()
    except (OSError, ValueError, AttributeError) as error:  # closed, or there is none
        raise ConfigError(f"{_named(file)}: cannot be read: {paths.reason(error)}") from error


def read_prompts(file: Path, seed: int, content: bytes | None = None) -> tuple[Order, ...]:
    """Read all prompts of a file.

    In .txt, a line is a prompt; blank lines and lines that begin with # are passed over. In .jsonl,
    a line is an object, and in .csv and .tsv, under a header, a row: with a prompt (`PROMPT_NAMES`)
    and, if wanted, a "seed" and an "id". Other fields are not read. Cells are apart by commas,
    semicolons or tabs, whichever the header has. What has no suffix, as a pipe or standard input,
    is objects if it begins with one, a table if its first line names a prompt among other columns,
    and lines otherwise. The text is UTF-8, or UTF-16 or 32 if it begins with their mark.

    Args:
        file: the file.
        seed: of the prompts that have none of their own.
        content: what is in it, if that has been read.

    Raises:
        ConfigError: the file cannot be read or has no prompt, or lines are not as above.
        PromptError: prompts cannot be used. Both messages name the lines, the first ten.
    """
    readers = {".txt": _text, ".jsonl": _jsonl, ".csv": _table, ".tsv": _table}
    suffix = file.suffix.lower()
    if suffix and suffix not in readers:
        raise ConfigError(f"{file}: must end in .txt, .jsonl, .csv or .tsv")
    text = _decoded(file, read_content(file) if content is None else content)
    read = readers[suffix] if suffix else _guessed(text)
    orders: list[Order] = []
    bad: list[tuple[int, NpcError]] = []
    lines_of_ids: dict[str, int] = {}
    for line, fields in read(file, text):
        try:
            if isinstance(fields, NpcError):
                raise fields
            order = _order(len(orders) + 1, fields, seed)
            if order.id is not None and (first := lines_of_ids.setdefault(order.id, line)) != line:
                raise ConfigError(f"the same id as line {first}: {order.id!r}")
            orders.append(replace(order, line=line))
        except NpcError as error:
            bad.append((line, error))
    if bad:
        raise _refusal(file, bad)
    if not orders:
        raise ConfigError(f"{_named(file)}: no prompt in it")
    return tuple(orders)


def check_orders(file: Path, orders: Iterable[Order], readers: Sequence[PromptReader]) -> None:
    """Hold all prompts of a file against those who will read them.

    Raises:
        PromptError: prompts cannot be used; the message names the lines, the first ten, and says
            once what all of them should know.
        NpcError: a reader can read no prompt at all.
    """
    bad: list[tuple[int, NpcError]] = []
    for order in orders:
        try:
            for reader in readers:
                reader.accepts(order.prompt)
        except PromptError as error:
            bad.append((order.line, error))
    if bad:
        raise _refusal(file, bad)


def _refusal(file: Path, bad: Sequence[tuple[int, NpcError]]) -> NpcError:
    """Return one error for all lines that cannot be used, of the kind of the first."""
    shown = bad[:_SHOWN]
    lines = [
        f"{_named(file)}, line {line}: {error.message if isinstance(error, PromptError) else error}"
        for line, error in shown
    ]
    lines += [f"and {len(bad) - _SHOWN} more lines"] if len(bad) > _SHOWN else []
    kind = type(bad[0][1])
    if not issubclass(kind, PromptError):
        return kind("\n".join(lines))
    hints = dict.fromkeys(error.hint for _, error in shown if isinstance(error, PromptError))
    return kind("\n".join(lines), "\n".join(filter(None, hints)))


_Rows = Iterator[tuple[int, Mapping[str, Any] | NpcError]]


def _text(file: Path, text: str) -> _Rows:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip() and not line.startswith("#"):
            yield number, {"prompt": line}


def _jsonl(file: Path, text: str) -> _Rows:
    # Not splitlines: JSON strings may hold further characters that it splits at.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield number, _known(read_object(line))
        except ValueError as error:
            yield number, ConfigError(str(error))


def _table(file: Path, text: str) -> _Rows:
    delimiter = _delimiter(text) or ("\t" if file.suffix.lower() == ".tsv" else ",")
    begins = 1  # a row may take several lines
    if _says_delimiter(text):  # Excel's own first line
        text, begins = text.partition("\n")[2], 2
    before = begins - 1
    rows = _csv_rows(text, delimiter)
    header: list[str] | None = None
    try:
        for row in rows:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                pass  # a blank line, also one that only looks empty
            elif header is None:
                header = _checked_header(file, begins, cells)
            elif any(cells[len(header) :]) or 0 < len(row) < len(header):
                yield begins, ConfigError(f"{len(row)} fields, where the header has {len(header)}")
            else:
                known = _known(dict(zip(header, row, strict=False)))
                yield begins, {k: v for k, v in known.items() if v.strip() or k == "prompt"}
            begins = before + rows.line_num + 1
    except csv.Error as error:
        yield begins, ConfigError(f"not CSV: {error}")


def _csv_rows(text: str, delimiter: str) -> Any:
    """Return a reader of the rows; between tabs, quotes that enclose no whole cell are letters."""

    def read(quoting: Literal[0, 3]) -> Any:
        lines = io.StringIO(text, newline="")
        return csv.reader(lines, delimiter=delimiter, strict=True, quoting=quoting)

    if delimiter == "\t":
        try:
            deque(read(csv.QUOTE_MINIMAL), maxlen=0)
        except csv.Error:
            return read(csv.QUOTE_NONE)
    return read(csv.QUOTE_MINIMAL)


def _checked_header(file: Path, line: int, cells: list[str]) -> list[str]:
    """Return the columns' names in small letters; those behind the last name are left out.

    Raises:
        ConfigError: no column, or no one column, holds the prompt.
    """
    names = [cell.lower() for cell in cells]
    while names and not names[-1]:
        names.pop()
    known = [name for name in names if name in PROMPT_NAMES or name in ("seed", "id")]
    if len(set(known)) != len(known) or not set(known) & set(PROMPT_NAMES):
        raise ConfigError(
            f"{_named(file)}, line {line}: the header must name each column once, one of them "
            f"{', '.join(PROMPT_NAMES[:-1])} or {PROMPT_NAMES[-1]}; found {', '.join(cells)}"
        )
    return names


def _known(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are read under their own names: prompt, seed, id."""
    small: dict[str, Any] = {}
    for name, value in fields.items():
        small.setdefault(name.strip().lower(), value)  # the file's first, where two are alike
    for name in PROMPT_NAMES:
        if name in small:
            return {"prompt": small[name], **{k: small[k] for k in ("seed", "id") if k in small}}
    return {}


def _guessed(text: str) -> Any:
    """Return the reader for a text that comes without a suffix."""
    # A brace alone may be another tool's markup: {red|blue} cat.
    if re.match(r'\s*\{\s*(["}]|$)', text):
        return _jsonl
    if _says_delimiter(text):
        return _table
    delimiter = _delimiter(text)
    if delimiter is None:
        return _text
    # A prompt may hold a comma and the word "text": a header is names alone, all known or short.
    cells = [cell.strip(' "') for cell in text.partition("\n")[0].lower().split(delimiter)]
    known = {*PROMPT_NAMES, "seed", "id"}
    is_header = all(cell in known or re.fullmatch(r"\w{0,20}", cell) for cell in cells)
    sure = "prompt" in cells or len(known & set(cells)) > 1
    return _table if is_header and sure else _text


def _says_delimiter(text: str) -> bool:
    return re.match(r"sep=[,;\t]\n", text, re.IGNORECASE) is not None


def _delimiter(text: str) -> str | None:
    """Return what stands between the names of a header; None if the first line is none."""
    if _says_delimiter(text):
        return text[4]
    first = text.partition("\n")[0].lower()
    for delimiter in _DELIMITERS:
        names = [name.strip(' "') for name in first.split(delimiter)]
        if len(names) > 1 and set(names) & set(PROMPT_NAMES):
            return delimiter
    return None


def _order(number: int, fields: Mapping[str, Any], seed: int) -> Order:
    """Check one line's fields.

    Raises:
        ConfigError: a field is missing or of another type.
        PromptError: the prompt cannot be used.
    """
    if not isinstance(fields.get("prompt"), str):
        raise ConfigError('needs a "prompt", a text')
    prompt = check_prompt(fields["prompt"])
    own, name = fields.get("seed"), fields.get("id")
    if own is not None:
        try:
            seed = own if type(own) is int else int(own) if isinstance(own, str) else -1
        except ValueError:
            seed = -1
        if seed not in _SEEDS:
            raise ConfigError(f"seed: found {own!r}; must be a whole number from 0 to 2**63 - 1")
    if name is not None and type(name) not in (str, int):
        raise ConfigError(f"id: found {name!r}; must be a text or a whole number")
    return Order(number, prompt, seed, None if name is None else str(name).strip())


def _decoded(file: Path, content: bytes) -> str:
    """Return the text with one kind of line end.

    Raises:
        ConfigError: it is in no encoding that is known here.
    """
    mark, encoding = next(
        (pair for pair in _MARKS if content.startswith(pair[0])), (b"", _encoding(content))
    )
    try:
        return re.sub("\r\n?", "\n", content[len(mark) :].decode(encoding))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, len(mark) + error.start) + 1
        wanted = "UTF-8" if encoding == "utf-8" else encoding.upper()
        raise ConfigError(
            f"{_named(file)}, line {line}: not {wanted}; save it as UTF-8 (in Excel: CSV UTF-8)"
        ) from error


def _encoding(content: bytes) -> str:
    """Return the encoding of a text without a mark, which begins with a letter or a sign."""
    if content[1:2] == b"\0":
        return "utf-16-le"
    if content[:1] == b"\0":
        return "utf-16-be"
    # Of other scripts than Latin, its line ends and spaces tell.
    for encoding in ("utf-16-le", "utf-16-be"):
        if any(sign.encode(encoding) in content for sign in ("\n", " ")) and b"\0" in content:
            with suppress(UnicodeDecodeError):
                content.decode(encoding)
                return encoding
    return "utf-8"


def _named(file: Path) -> str:
    return "standard input" if file == STDIN else paths.shown(file)
