"""Opens what a run needs, in order: the profile's components, the journal, and the stages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from pathlib import Path
from typing import Any, Protocol

from npc_local.core.config.load import ResolvedProfile
from npc_local.core.errors import StorageError
from npc_local.core.files import paths
from npc_local.run.components import Components
from npc_local.run.factory import open_components
from npc_local.run.identity import run_identity, settings_identity
from npc_local.run.journal import lock as runlock
from npc_local.run.journal.home import check_settings, prepare
from npc_local.run.journal.journal import Journal
from npc_local.run.journal.lock import RunLock
from npc_local.run.prompt_file import PromptReader
from npc_local.run.stages import Stages


def is_run(directory: Path) -> bool:
    """Whether a run with a journal has begun in a directory.

    Raises:
        StorageError: it cannot be looked at.
    """
    return paths.exists(directory / runlock.NAME, StorageError)


class OpenComponents(Protocol):
    """Opens a profile; `factory.open_components` is one, and tests have their own."""

    def __call__(
        self,
        profile: ResolvedProfile,
        *,
        logs: Path | None,
        judge: str | None,
        on_status: Callable[[str], None],
        admit: Callable[[Sequence[PromptReader]], None],
    ) -> AbstractAsyncContextManager[Components]:
        """Return the components, open while inside."""
        ...


@asynccontextmanager
async def open_session(
    profile: ResolvedProfile,
    *,
    logs: Path | None = None,
    journal: Path | None = None,
    same: Mapping[str, Any] | None = None,
    agents: int = 1,
    judge: str | None = None,
    open_components: OpenComponents = open_components,
    open_journal: Callable[[Path, Mapping[str, Any]], Journal] = Journal.open,
    on_status: Callable[[str], None],
    admit: Callable[[Sequence[PromptReader]], None] = lambda readers: None,
    on_step: Callable[[int, int], None] | None = None,
) -> AsyncIterator[Stages]:
    """Open a profile for a run of many stages.

    Args:
        profile: who does the work.
        logs: directory for what servers say; None: nowhere.
        journal: the directory whose journal keeps what is done; None keeps nothing.
        same: what else, beside the settings, must be the same whenever that run goes on.
        agents: stages of agents at once.
        judge: which of the profile's backends judges results, if one does.
        open_components: opens the profile.
        open_journal: opens the journal.
        on_status: is told what is waited for, and what of the journal is damaged, however the run
            ends.
        admit: is given who reads the prompts, before any server starts, and may refuse them.
        on_step: called in the generator's thread after each denoising step, with (steps done,
            steps in all).

    Raises:
        NpcError: of any kind; nothing has been made then.
    """
    async with AsyncExitStack() as stack:
        if journal is not None:  # before a server takes the GPU from the run that holds it
            stack.enter_context(_home(journal, settings_identity(profile) | dict(same or {})))
        components = await stack.enter_async_context(
            open_components(profile, logs=logs, judge=judge, on_status=on_status, admit=admit)
        )
        opened = None
        if journal is not None:
            on_status(
                "reading the models' files, to tell whether they are the same when this goes on"
            )
            identity = await asyncio.to_thread(run_identity, profile, components)
            opened = stack.enter_context(open_journal(journal, {**identity, **(same or {})}))
            stack.enter_context(_noticed(opened, on_status))
        yield Stages(components, opened, agents=agents, on_step=on_step)


@contextmanager
def _home(directory: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Make sure that a run can go on or begin in a directory, which goes again if nothing comes.

    Raises:
        ConfigError: the run there has other settings.
        StorageError: it is in use, holds something else, or cannot be written to.
    """
    directory = paths.absolute(directory)
    new = prepare(directory)
    try:
        if is_run(directory):
            RunLock(directory).release()
        check_settings(directory, settings)
        yield
    finally:
        if new:
            with suppress(OSError):  # not empty: something came
                directory.rmdir()


@contextmanager
def _noticed(journal: Journal, on_status: Callable[[str], None]) -> Iterator[None]:
    """Tell what a journal has found damaged: now, and in the end what has come to light since."""
    told = len(journal.notices)
    for notice in journal.notices:
        on_status(notice)
    try:
        yield
    finally:
        for notice in journal.notices[told:]:
            on_status(notice)
