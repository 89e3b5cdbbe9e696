"""A journal in which a step that failed stays failed until it is asked to try again.

Several arms need the same steps, and a run goes on many times: without this, an agent that cannot
answer one question would be asked it, and waited for, each time.
What `stages` keeps as a failure is the stage's own: a lost GPU, for example, settles nothing.
"""

from __future__ import annotations

from npc_local.core.errors import NpcError
from npc_local.run.journal.journal import Failure, Journal, Row


class SettledJournal(Journal):
    """A `Journal` whose `take` raises what a step failed with before, in this run or an earlier."""

    _failed: dict[str, Failure] | None = None  # by key, which is of one kind only

    def retry_errors(self) -> None:
        """Have steps that failed earlier tried once more."""
        self._failed = {}

    def take(self, kind: str, key: str) -> Row | None:
        """Return the row of a step, if there is one that holds up.

        Raises:
            NpcError: the step failed before, with the message and exit code that it had.
            StorageError: the journal cannot be read.
        """
        row = super().take(kind, key)
        if row is None and (failure := self._known().get(key)) is not None:
            error = NpcError(failure.error)
            error.exit_code = failure.exit_code
            raise error
        return row

    def add_failure(self, failure: Failure) -> None:
        """Keep that a step failed, and that it is not to be tried again.

        Raises:
            StorageError: it cannot be written.
        """
        super().add_failure(failure)
        self._known()[failure.key] = failure

    def _known(self) -> dict[str, Failure]:
        if self._failed is None:
            self._failed = {failure.key: failure for failure in self.failures(remaining=True)}
        return self._failed
