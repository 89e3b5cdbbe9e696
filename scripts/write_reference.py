"""Write docs/reference/: the command line from click, models.toml from the settings' own words.

`python scripts/write_reference.py` from a checkout; a test keeps the pages equal to it. The page of
the model families comes from `npc-local models --markdown`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from npc_local.cli.main import main
from npc_local.cli.models import page as families_page
from npc_local.core.config import settings
from npc_local.core.config.settings import Section

DIRECTORY = Path(__file__).parents[1] / "docs" / "reference"
_MADE = "<!-- Made by scripts/write_reference.py; change {} instead. -->"


def pages() -> dict[str, str]:
    """Return every page of the reference that is made, by its name."""
    return {
        "command_line.md": command_line(),
        "models_toml.md": models_toml(),
        "models.md": families_page(),
    }


def command_line() -> str:
    """Return the page of all commands: what they do, what they take, examples."""
    root = click.Context(main, info_name="npc-local", **main.context_settings)
    commands = list(_commands(main, root))
    lines = [
        _MADE.format("the commands in npc_local/cli/"),
        "",
        "# The command line",
        "",
        "Results go to standard output, everything else to standard error; `-h` and `--help` show "
        "what is here. [Exit codes](exit_codes.md) tell kinds of failure apart.",
        "",
        *(f"- [`{path}`](#{_anchor(path)}): {_first_line(one)}" for path, one in commands),
    ]
    for path, command in commands:
        lines += ["", f"## {path}", "", *_described(command)]
        context = click.Context(command, info_name=path)
        lines += ["", "```text", " ".join([path, *command.collect_usage_pieces(context)]), "```"]
        # Without --help, which every command has.
        rows = [row for row in map(_option, command.params) if row is not None]
        if rows:
            lines += ["", "| option | meaning |", "|---|---|", *rows]
        if command.epilog:
            title, _, examples = command.epilog.replace("\b", "").strip().partition("\n")
            lines += ["", title, "", "```console"]
            lines += [line.strip() for line in examples.splitlines()] + ["```"]
    return "\n".join(lines) + "\n"


def _commands(
    command: click.Command, context: click.Context
) -> Iterator[tuple[str, click.Command]]:
    """Yield a command's path and itself, groups before what is in them."""
    path = context.command_path
    if command is not main:
        yield path, command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from _commands(inner, click.Context(inner, info_name=name, parent=context))


def _described(command: click.Command) -> list[str]:
    """Return a command's help as Markdown, a paragraph a line."""
    paragraphs = (command.help or "").split("\n\n")
    return "\n\n".join(" ".join(part.split()) for part in paragraphs).split("\n")


def _first_line(command: click.Command) -> str:
    return _described(command)[0].partition(". ")[0].rstrip(".:")


def _option(parameter: click.Parameter) -> str | None:
    """Return a row of the table of options; None for what is no option, or is hidden."""
    if not isinstance(parameter, click.Option) or parameter.hidden:
        return None
    names = ", ".join([*parameter.opts, *parameter.secondary_opts])
    with click.Context(click.Command("none")) as context:
        if not parameter.is_flag:
            names += " " + parameter.make_metavar(context)
        record = parameter.get_help_record(context)
    meaning = " ".join((record[1] if record else "").split())
    return f"| `{_cell(names)}` | {_cell(meaning)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _anchor(title: str) -> str:
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def models_toml() -> str:
    """Return the page of all tables of models.toml and their keys."""
    lines = [
        _MADE.format("npc_local/core/config/settings.py"),
        "",
        "# models.toml",
        "",
        "Every table and every key that it may have; others are refused. `default_profile` at the "
        "top names the profile that is used where none is asked for. Paths are local: absolute, "
        "beside the file, or `builtin:shapes`.",
    ]
    for section in _sections():
        title, _, rest = " ".join((section.__doc__ or "").split()).partition(": ")
        title = title.replace("`", "") if title.startswith("`") else title
        words = rest or title
        lines += ["", f"## {_title(section)}", "", words[:1].upper() + words[1:], ""]
        rows = [
            f"| `{name}` | {_type(field.annotation, field.metadata)} | {_default(field)} |"
            for name, field in section.model_fields.items()
        ]
        lines += ["| key | type | default |", "|---|---|---|", *rows]
    return "\n".join(lines) + "\n"


def _sections() -> list[type[Section]]:
    """Return the tables, profiles first, as they name the others."""
    made = [one for one in vars(settings).values() if isinstance(one, type)]
    tables = [one for one in made if issubclass(one, Section) and one is not Section]
    return sorted(tables, key=lambda table: table is not settings.ProfileSettings)


def _title(section: type[BaseModel]) -> str:
    """Return the tables that a section describes, as its docstring begins."""
    head = " ".join((section.__doc__ or "").split()).partition(":")[0]
    return head if len(head) < 80 else section.__name__


def _type(annotation: Any, metadata: list[Any]) -> str:
    """Return a type in words, with its limits."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is settings.LocalPath or annotation is Path:
        said = "path"
    elif origin is Literal:
        said = ", ".join(f"`{_value(one)}`" for one in arguments)
    elif origin in (Union, UnionType):
        said = " or ".join(_type(one, []) for one in arguments if one is not NoneType)
    elif origin is list:
        said = f"list of {_type(arguments[0], [])}"
    elif origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        said = "table"
    elif origin is not None:  # Annotated
        said = _type(arguments[0], [])
    else:
        said = {str: "string", int: "integer", float: "number", bool: "true or false"}.get(
            annotation, annotation.__name__
        )
    limits = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    for one in metadata:
        said += "".join(
            f", {words} {getattr(one, name)}"
            for name, words in limits.items()
            if hasattr(one, name)
        )
    return said


def _default(field: Any) -> str:
    if field.default is PydanticUndefined and field.default_factory is None:
        return "required"
    return "" if field.default in (None, "", [], {}) else f"`{_value(field.default)}`"


def _value(value: object) -> str:
    """Return a value as TOML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return str(value)


if __name__ == "__main__":
    for _name, _text in pages().items():
        (DIRECTORY / _name).write_text(_text, encoding="utf-8")
