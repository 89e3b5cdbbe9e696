"""What of a server's log is looked at, and which logs stay."""

from __future__ import annotations

from npc_local.backends.vllm.server_log import ServerLog


def test_what_was_there_before_a_start_is_not_looked_at(tmp_path):
    path = tmp_path / "logs" / "qwen.log"
    log = ServerLog("qwen", path)
    log.open().write_text("an earlier run\n")
    log.open()
    with path.open("a") as file:
        file.write("one\n\n  two\n")
    assert list(log.lines()) == ["one", "  two"]
    log.skip()
    assert list(log.lines()) == log.tail() == []


def test_the_tail_is_short_however_long_the_log(tmp_path):
    log = ServerLog("qwen", tmp_path / "log")
    log.open().write_text("\n".join(f"line {number}" for number in range(10_000)))
    assert log.tail() == [f"line {number}" for number in range(9985, 10_000)]
    assert len(list(log.lines())) == 10_000


def test_bytes_that_are_no_text_are_shown_all_the_same(tmp_path):
    log = ServerLog("qwen", tmp_path / "log")
    log.open().write_bytes(b"caf\xe9 broke\n")
    assert list(log.lines()) == ["caf\N{REPLACEMENT CHARACTER} broke"]


def test_a_temporary_log_goes_unless_somebody_was_shown_it(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    log = ServerLog("q/w", None)
    assert log.tail() == []
    path = log.open()
    assert path.name.startswith("npc-local-q-w-")
    log.discard()
    assert not path.exists()
    path = log.open()
    log.kept = True
    log.discard()
    assert path.exists()


def test_a_log_of_the_user_s_stays(tmp_path):
    log = ServerLog("qwen", tmp_path / "log")
    log.open().write_text("x")
    log.discard()
    assert (tmp_path / "log").read_text() == "x"
