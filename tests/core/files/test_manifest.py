"""The manifest: what is written can be checked, by us and by sha256sum; nothing wrong passes."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from npc_local.core.errors import ModelFilesError, StorageError
from npc_local.core.files import manifest
from npc_local.core.files.manifest import check_manifest, read_manifest, unlisted, write_manifest


@pytest.fixture
def made(tmp_path):
    """A directory with two models and their manifest."""
    for name, content in {
        "a/config.json": b"{}",
        "a/x y.txt": b"text",
        "b/w.safetensors": b"w" * 9,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "a" / ".cache").mkdir()
    (tmp_path / "a" / ".cache" / "lock").write_text("")
    write_manifest(tmp_path / "all.sha256", [tmp_path / "a", tmp_path / "b"])
    return tmp_path / "all.sha256"


def faults(file):
    return {
        (fault.file.relative_to(file.parent).as_posix(), fault.what)
        for fault in check_manifest(read_manifest(file))
    }


def test_what_was_written_is_whole(made):
    found = read_manifest(made)
    assert [(entry.path, entry.size) for entry in found.entries] == [
        ("a/config.json", 2),
        ("a/x y.txt", 4),
        ("b/w.safetensors", 9),
    ]
    assert faults(made) == set()
    assert unlisted(found) == []
    assert sorted(path.name for path in made.parent.iterdir()) == ["a", "all.sha256", "b"]


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum")
def test_sha256sum_reads_it(made):
    command = ["sha256sum", "--check", "--strict", made.name]
    run = subprocess.run(command, cwd=made.parent, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count(": OK") == 3


def test_each_difference_is_named_and_sizes_come_first(made):
    root = made.parent
    (root / "a" / "config.json").write_bytes(b"[]")  # as long
    (root / "a" / "x y.txt").unlink()
    (root / "b" / "w.safetensors").write_bytes(b"w" * 8)
    (root / "b" / "stray.py").write_text("")
    found = [fault.what for fault in check_manifest(read_manifest(made))]
    assert found == [
        "missing",
        "8 bytes where the manifest says 9",
        "its content differs from the manifest (SHA-256)",
    ]
    assert unlisted(read_manifest(made)) == ["b/stray.py"]


def test_progress_is_told(made):
    messages = []
    list(check_manifest(read_manifest(made), lambda *step: messages.append(step)))
    assert ("b/w.safetensors", 9, 9) in messages


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2].rsplit("\n", 1)[0], "cut short"),
        (lambda text: text.replace("# npc-local", "# other"), "no manifest of npc-local"),
        (lambda text: text.replace("  a/config.json", "  ../config.json"), "leads out"),
        (lambda text: text.replace("  a/config.json", "  /etc/passwd"), "leads out"),
        (lambda text: text.replace("# size 2 a/config.json\n", ""), "cut short"),
        (lambda text: text.replace("  b/w", " b-w", 1), "damaged"),
        (lambda text: "", "no manifest of npc-local"),
    ],
)
def test_a_damaged_manifest_is_refused(made, change, message):
    made.write_text(change(made.read_text()))
    with pytest.raises(ModelFilesError, match=message):
        read_manifest(made)


def test_a_missing_one_hints_at_an_unfinished_download(tmp_path):
    with pytest.raises(ModelFilesError, match="written last"):
        read_manifest(tmp_path / "none.sha256")


def test_folders_elsewhere_and_odd_names_are_refused(made):
    with pytest.raises(ModelFilesError, match="below"):
        write_manifest(made.parent / "a" / "m.sha256", [made.parent / "b"])
    (made.parent / "a" / "two\nlines").write_text("")
    with pytest.raises(ModelFilesError, match="cannot be written into a manifest"):
        write_manifest(made, [made.parent / "a"])


def test_a_full_disk_leaves_the_old_one_and_nothing_else(made, monkeypatch):
    before = made.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(manifest.os, "replace", full)
    with pytest.raises(StorageError, match="No space left"):
        write_manifest(made, [made.parent / "a"])
    assert made.read_bytes() == before
    assert sorted(path.name for path in made.parent.iterdir()) == ["a", "all.sha256", "b"]


def test_the_module_writes_and_checks(made, capsys):
    assert manifest.main(["write", str(made.parent), str(made)]) == 0
    assert manifest.main(["check", str(made)]) == 0
    (made.parent / "a" / "config.json").write_bytes(b"")
    assert manifest.main(["check", str(made)]) == 5
    assert "config.json: 0 bytes" in capsys.readouterr().out
    assert manifest.main(["nothing"]) == 2
