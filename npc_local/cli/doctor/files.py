"""A model directory file by file: what is unsafe, unfinished, or points somewhere else.

Nothing is executed and no pickle is opened. Leaves out: whether what a model needs is there
(`directories`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from npc_local.cli.doctor.findings import Finding, error
from npc_local.core.errors import ModelFilesError
from npc_local.core.files import paths
from npc_local.core.files.weights import PICKLED

_LFS = b"version https://git-lfs"
_LFS_SIZE = range(100, 300)  # bytes of a git-lfs pointer
_SMALL = 5_000_000  # bytes; configurations are far below
_UNFINISHED = (".incomplete", ".part")
_HUB = ".cache/huggingface/download"  # where hf keeps what it is fetching into a directory
_NAMED = 3  # files that a finding about many names


def inspect_files(root: Path) -> Iterator[Finding]:
    """Yield what is unsafe, unfinished, or leads elsewhere in a model directory."""
    top = paths.resolved(root, ModelFilesError)
    code: list[Path] = []
    linked: list[Path] = []
    unfinished = [file.name for file in (root / _HUB).rglob("*.incomplete")]
    for where, folders, names in os.walk(root):
        folder = Path(where)
        for name in sorted(folders + names):
            file = folder / name
            if paths.is_symlink(file, ModelFilesError):
                if not paths.exists(file, ModelFilesError):
                    yield error("a link that leads nowhere", file, "copy the directory with cp -rL")
                elif not paths.resolved(file, ModelFilesError).is_relative_to(top):
                    linked.append(file)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        unfinished += [name for name in names if name.endswith(_UNFINISHED)]
        code += [folder / name for name in sorted(names) if name.endswith(".py")]
        yield from _pickles(folder, names)
        for name in sorted(names):
            yield from _file(folder / name)
    if unfinished:
        yield Finding(
            "warning",
            f"an unfinished download: {_some(sorted(unfinished))}",
            str(root),
            "run the download again until it ends without an error",
        )
    if code:
        yield Finding(
            "note",
            f"Python files, which are never run: {_some(file.name for file in code)}",
            str(root),
        )
    if linked:
        yield Finding(
            "note",
            f"{len(linked)} links lead out of the directory, as in a cache of the hub",
            str(linked[0]),
            "to carry it to another machine, copy it with cp -rL",
        )


def _pickles(folder: Path, names: list[str]) -> Iterator[Finding]:
    """Yield a finding if a folder holds pickles; `directories` says if it holds nothing else."""
    # OpenVINO's .bin files are no pickles, and nothing reads them here.
    pickled = sorted(
        name for name in names if Path(name).suffix in PICKLED and not name.startswith("openvino")
    )
    if pickled:
        yield Finding(
            "warning",
            f"pickled files: {_some(pickled)}; they are never opened here, but can run code in "
            "programs that do",
            str(folder),
            "delete them",
        )


def _file(file: Path) -> Iterator[Finding]:
    """Yield what is wrong with one file by itself."""
    try:
        size = file.stat().st_size
        if size in _LFS_SIZE:
            with file.open("rb") as stream:
                if stream.read(len(_LFS)) == _LFS:
                    yield error(
                        "a git-lfs pointer, not the file itself",
                        file,
                        "run `git lfs pull` in the clone, or download the model directory again",
                    )
        if file.name.endswith(("config.json", "model_index.json")) and size < _SMALL:
            yield from _auto_map(file)
    except OSError as caught:
        if not paths.is_symlink(file, ModelFilesError):  # said already
            yield error(f"cannot be read ({caught.strerror})", file, "check its permissions")


def _auto_map(file: Path) -> Iterator[Finding]:
    """Yield a finding if a configuration names code, in the directory or on the hub."""
    try:
        content = json.loads(paths.read(file, ModelFilesError))
    except (ValueError, RecursionError):
        return  # said by `directories`, where somebody loads it
    named = list(_strings(content.get("auto_map"))) if isinstance(content, dict) else []
    away = [name for name in named if "--" in name]
    if away:
        yield error(
            f"auto_map points at code on a hub: {_some(away)}; it is never fetched nor run",
            file,
            "get the model in the layout that transformers has built in, or delete auto_map if "
            "transformers knows the model_type",
        )
    elif named:
        yield Finding("note", f"auto_map names code, which is never run: {_some(named)}", str(file))


def _strings(value: Any) -> Iterator[str]:
    """Yield all strings in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)


def _some(names: Any) -> str:
    """Return the first few names, and how many more there are."""
    names = list(names)
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
