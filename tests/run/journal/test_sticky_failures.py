"""A stage that failed stays failed until it is retried."""

from __future__ import annotations

import pytest

from npc_local.core.errors import BackendError, NpcError
from npc_local.run.journal.journal import Failure, Row
from npc_local.run.journal.sticky_failures import SettledJournal

IDENTITY = {"world": 1}
FAILED = Failure("verify", "a", {}, "server on fire", BackendError.exit_code)


def opened(directory):
    return SettledJournal.open(directory, IDENTITY)


def raises(journal):
    with pytest.raises(NpcError, match="server on fire") as caught:
        journal.take("verify", "a")
    return caught.value.exit_code == BackendError.exit_code


def test_what_failed_is_raised_again_now_and_in_the_next_run(tmp_path):
    with opened(tmp_path) as journal:
        assert journal.take("verify", "a") is None
        journal.add_failure(FAILED)
        assert raises(journal)
    with opened(tmp_path) as journal:
        assert raises(journal)
        assert journal.take("verify", "other") is None


def test_retried_it_is_looked_up_like_any_other_and_fails_at_most_once_more(tmp_path):
    with opened(tmp_path) as journal:
        journal.add_failure(FAILED)
    with opened(tmp_path) as journal:
        journal.retry_errors()
        assert journal.take("verify", "a") is None
        journal.add_failure(FAILED)
        assert raises(journal)


def test_done_since_it_is_an_answer(tmp_path):
    with opened(tmp_path) as journal:
        journal.add_failure(FAILED)
        journal.add(Row("verify", "a", {}, {"correct": True}))
        assert journal.take("verify", "a").value == {"correct": True}
    with opened(tmp_path) as journal:
        assert journal.take("verify", "a").value == {"correct": True}
