"""Opens what a command with prompts needs: the cast of a profile, its journal, and the steps."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from npc_local.core.config.load import ResolvedProfile
from npc_local.core.errors import GeneratorError
from npc_local.run.journal import lock as runlock
from npc_local.run.journal.journal import Journal
from npc_local.run.journal.lock import RunLock
from npc_local.run.stages import Stages


def is_run(directory: Path) -> bool:
    """Whether a run with a journal has begun in a directory."""
    return (directory / runlock.NAME).exists()


@asynccontextmanager
async def open_session(
    profile: ResolvedProfile,
    *,
    logs: Path,
    journal: Path | None = None,
    same: Mapping[str, Any] | None = None,
    agents: int = 1,
    judge: str | None = None,
    open_journal: Callable[[Path, Mapping[str, Any]], Journal] = Journal.open,
    on_status: Callable[[str], None],
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> AsyncIterator[Stages]:
    """Open a profile for a run of many steps, and leave without waiting for an image.

    Args:
        profile: who plays.
        logs: directory for what servers say.
        journal: the directory whose journal keeps the steps; None keeps none.
        same: what else, beside the settings, must be the same whenever that run goes on.
        agents: steps of agents at once.
        judge: which of the profile's backends judges results, if one does.
        open_journal: opens the journal.
        on_status: is told what is waited for.
        on_step: called in the generator's thread after each denoising step, with (steps done,
            steps in all).

    Raises:
        NpcError: of any kind; nothing has been made then.
    """
    # Looked up late, so that what a profile opens can be replaced.
    from npc_local.run import factory as factory
    from npc_local.run.identity import run_identity

    over = threading.Event()

    def checked(done: int, total: int) -> None:
        # The generator's thread outlives a Ctrl-C: without this, leaving waits for its image.
        if over.is_set():
            raise GeneratorError("interrupted")
        on_step(done, total)

    if journal is not None and is_run(journal):
        RunLock(journal).release()  # before a server takes the GPU from the run that holds it
    async with AsyncExitStack() as stack:
        components = await stack.enter_async_context(
            factory.open_components(profile, logs=logs, judge=judge, on_status=on_status)
        )
        kept = None
        if journal is not None:
            on_status(
                "reading the models' files, to tell whether they are the same when this goes on"
            )
            identity = await asyncio.to_thread(run_identity, profile, components)
            kept = stack.enter_context(open_journal(journal, {**identity, **(same or {})}))
        stack.callback(over.set)
        yield Stages(components, kept, agents=agents, on_step=checked)
        for notice in [] if kept is None else kept.notices:
            on_status(notice)
