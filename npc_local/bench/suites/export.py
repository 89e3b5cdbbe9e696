"""Images in the layout of the published harnesses, out and in: 1.jpg, 2.jpg, ... in prompt order.

`export` writes what the published scripts score, records included; `images_from` finds the images
of a directory that someone else filled. Neither makes nor judges an image.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL.Image import Image

from npc_local.bench.suites.record_files import as_line
from npc_local.bench.suites.suite import BenchItem, Suite
from npc_local.core.errors import ConfigError, StorageError
from npc_local.core.files import paths
from npc_local.core.files.images import open_image

QUALITY = 95
"""Of JPEG, with no colour subsampling: the highest that Pillow advises."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_SCRATCH = ".npc-local-export."
_IMAGE = re.compile(r"[1-9]\d*\.jpg")


def check_export(root: Path, suite: Suite) -> None:
    """Make sure that a directory can take exports; sweep what a death in the middle of one left.

    Raises:
        StorageError: it is no directory, it holds what `export` did not write there, or cannot be
            read.
    """
    try:
        there = next(
            path
            for path in (root, *paths.absolute(root).parents)
            if paths.exists(path, StorageError)
        )
        if not paths.is_dir(there, StorageError):
            raise StorageError(f"{there} is no directory; name another one for the export")
        if there != root:
            return
        scratch = [path for path in paths.children(root, StorageError) if _is_scratch(path, suite)]
        for path in paths.children(root, StorageError):
            if path not in scratch and not _is_export(path, suite):
                raise StorageError(
                    f"{root} holds something already that is no export of {suite.title}: "
                    f"{path.name}; name another directory"
                )
        for path in scratch:
            shutil.rmtree(path)
    except OSError as error:
        raise StorageError(f"{root}: cannot be read: {error.strerror or error}") from error


def export(directory: Path, suite: Suite, images: Iterable[tuple[BenchItem, Image]]) -> None:
    """Write images and records into a directory, all of them or nothing.

    An earlier export, which holds nothing but records and images, is replaced.

    An image is `NUMBER.jpg` by its item's number, JPEG at `QUALITY`, so close to the original but
    not equal to it. The records are all of the suite's, unchanged and in their order, in
    `suite.metadata`, also where images of some are left out: the scripts look images up by number.

    Raises:
        StorageError: the directory holds something else already, or cannot be written.
        ValueError: two images of one number.
    """
    try:
        if paths.exists(directory, StorageError) and not (
            _is_export(directory, suite) or _is_empty(directory)
        ):
            raise StorageError(f"{directory} holds something already; name a new directory")
        directory.parent.mkdir(parents=True, exist_ok=True)
        scratch, old = (_new_scratch(directory.parent) for _ in range(2))
        try:
            scratch.chmod(0o755)  # mkdtemp's is the owner's alone
            for item, image in images:
                path = scratch / f"{item.number}.jpg"
                if paths.exists(path, StorageError):
                    raise ValueError(f"two images of number {item.number}")
                image.convert("RGB").save(path, "JPEG", quality=QUALITY, subsampling=0)
            lines = "".join(as_line(item.record) + "\n" for item in suite.items())
            (scratch / suite.metadata).write_text(lines, encoding="utf-8", newline="\n")
            if paths.exists(directory, StorageError):
                directory.replace(old)  # one that holds something cannot be replaced in one step
            scratch.replace(directory)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise StorageError(f"{directory}: cannot be written: {error.strerror or error}") from error


def _new_scratch(parent: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=parent))


def _is_scratch(path: Path, suite: Suite) -> bool:
    return path.name.startswith(_SCRATCH) and _is_ours(path, suite)


def _is_export(path: Path, suite: Suite) -> bool:
    return _is_ours(path, suite) and paths.is_file(path / suite.metadata, StorageError)


def _is_empty(path: Path) -> bool:
    return paths.is_dir(path, StorageError) and not paths.children(path, StorageError)


def _is_ours(path: Path, suite: Suite) -> bool:
    """Whether a directory holds nothing but what an export of the suite has."""
    return (
        paths.is_dir(path, StorageError)
        and not paths.is_symlink(path, StorageError)
        and all(
            file.name == suite.metadata or _IMAGE.fullmatch(file.name)
            for file in paths.children(path, StorageError)
        )
    )


def images_from(directory: Path, items: Sequence[BenchItem]) -> dict[int, Path]:
    """Find the image of every item, by number, and make sure that each can be read.

    Returns:
        Item number -> file, to be read by `images.open_image`.

    Raises:
        ConfigError: images are missing, doubled or unreadable; one message names them all.
    """
    if not paths.is_dir(directory, ConfigError):
        raise ConfigError(f"{directory}: no such directory")
    files: dict[int, Path] = {}
    missing: list[int] = []
    faults: list[str] = []
    for item in items:
        places = [directory / f"{item.number}{suffix}" for suffix in SUFFIXES]
        there = [path for path in places if paths.exists(path, ConfigError)]
        if not there:
            missing.append(item.number)
        elif len(there) > 1:
            faults.append(f"more than one image of that number: {', '.join(p.name for p in there)}")
        else:
            files[item.number] = there[0]
            try:
                open_image(there[0])
            except ConfigError as error:
                faults.append(str(error).removeprefix(f"{directory}/"))
    if missing:
        faults.insert(0, f"no image of number {_ranges(missing)}")
    if faults:
        raise ConfigError(
            f"{directory}: {len(items)} images belong here, named 1.jpg or 1.png and so on by the "
            f"prompt's number: {'; '.join(faults)}"
        )
    return files


def _ranges(numbers: Sequence[int]) -> str:
    """'1, 4-6': every number, however many there are."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
