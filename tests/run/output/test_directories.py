"""Where results go: nothing of anyone's is taken, nothing of a prompt is in a path."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_local.core.errors import StorageError
from npc_local.run.output import directories
from npc_local.run.output.directories import folder_name, output_directory, run_directory
from tests.cli.test_main import ROOT


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_name_holds_nothing_of_the_prompt():
    name = folder_name(3, "../../x")
    assert name.startswith("03-")
    assert set(name[3:]) <= set("0123456789abcdef")
    assert name != folder_name(3, "../../y")


def test_the_default_directory_is_fresh_and_goes_if_nothing_comes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with output_directory(None) as first, output_directory(None) as second:
        assert first != second
        assert first.parent == second.parent == tmp_path / "npc-local-runs"
        (second / "image.png").touch()
    assert not first.exists()
    assert names(second) == ["image.png"]


def test_an_empty_directory_is_taken_and_stays(tmp_path):
    with output_directory(tmp_path) as path:
        assert path == tmp_path
        assert names(path) == []
    assert tmp_path.is_dir()


def test_a_relative_directory_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with output_directory(Path("a/b")) as path:
        assert path == tmp_path / "a" / "b"


def test_logs_alone_are_no_results(tmp_path):
    (tmp_path / "logs").mkdir()
    with output_directory(tmp_path) as path:
        assert names(path) == ["logs"]
    (tmp_path / "journal").mkdir()
    assert "not empty" in refused(tmp_path)


def refused(path):
    with pytest.raises(StorageError) as caught, output_directory(path):
        pass
    return str(caught.value)


def test_results_of_someone_are_never_overwritten(tmp_path):
    (tmp_path / "image.png").write_text("mine")
    assert refused(tmp_path) == f"{tmp_path}: not empty; name a new directory, or empty this one"
    assert (tmp_path / "image.png").read_text() == "mine"


def test_a_file_or_a_link_is_no_directory(tmp_path):
    file, link, target = tmp_path / "file", tmp_path / "link", tmp_path / "target"
    file.touch()
    target.mkdir()
    link.symlink_to(target)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert "a file; name a directory" in refused(file)
    assert "cannot be written: Not a directory" in refused(file / "below")
    assert "a symbolic link" in refused(link)
    assert "a symbolic link" in refused(tmp_path / "dangling")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    assert "Permission denied" in refused(tmp_path)
    assert "Permission denied" in refused(tmp_path / "below")


def test_a_directory_that_takes_no_file_is_refused(tmp_path, monkeypatch):
    def read_only(**_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(directories.tempfile, "TemporaryFile", read_only)
    assert refused(tmp_path) == f"{tmp_path}: cannot be written: Read-only file system"


@given(st.text(), st.text(max_size=300))
def test_an_id_is_in_a_folder_s_name_as_far_as_it_is_harmless(prompt, own):
    name = folder_name(7, prompt, 5, own)
    assert name.startswith(folder_name(7, prompt, 5))
    assert set(name) <= set("-._0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert len(name) <= 60
    assert not name.endswith((".", "-"))


def test_an_id_that_is_a_plain_word_stays_as_it_is():
    assert folder_name(7, "x", 5, "cat_1.b").endswith("-cat_1.b")
    assert folder_name(7, "x", 5, "../a b/é") == folder_name(7, "x", 5) + "-a-b"
    assert folder_name(7, "x", 5, "é") == folder_name(7, "x", 5, None)


# ---------------------------------------------------------------- fresh


def test_a_run_goes_on_in_its_directory_unless_it_is_to_be_fresh(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "journal.lock").touch()
    with run_directory(tmp_path / "out", fresh=False) as path:
        assert path == tmp_path / "out"
    with run_directory(tmp_path / "out", fresh=True) as path:
        assert path == tmp_path / "out-2"
        (path / "journal.lock").touch()
    with run_directory(tmp_path / "out", fresh=True) as path:
        assert path == tmp_path / "out-3"
    assert names(tmp_path) == ["out", "out-2"]  # nothing came to be in the third


def test_two_that_are_fresh_at_once_get_a_directory_each(tmp_path):
    with (
        run_directory(tmp_path / "out", fresh=True) as first,
        run_directory(tmp_path / "out", fresh=True) as second,
    ):
        code = (
            "import sys; from pathlib import Path\n"
            "from npc_local.run.output.directories import run_directory\n"
            "with run_directory(Path(sys.argv[1]), fresh=True) as path: print(path.name)"
        )
        other = subprocess.run(
            [sys.executable, "-c", code, tmp_path / "out"],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert [first.name, second.name, other.stdout] == ["out", "out-2", "out-3\n"]
    assert names(tmp_path) == []


def test_a_file_system_without_such_locks_is_no_obstacle(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(directories.fcntl, "flock", refuse)
    with run_directory(tmp_path / "out", fresh=True) as path:
        assert path == tmp_path / "out"


def test_a_place_where_nothing_can_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(StorageError, match="cannot be"),
        run_directory(tmp_path / "file" / "out", fresh=True),
    ):
        pass
