"""What a run opens, in which order, and what it tells however it ends."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from npc_local.core.config.load import load_config
from npc_local.core.errors import BackendError, StorageError
from npc_local.core.records import Shot
from npc_local.run.journal.lock import RunLock
from npc_local.run.session import open_session
from tests.run.journal.world import Log, cast_of

SHOT = Shot("two red circles", None, 7)


@pytest.fixture
def profile():
    return load_config(None).profile("shapes")


def opening(tmp_path, opened=None):
    """Return what opens a world without models, noting each time in `opened`."""

    @asynccontextmanager
    async def open_components(profile, **asked):
        if opened is not None:
            opened.append(asked)
        yield cast_of(Log(tmp_path / "calls"))

    return open_components


def run(profile, tmp_path, work, statuses=None, opened=None):
    async def scenario():
        async with open_session(
            profile,
            journal=tmp_path / "run",
            open_components=opening(tmp_path, opened),
            on_status=(lambda line: None) if statuses is None else statuses.append,
        ) as stages:
            return await work(stages)

    return asyncio.run(scenario())


async def nothing(stages):
    """Do nothing."""


ENDS = {
    "well": None,
    "an error": BackendError("server on fire"),
    "a bug": ZeroDivisionError("oops"),
    "cancelled": asyncio.CancelledError(),
    "interrupted": KeyboardInterrupt(),
}


@pytest.mark.parametrize("how", ENDS)
def test_damage_is_told_at_once_and_what_shows_later_however_the_run_ends(profile, tmp_path, how):
    run(profile, tmp_path, lambda stages: stages.generate(SHOT))
    (tmp_path / "run/journal.sqlite").write_bytes(b"no database " * 100)
    statuses, at_work = [], []

    async def work(stages):
        at_work.extend(statuses)
        await stages.generate(SHOT)
        [image] = (tmp_path / "run/images").iterdir()
        image.write_bytes(b"damaged")
        await stages.generate(SHOT)
        if ENDS[how] is not None:
            raise ENDS[how]

    def ended():
        run(profile, tmp_path, work, statuses)

    if how == "well":
        ended()
    else:
        with pytest.raises(type(ENDS[how])):
            ended()
    told = [line for line in statuses if "done again" in line]
    assert ["journal.sqlite: damaged" in line for line in told] == [True, False]
    assert "generate" in told[1]
    assert told[0] in at_work
    assert told[1] not in at_work


def test_a_run_that_is_under_way_elsewhere_is_refused_before_anything_opens(profile, tmp_path):
    run(profile, tmp_path, nothing)
    opened = []
    lock = RunLock(tmp_path / "run")
    try:
        with pytest.raises(StorageError, match="in use by process"):
            run(profile, tmp_path, nothing, opened=opened)
    finally:
        lock.release()
    assert opened == []


def test_the_journal_is_given_up_after_a_failure(profile, tmp_path):
    async def fails(stages):
        raise BackendError("server on fire")

    with pytest.raises(BackendError):
        run(profile, tmp_path, fails)
    run(profile, tmp_path, nothing)
    RunLock(tmp_path / "run").release()


def test_without_a_journal_no_file_is_read_or_written(profile, tmp_path):
    opened = []

    async def scenario():
        async with open_session(
            profile,
            open_components=opening(tmp_path, opened),
            on_status=lambda line: pytest.fail(line),
        ) as stages:
            await stages.generate(SHOT)

    asyncio.run(scenario())
    assert [asked["logs"] for asked in opened] == [None]
    assert [path.name for path in tmp_path.iterdir()] == ["calls"]


def test_the_identity_says_also_what_the_caller_wants_the_same(profile, tmp_path):
    async def scenario(seed):
        async with open_session(
            profile,
            journal=tmp_path / "run",
            same={"seed": seed},
            open_components=opening(tmp_path),
            on_status=lambda line: None,
        ):
            pass

    asyncio.run(scenario(1))
    with pytest.raises(Exception, match="seed: 1 there, 2 now"):
        asyncio.run(scenario(2))
