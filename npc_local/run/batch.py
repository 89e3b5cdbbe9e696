"""`npc-local run --prompts FILE`: many prompts on one set of models, a folder each, resumable.

How prompts share the models is left to `pool` and `stages`, which folder is whose to
`prompt_folders`, what one holds to `result_folder`, and what survives a crash to `journal` and
`supervisor`.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from npc_local.core.config.load import ResolvedProfile
from npc_local.core.errors import ConfigError, NpcError, StorageError
from npc_local.core.records import Correction, Status
from npc_local.core.terminal import Progress
from npc_local.core.threads import run_in, run_interruptibly
from npc_local.loop import StageFinished, StageStarted, correct
from npc_local.run.factory import open_components
from npc_local.run.output.result_folder import ResultFolder
from npc_local.run.pool import AGENTS, default_in_flight, for_each
from npc_local.run.prompt_file import Order, check_orders
from npc_local.run.prompt_folders import finished, prompt_folders
from npc_local.run.session import OpenComponents, open_session
from npc_local.run.stages import Stages
from npc_local.run.supervisor import Link

_COUNTED: dict[Status, str] = {
    "already-correct": "correct at once",
    "corrected": "corrected",
    "best-effort": "best effort",
    "error": "failed",
}
_NOT_IN_LINE = ("profile", "versions", "network")


@dataclass(frozen=True, slots=True)
class Batch:
    """What one command is to do.

    Attributes:
        file: where the prompts come from.
        orders: the prompts.
        profile: who does the work.
        seed: of the prompts that name none.
        directory: where everything goes, absolute.
        agents: stages of agents at once; None takes the pool's number.
        in_flight: prompts at once; None takes the pool's number.
        open_components: opens the profile.
    """

    file: Path
    orders: Sequence[Order]
    profile: ResolvedProfile
    seed: int
    directory: Path
    agents: int | None = None
    in_flight: int | None = None
    open_components: OpenComponents = open_components


def run_batch(batch: Batch, link: Link) -> int:
    """Correct all prompts; return the exit code of the first one, in order, that failed, or 0.

    Args:
        batch: what to do. What its directory has of it already is not done again.
        link: takes a JSON line a prompt, in order.

    Raises:
        ConfigError: the run in the directory has other settings or other prompts.
        StorageError: the directory is in use, holds something else, or cannot be written to.
        NpcError: nothing can go on, for the reason it gives.
    """
    folders = prompt_folders(batch.directory, batch.file, batch.orders)
    results = _Results(batch, link)
    try:
        run_interruptibly(_run(batch, folders, results))
    except (KeyboardInterrupt, asyncio.CancelledError):
        results.close("interrupted")
        raise
    except NpcError as error:
        if results.begun:  # else there is nothing to say but the error
            results.close("stopped", goes_on=not isinstance(error, ConfigError))
        raise
    results.close()
    return results.exit_code


async def _run(batch: Batch, folders: Mapping[int, Path], results: _Results) -> None:
    agents = AGENTS if batch.agents is None else batch.agents
    async with open_session(
        batch.profile,
        logs=batch.directory / "logs",
        journal=batch.directory,
        same={"seed": batch.seed},
        agents=agents,
        open_components=batch.open_components,
        on_status=results.say,
        admit=partial(check_orders, batch.file, batch.orders),
    ) as stages:
        results.begun = True
        generators = 1 + len(stages.components.more_generators)
        in_flight = batch.in_flight or default_in_flight(batch.profile, agents, generators)
        writer = ThreadPoolExecutor(1, thread_name_prefix="writer")

        async def work(order: Order) -> _Outcome:
            folder = folders[order.number]
            return await _correct(order, folder, batch.profile, stages, writer, results.link)

        try:
            with results.progress:
                await for_each(batch.orders, work, in_flight=in_flight, done=results.take)
        finally:
            writer.shutdown(cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How one prompt ended, without its images. `record` is what its JSON line says of it."""

    status: Status
    exit_code: int
    record: dict[str, Any]


