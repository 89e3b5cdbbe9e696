"""A manifest of files and their SHA-256: written where models are fetched, checked where they land.

The format is one that `sha256sum -c` reads, with sizes and the end in comments, so that
scripts/download_models.sh needs no Python to write it:

    # npc-local manifest 1
    # source FLUX.1-dev black-forest-labs/FLUX.1-dev COMMIT
    # size 536 FLUX.1-dev/model_index.json
    <64 hex digits>  FLUX.1-dev/model_index.json
    # end 1 files

Paths start at the manifest's own directory. By hand:
`python -m npc_local.core.files.manifest write DIR FILE`, and `check FILE`. Needs the standard
library only.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from npc_local.core.errors import ModelFilesError, NpcError
from npc_local.core.files import paths
from npc_local.core.files.atomic import write_durably

FIRST_LINE = "# npc-local manifest 1"
_BLOCK = 1 << 22  # bytes hashed between two reports of progress
_HASHED = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_AGAIN = "copy it again, or run scripts/download_models.sh again"

# Called with a path of the manifest, the bytes hashed so far and its size.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: its path relative to the manifest, its SHA-256, and its size in bytes."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that was read whole. `sources` holds (folder, repository, commit)."""

    file: Path
    entries: tuple[Entry, ...]
    sources: tuple[tuple[str, str, str], ...] = ()

    @property
    def root(self) -> Path:
        """The directory that the paths start at."""
        return self.file.parent


@dataclass(frozen=True, slots=True)
class Fault:
    """A file that is not what the manifest says, and in which way."""

    file: Path
    what: str


def read_manifest(file: Path) -> Manifest:
    """Read a manifest.

    Raises:
        ModelFilesError: it is missing, cut short, of another kind, or names a file elsewhere.
    """
    if not paths.exists(file, ModelFilesError):
        raise ModelFilesError(
            f"{file}: no such manifest; it is written last, so the download may be unfinished"
        )
    try:
        lines = paths.read(file, ModelFilesError).decode().rstrip("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ModelFilesError(f"{file}: cannot be read ({error})") from error
    if lines[0] != FIRST_LINE:
        raise ModelFilesError(f"{file}: no manifest of npc-local, its first line differs")
    sizes: dict[str, int] = {}
    hashes: dict[str, str] = {}
    sources = []
    for number, line in enumerate(lines, start=1):
        words = line.split(" ")
        if line.startswith("# size ") and len(words) > 3 and words[2].isdecimal():
            sizes[" ".join(words[3:])] = int(words[2])
        elif line.startswith("# source ") and len(words) == 5:
            sources.append((words[2], words[3], words[4]))
        elif not line.startswith("#"):
            match = _HASHED.fullmatch(line)
            if match is None:
                raise ModelFilesError(f"{file}: line {number} is damaged; {_AGAIN}")
            hashes[_inside(match[2], file)] = match[1]
    if lines[-1] != f"# end {len(hashes)} files" or set(sizes) != set(hashes):
        raise ModelFilesError(f"{file}: cut short or changed by hand; {_AGAIN}")
    entries = tuple(Entry(path, digest, sizes[path]) for path, digest in hashes.items())
    return Manifest(file, entries, tuple(sources))


def check_manifest(manifest: Manifest, progress: Progress | None = None) -> Iterator[Fault]:
    """Yield what differs from a manifest: all sizes first, which is quick, then all contents.

    Args:
        manifest: what should be there.
        progress: told about the hashing, at least once a file.
    """
    right_size = []
    for entry in manifest.entries:
        file = manifest.root / entry.path
        try:
            size = file.stat().st_size if paths.is_file(file, ModelFilesError) else None
        except (OSError, ModelFilesError) as error:
            yield Fault(file, f"cannot be read ({error})")
            continue
        if size is None:
            yield Fault(file, "missing")
        elif size != entry.size:
            yield Fault(file, f"{size} bytes where the manifest says {entry.size}")
        else:
            right_size.append(entry)
    for entry in right_size:
        file = manifest.root / entry.path
        try:
            if _digest(file, entry, progress) != entry.sha256:
                yield Fault(file, "its content differs from the manifest (SHA-256)")
        except OSError as error:
            yield Fault(file, f"cannot be read ({error})")


def unlisted(manifest: Manifest) -> list[str]:
    """Return the files, relative to the root, that lie in the manifest's folders unmentioned."""
    known = {entry.path for entry in manifest.entries}
    folders = sorted({path.split("/")[0] for path in known if "/" in path})
    there: list[str] = []
    for folder in folders:
        there += files_below(manifest.root / folder, manifest.root)
    return [path for path in there if path not in known]


def files_below(folder: Path, root: Path) -> list[str]:
    """Return the regular files below `folder` relative to `root`, without hidden ones, sorted.

    Raises:
        ModelFilesError: a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise paths.unreadable(Path(error.filename), error, ModelFilesError)

    files = []
    for where, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            file = Path(where, name)
            if not name.startswith(".") and paths.is_file(file, ModelFilesError):
                files.append(file.relative_to(root).as_posix())
    return sorted(files)


def write_manifest(file: Path, folders: Iterable[Path], progress: Progress | None = None) -> None:
    """Write a manifest of all files below `folders`, at once and whole.

    Args:
        file: the manifest; the folders lie in its directory, or are that directory.
        folders: what it describes.
        progress: told about the hashing.

    Raises:
        ModelFilesError: a folder is missing or lies elsewhere, or a name cannot be written down.
        StorageError: the manifest cannot be written.
    """
    root, lines, count = file.parent, [FIRST_LINE], 0
    top = paths.resolved(root, ModelFilesError)
    for folder in folders:
        place = paths.resolved(folder, ModelFilesError)
        if not paths.is_dir(folder, ModelFilesError) or not place.is_relative_to(top):
            raise ModelFilesError(f"{folder}: must be a directory below {root}, as the manifest is")
        for path in files_below(folder, folder):
            name = (place.relative_to(top) / path).as_posix()
            if name == file.name:
                continue
            if "\\" in name or any(not character.isprintable() for character in name):
                raise ModelFilesError(f"{name!r}: such a name cannot be written into a manifest")
            try:
                size = (root / name).stat().st_size
                digest = _digest(root / name, Entry(name, "", size), progress)
            except OSError as error:
                raise paths.unreadable(root / name, error, ModelFilesError) from error
            lines += [f"# size {size} {name}", f"{digest}  {name}"]
            count += 1
    lines.append(f"# end {count} files")
    write_durably(file, ("\n".join(lines) + "\n").encode())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `write DIR FILE` or `check FILE`; return the exit code."""
    match list(sys.argv[1:] if arguments is None else arguments):
        case ["write", folder, file]:
            write_manifest(Path(file), [Path(folder)])
            return 0
        case ["check", file]:
            faults = list(check_manifest(read_manifest(Path(file))))
            for fault in faults:
                print(f"{fault.file}: {fault.what}")
            return ModelFilesError.exit_code if faults else 0
    print(
        "usage: python -m npc_local.core.files.manifest write DIR FILE | check FILE",
        file=sys.stderr,
    )
    return 2


def _inside(path: str, file: Path) -> str:
    """Return a path of the manifest, or refuse one that leads out of its directory."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\\" in path:
        raise ModelFilesError(f"{file}: {path!r} leads out of the manifest's directory")
    return path


def _digest(file: Path, entry: Entry, progress: Progress | None) -> str:
    """Hash one file, telling how far it is."""
    digest, done = hashlib.sha256(), 0
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
            done += len(block)
            if progress is not None:
                progress(entry.path, done, entry.size)
    return digest.hexdigest()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NpcError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
