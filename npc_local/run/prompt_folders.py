"""The folders of a file's prompts in a run directory: which is whose, and what is finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from npc_local.core.errors import ConfigError, StorageError
from npc_local.core.files import paths
from npc_local.run.journal.differences import differences
from npc_local.run.output.directories import folder_name, prompt_hash
from npc_local.run.output.result_folder import is_whole, read_record
from npc_local.run.prompt_file import Order
from npc_local.run.session import is_run

_DIGITS = 5
_SHOWN = 10  # changed lines named at once


def prompt_folders(directory: Path, file: Path, orders: Sequence[Order]) -> dict[int, Path]:
    """Return the folder of each prompt by its number; one that is there keeps its name.

    Args:
        directory: the run directory; there may be no run in it yet.
        file: where the prompts come from, for messages.
        orders: the prompts.

    Raises:
        ConfigError: a folder is that of another prompt, whose results would be taken for these.
        StorageError: the directory cannot be read.
    """
    numbered = {order.number: order for order in orders}
    folders = {
        number: directory / folder_name(number, order.prompt, _DIGITS, order.id)
        for number, order in numbered.items()
    }
    others = []
    for path in _existing(directory):
        order = numbered.get(_number(path))
        if order is None:
            continue
        folders[order.number] = path
        if change := _change(path, order):
            others.append(
                f"{file}, line {order.line}: prompt {order.number} is not the one that {path} "
                f"was made for ({change})"
            )
    if others:
        more = [f"and {len(others) - _SHOWN} more lines"] if len(others) > _SHOWN else []
        raise ConfigError(
            "\n".join([*others[:_SHOWN], *more])
            + "; a run may get more prompts at the end of its file, but no others: put the file "
            "back, or begin a new run (--fresh)"
        )
    return folders


def finished(folder: Path, order: Order) -> Mapping[str, Any] | None:
    """Return the record of what an earlier run has made of a prompt, unless it was an error."""
    record = read_record(folder)
    try:
        same = (record["prompt"], record["seed"]) == (order.prompt, order.seed)
        whole = same and record["status"] != "error" and is_whole(folder, record)
    except (KeyError, TypeError):
        return None
    return record if whole else None


def _existing(directory: Path) -> list[Path]:
    if not is_run(directory):
        return []  # what is there is somebody else's
    return paths.children(directory, StorageError, "[0-9]*-*")


def _number(folder: Path) -> int:
    """Return the number in a folder's name, 0 if it is none of ours."""
    head, _, _ = folder.name.partition("-")
    return int(head) if head.isdecimal() else 0


def _change(folder: Path, order: Order) -> str:
    """Say in what a prompt differs from the one that has this folder; empty: in nothing known."""
    now = {"prompt": order.prompt, "seed": order.seed}
    record = read_record(folder)
    there = {key: record.get(key, value) for key, value in now.items()}
    _, hash_there, *_ = folder.name.split("-")
    other = "prompt" if hash_there != prompt_hash(order.prompt) else ""
    return "; ".join(differences(there, now)) or other