async def _correct(
    order: Order,
    folder: Path,
    profile: ResolvedProfile,
    stages: Stages,
    writer: ThreadPoolExecutor,
    link: Link,
) -> _Outcome:
    """Correct one prompt, its files written by `writer`; or take what an earlier run has done.

    Raises:
        NpcError: one that `ends_run`: no prompt can go on.
    """
    if (record := await asyncio.to_thread(finished, folder, order)) is not None:
        line = {key: value for key, value in record.items() if key not in _NOT_IN_LINE}
        return _Outcome(record["status"], 0, line)
    results = ResultFolder(folder, profile)
    writing: list[Future[None]] = []

    def watch(event: StageStarted | StageFinished) -> None:
        if isinstance(event, StageStarted):
            link.doing(order.number, f"prompt {order.number}, {event.name} {event.index}")
        else:
            writing.append(writer.submit(results, event))

    def finish(correction: Correction) -> _Outcome:
        for written in writing:
            written.result()
        correction = results.finish(correction)
        code = correction.exit_code or 0
        if code == StorageError.exit_code:  # no other prompt's files could be written either
            raise StorageError(correction.error)
        return _Outcome(correction.status, code, results.record(correction))

    try:
        with stages.search():
            correction = await correct(
                order.prompt,
                stages,
                seed=order.seed,
                candidates=profile.candidates,
                watch=watch,
            )
        return await run_in(writer, lambda: finish(correction))
    finally:
        link.doing(order.number, None)


class _Results:
    """Takes how prompts end, in any order: counts it, shows it, and prints it in theirs."""

    def __init__(self, batch: Batch, link: Link) -> None:
        self.link = link
        self.exit_code = 0
        self.begun = False  # whether prompts are being corrected
        self._batch = batch
        self._first_error = len(batch.orders)
        self._counts: Counter[Status] = Counter()
        self._waiting: dict[int, str] = {}  # lines that earlier prompts are still before
        self._next = 0
        self.progress = Progress(len(batch.orders), "prompts")

    def say(self, what: str) -> None:
        """Show a line."""
        self.progress.say(what, style="dim")

    def take(self, index: int, ended: _Outcome | NpcError) -> None:
        """Take in how a prompt ended."""
        order = self._batch.orders[index]
        if isinstance(ended, NpcError):
            record = {"prompt": order.prompt, "seed": order.seed, "error": str(ended)}
            ended = _Outcome("error", ended.exit_code, {"status": "error", **record})
        self._counts[ended.status] += 1
        if ended.exit_code:
            if index < self._first_error:
                self._first_error, self.exit_code = index, ended.exit_code
            error = f"error: prompt {order.number}: {ended.record.get('error')}"
            self.progress.say(error, style="bold red")
        head = {"number": order.number, "id": order.id}
        tail = {"exit_code": ended.exit_code}
        self._waiting[index] = json.dumps(head | ended.record | tail)
        while (line := self._waiting.pop(self._next, None)) is not None:
            self.link.print(line)
            self._next += 1
        self.progress.advance(self._summary())

    def close(self, ended: str | None = None, *, goes_on: bool = True) -> None:
        """Say what came of it, and how a run that has `ended` early goes on, if it `goes_on`."""
        done, total = self._counts.total(), len(self._batch.orders)
        parts = [f"{done} of {total} prompts", self._summary(), f"in {self._batch.directory}"]
        if ended is not None and done < total:
            parts[0] = f"{ended}: {parts[0]}"
            if goes_on:
                hint = f"the same command goes on, with --out {self._batch.directory}"
                parts.append(f"{hint} and without --fresh")
        self.progress.say("; ".join(filter(None, parts)))

    def _summary(self) -> str:
        counts = self._counts
        return ", ".join(f"{counts[key]} {word}" for key, word in _COUNTED.items() if counts[key])
