"""What goes into a journal comes out of it, exactly, and only into a directory that is its own."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import math
import sqlite3
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from npc_local.core.costs import Cost
from npc_local.core.errors import ConfigError, NpcError, StorageError
from npc_local.core.records import (
    Candidate,
    Caption,
    Checklist,
    Claim,
    Demand,
    Negative,
    Proposal,
    Rejected,
    Render,
    Verdict,
)
from npc_local.run.journal.codecs import Unreadable, codec_of
from npc_local.run.journal.journal import Failure, Journal, Row

# ---------------------------------------------------------------- records and their form

NUMBER = st.floats(allow_nan=False, allow_infinity=False)
KIND = st.sampled_from(["object", "count", "colour", "relation", "size", "style", "other"])
CLAIM = st.builds(Claim, st.text(), st.booleans(), KIND)
NEGATIVE = st.builds(
    Negative, st.text(), st.sampled_from(["targeted", "untargeted"]), st.booleans()
)
RECORDS = st.one_of(
    st.tuples(
        st.just(Verdict),
        st.builds(
            Verdict,
            st.booleans(),
            NUMBER,
            st.text(),
            st.lists(CLAIM).map(tuple),
            st.none() | NUMBER,
        ),
    ),
    st.tuples(st.just(Caption), st.builds(Caption, st.text(), st.lists(st.text()).map(tuple))),
    st.tuples(
        st.just(Proposal),
        st.builds(
            Proposal,
            st.lists(NEGATIVE).map(tuple),
            st.lists(st.builds(Rejected, st.text(), st.text())).map(tuple),
        ),
    ),
    st.tuples(
        st.just(tuple[Candidate, ...]),
        st.lists(st.builds(Candidate, NEGATIVE, NUMBER)).map(tuple),
    ),
    st.tuples(
        st.just(Checklist),
        st.builds(Checklist, st.lists(st.builds(Demand, st.text(), KIND)).map(tuple)),
    ),
    st.tuples(
        st.just(Render),
        st.builds(
            Render,
            st.just(Image.new("RGB", (2, 2))),
            st.integers(0, 2**53),
            NUMBER,
            st.lists(st.text()).map(tuple),
        ),
    ),
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with Journal.open(tmp_path_factory.mktemp("shared") / "run", {}) as journal:
        journal._database.execute("PRAGMA synchronous = OFF")
        yield journal


@given(RECORDS)
def test_every_record_comes_back_exactly(shared, pair):
    shape, record = pair
    form = codec_of(shape)
    data, image = form.apart(record)
    shared.add(Row("verify", "k", data, data), None)
    found = shared.find("verify", "k")
    assert form.together(found.value, image) == record
    assert repr(form.together(found.value, image)) == repr(record)
    assert found.inputs == data


@pytest.mark.parametrize(
    ("shape", "data", "image"),
    [
        (Verdict, {"correct": True}, None),
        (Verdict, [], None),
        (Render, {"forwards": 1, "seconds": 0.0, "fallbacks": []}, None),
        (Caption, {"text": None, "flags": []}, None),
    ],
)
def test_data_of_another_shape_is_not_made_to_fit(shape, data, image):
    with pytest.raises(Unreadable):
        codec_of(shape).together(data, image)


# ---------------------------------------------------------------- rows


@pytest.fixture
def journal(tmp_path):
    with Journal.open(tmp_path / "run", {}) as journal:
        yield journal


COST = Cost(forwards=3, calls=2, tokens_in=10, tokens_out=4, seconds=0.5, peak_bytes=100)


def test_a_row_comes_back_with_its_image_also_in_another_process(tmp_path):
    image = Image.effect_noise((16, 16), 90).convert("RGB")
    row = Row("generate", "k", {"shot": 1}, {"forwards": 3}, COST)
    with Journal.open(tmp_path / "run", {}) as journal:
        assert journal.find("generate", "k") is None
        journal.add(row, image)
        assert journal.find("verify", "k") is None
    with Journal.open(tmp_path / "run", {}) as journal:
        found = journal.find("generate", "k")
        assert found.image.tobytes() == image.tobytes()
        sha256 = hashlib.sha256(journal.image_path(row).read_bytes()).hexdigest()
        assert found.image_sha256 == sha256
        assert dataclasses.replace(found, image=None, image_sha256=None) == row
        [listed] = journal.rows()
        assert (listed.image, listed.image_sha256) == (None, sha256)


def test_rows_come_in_order_and_by_kind(journal):
    for number in range(450):  # more than two pages
        journal.add(Row("verify" if number % 3 else "caption", f"k{number}", {}, number))
    assert [row.value for row in journal.rows()] == list(range(450))
    assert [row.value for row in journal.rows("caption")] == list(range(0, 450, 3))
    assert list(journal.rows("rank")) == []


def test_rows_may_be_added_while_they_are_read(journal):
    for number in range(250):
        journal.add(Row("verify", f"k{number}", {}, number))
    seen = []
    for row in journal.rows():
        if not seen:
            journal.add(Row("verify", "late", {}, "late"))
        seen.append(row.value)
    assert seen == [*range(250), "late"]


def test_a_step_done_again_replaces_its_row_but_not_its_cost(journal):
    for value in ("first", "second"):
        journal.add(Row("verify", "k", {}, value, COST))
    assert journal.find("verify", "k").value == "second"
    assert [row.value for row in journal.rows()] == ["second"]
    ledger = journal.costs()["verify"]
    assert (ledger.steps, ledger.cost.tokens_in, ledger.cost.seconds) == (2, 20, 1.0)
    assert ledger.cost.peak_bytes == 100


def test_a_dropped_row_is_told_and_counts_no_more(journal):
    journal.add(Row("verify", "k" * 64, {}, 1))
    journal.drop("verify", "k" * 64, "it is no good")
    assert journal.find("verify", "k" * 64) is None
    assert list(journal.rows()) == []
    assert journal.notices == ["verify kkkkkkkkkkkk: it is no good; done again"]


def test_failures_are_never_found(journal):
    failure = Failure("verify", "k", {"prompt": "x"}, "server on fire", 4, COST)
    journal.add_failure(failure)
    assert journal.find("verify", "k") is None
    assert list(journal.failures()) == [failure]
    assert list(journal.failures(remaining=True)) == [failure]
    journal.add(Row("caption", "k", {}, 1))  # another step of the same key
    assert list(journal.failures(remaining=True)) == [failure]
    journal.add(Row("verify", "k", {}, 1))
    assert list(journal.failures(remaining=True)) == []
    assert list(journal.failures("caption")) == []
    assert journal.costs()["verify"].failures == 1
    assert journal.costs()["verify"].cost.tokens_in == 10


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused(journal, bad):
    with pytest.raises(NpcError, match="verify: an answer that cannot be kept"):
        journal.add(Row("verify", "k", {}, {"score": bad}))
    assert journal.find("verify", "k") is None


def test_looking_at_a_damaged_row_changes_nothing_and_taking_it_drops_it(journal):
    row = Row("generate", "k", {}, {})
    journal.add(row, Image.new("RGB", (2, 2)))
    journal.image_path(row).write_bytes(b"damaged")
    for _ in range(2):
        assert journal.find("generate", "k") is None
        assert len(list(journal.rows())) == 1
        assert journal.image_path(row).exists()
    assert journal.notices == []
    assert journal.take("generate", "k") is None
    assert list(journal.rows()) == []
    assert not journal.image_path(row).exists()
    assert "has changed (SHA-256); done again" in journal.notices[0]


def test_the_event_loop_goes_on_while_a_row_is_written(journal, monkeypatch):
    async def scenario():
        ticks, go_on = 0, threading.Event()
        monkeypatch.setattr(journal, "add", lambda row: go_on.wait(10))
        writing = asyncio.create_task(journal.aside(lambda: journal.add(None)))
        for _ in range(100):
            await asyncio.sleep(0)
            ticks += 1
        assert not writing.done()
        go_on.set()
        assert await writing
        return ticks

    assert asyncio.run(scenario()) == 100


def test_work_given_to_its_thread_is_done_although_the_loop_is_gone(tmp_path, caplog):
    async def scenario(journal):
        journal._thread.submit(go_on.wait, 10)
        adding = journal.aside(lambda: journal.add(Row("verify", "k", {}, 1)))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(adding, 0.01)

    go_on = threading.Event()
    with Journal.open(tmp_path / "run", {}) as journal:
        asyncio.run(scenario(journal))
        go_on.set()
    with Journal.open(tmp_path / "run", {}) as journal:
        assert journal.find("verify", "k").value == 1
    assert caplog.records == []


# ---------------------------------------------------------------- the directory


def test_the_identity_is_there_for_people(tmp_path):
    with Journal.open(tmp_path / "run", {"generator": {"steps": 20}}):
        pass
    text = (tmp_path / "run" / "identity.json").read_text()
    assert json.loads(text) == {"generator": {"steps": 20}}
    (tmp_path / "run" / "identity.json").write_text("{}")  # the database knows better
    with Journal.open(tmp_path / "run", {"generator": {"steps": 20}}):
        pass
    assert (tmp_path / "run" / "identity.json").read_text() == text


def test_a_directory_of_something_else_is_refused_and_left_alone(tmp_path):
    for make in (
        lambda: (tmp_path / "run" / "thesis.tex").write_text("x"),
        lambda: (tmp_path / "run" / "01-abcd").mkdir(),
    ):
        (tmp_path / "run").mkdir(exist_ok=True)
        make()
        with pytest.raises(StorageError, match="run: holds something else"):
            Journal.open(tmp_path / "run", {})
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["01-abcd", "thesis.tex"]
    file, link = tmp_path / "file", tmp_path / "link"
    file.touch()
    link.symlink_to(tmp_path)
    for path, why in ((file, "a file"), (link, "a symbolic link")):
        with pytest.raises(StorageError, match=f"{path.name}: {why}"):
            Journal.open(path, {})


def test_logs_may_be_there_before_it(tmp_path):
    (tmp_path / "run" / "logs").mkdir(parents=True)
    with Journal.open(tmp_path / "run", {}) as journal:
        (journal.directory / "01-abcd").mkdir()  # and what a run makes is its own
    with Journal.open(tmp_path / "run", {}) as journal:
        assert journal.notices == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("PRAGMA application_id = 7", "no journal of npc-local"),
        ("PRAGMA user_version = 2", "format 2, this one has 1"),
    ],
)
def test_a_database_of_another_program_or_version_is_left_alone(tmp_path, change, message):
    with Journal.open(tmp_path / "run", {}):
        pass
    file = tmp_path / "run" / "journal.sqlite"
    database = sqlite3.connect(file)
    database.execute(change)
    database.close()
    before = file.read_bytes()
    with pytest.raises(StorageError, match=message):
        Journal.open(tmp_path / "run", {})
    assert file.read_bytes() == before


def test_values_of_every_json_type_differ_or_not(tmp_path):
    with Journal.open(tmp_path / "run", {"a": {"b": [1, None]}, "c": {}}):
        pass
    for other in ({"a": {"b": [1, 0]}, "c": {}}, {"a": {"b": [1, None]}, "c": {"d": None}}):
        with pytest.raises(ConfigError):
            Journal.open(tmp_path / "run", other)
    with Journal.open(tmp_path / "run", {"c": {}, "a": {"b": (1, None)}}):
        pass
