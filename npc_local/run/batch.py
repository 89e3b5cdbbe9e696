"""`npc-local run --prompts FILE`: many prompts on one set of models, a folder each, resumable.

How prompts share the models is left to `pool` and `stages`, what a folder holds to `output`, and
what survives a crash to `journal` and `supervisor`.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from npc_local.core.config.load import ResolvedProfile
from npc_local.core.errors import ConfigError, NpcError, StorageError
from npc_local.core.files import paths
from npc_local.core.records import Correction, Status
from npc_local.core.terminal import Progress
from npc_local.core.threads import run_in, run_interruptibly
from npc_local.loop import StageFinished, StageStarted, correct
from npc_local.run.factory import open_components
from npc_local.run.journal.differences import differences
from npc_local.run.output.result_folder import ResultFolder, folder_name, is_whole, read_record
from npc_local.run.pool import AGENTS, default_in_flight, for_each
from npc_local.run.prompt_file import Order, check_orders
from npc_local.run.session import OpenComponents, is_run, open_session
from npc_local.run.stages import Stages
from npc_local.run.supervisor import Link

_COUNTED: dict[Status, str] = {
    "already-correct": "correct at once",
    "corrected": "corrected",
    "best-effort": "best effort",
    "error": "failed",
}
_NOT_IN_LINE = ("profile", "versions", "network")
_SHOWN = 10  # changed lines named at once


@dataclass(frozen=True, slots=True)
class Job:
    """What one command is to do.

    Attributes:
        file: where the prompts come from.
        orders: the prompts.
        profile: who plays.
        seed: of the prompts that name none.
        directory: where everything goes, absolute.
        agents: steps of agents at once; None takes the engine's number.
        in_flight: prompts at once; None takes the engine's number.
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


def run_batch(job: Job, link: Link) -> int:
    """Correct all prompts; return the exit code of the first one, in order, that failed, or 0.

    Args:
        job: what to do. What its directory has of it already is not done again.
        link: takes a JSON line a prompt, in order.

    Raises:
        ConfigError: the run in the directory has other settings or other prompts.
        StorageError: the directory is in use, holds something else, or cannot be written to.
        NpcError: nothing can go on, for the reason it gives.
    """
    _check_folders(job)
    desk = _Desk(job, link)
    try:
        run_interruptibly(_run(job, desk))
    except (KeyboardInterrupt, asyncio.CancelledError):
        desk.close("interrupted")
        raise
    except NpcError as error:
        if desk.begun:  # else there is nothing to say but the error
            desk.close("stopped", goes_on=not isinstance(error, ConfigError))
        raise
    desk.close()
    return desk.exit_code


async def _run(job: Job, desk: _Desk) -> None:
    agents = AGENTS if job.agents is None else job.agents
    async with open_session(
        job.profile,
        logs=job.directory / "logs",
        journal=job.directory,
        same={"seed": job.seed},
        agents=agents,
        open_components=job.open_components,
        on_status=desk.tell,
        admit=partial(check_orders, job.file, job.orders),
    ) as stages:
        desk.begun = True
        generators = 1 + len(stages.components.more_generators)
        in_flight = job.in_flight or default_in_flight(job.profile, agents, generators)
        writer = ThreadPoolExecutor(1, thread_name_prefix="writer")
        try:
            with desk.progress:
                await for_each(
                    job.orders,
                    lambda order: _correct(order, job, stages, writer, desk.link),
                    in_flight=in_flight,
                    done=desk.take,
                )
        finally:
            writer.shutdown(cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How one prompt ended, without its images. `record` is what its JSON line says of it."""

    status: Status
    exit_code: int
    record: dict[str, Any]


async def _correct(
    order: Order, job: Job, stages: Stages, writer: ThreadPoolExecutor, link: Link
) -> _Outcome:
    """Correct one prompt, its files written by `writer`; or take what an earlier run has done.

    Raises:
        NpcError: one that `ends_run`: no prompt can go on.
    """
    folder = job.directory / _folder(order)
    if (done := await asyncio.to_thread(_finished, folder, order)) is not None:
        return done
    kept = ResultFolder(folder, job.profile)
    writing: list[Future[None]] = []

    def watch(event: StageStarted | StageFinished) -> None:
        if isinstance(event, StageStarted):
            link.doing(order.number, f"prompt {order.number}, {event.name} {event.index}")
        else:
            writing.append(writer.submit(kept, event))

    def finish(correction: Correction) -> _Outcome:
        for written in writing:
            written.result()
        correction = kept.finish(correction)
        code = correction.exit_code or 0
        if code == StorageError.exit_code:  # no other prompt's files could be written either
            raise StorageError(correction.error)
        return _Outcome(correction.status, code, kept.record(correction))

    try:
        with stages.search():
            correction = await correct(
                order.prompt,
                stages,
                seed=order.seed,
                candidates=job.profile.candidates,
                watch=watch,
            )
        return await run_in(writer, lambda: finish(correction))
    finally:
        link.doing(order.number, None)


def _finished(folder: Path, order: Order) -> _Outcome | None:
    """Return what an earlier run of the same settings has made of a prompt, errors apart."""
    record = read_record(folder)
    try:
        same = (record["prompt"], record["seed"]) == (order.prompt, order.seed)
        if not same or record["status"] == "error" or not is_whole(folder, record):
            return None
    except (KeyError, TypeError):
        return None
    line = {key: value for key, value in record.items() if key not in _NOT_IN_LINE}
    return _Outcome(record["status"], 0, line)


def _folder(order: Order) -> str:
    return folder_name(order.number, order.prompt, digits=5)


def _check_folders(job: Job) -> None:
    """Refuse a directory whose prompts were others: what is there would be taken for these."""
    if not is_run(job.directory):
        return
    orders = {order.number: order for order in job.orders}
    others = []
    for path in paths.children(job.directory, StorageError, "[0-9]*-*"):
        head, _, _ = path.name.partition("-")
        order = orders.get(int(head)) if head.isdecimal() else None
        if order is not None and (change := _change(path, order)):
            others.append(
                f"{job.file}, line {order.line}: prompt {order.number} is not the one that {path} "
                f"was made for ({change})"
            )
    if others:
        more = [f"and {len(others) - _SHOWN} more lines"] if len(others) > _SHOWN else []
        raise ConfigError(
            "\n".join([*others[:_SHOWN], *more])
            + "; a run may get more prompts at the end of its file, but no others: put the file "
            "back, or begin a new run (--fresh)"
        )


def _change(folder: Path, order: Order) -> str:
    """Say in what a prompt differs from the one that has this folder; empty: in nothing known."""
    now = {"prompt": order.prompt, "seed": order.seed}
    record = read_record(folder)
    there = {key: record.get(key, value) for key, value in now.items()}
    return "; ".join(differences(there, now)) or ("prompt" if folder.name != _folder(order) else "")


class _Desk:
    """Takes what prompts come to: counts, shows and prints it."""

    def __init__(self, job: Job, link: Link) -> None:
        self.link = link
        self.exit_code = 0
        self.begun = False  # whether prompts are being corrected
        self._job = job
        self._first_error = len(job.orders)
        self._counts: Counter[Status] = Counter()
        self._waiting: dict[int, str] = {}  # lines that earlier prompts are still before
        self._next = 0
        self.progress = Progress(len(job.orders), "prompts")

    def tell(self, what: str) -> None:
        """Show a line."""
        self.progress.say(what, style="dim")

    def take(self, index: int, found: _Outcome | NpcError) -> None:
        """Take in how a prompt ended."""
        order = self._job.orders[index]
        if isinstance(found, NpcError):
            record = {"prompt": order.prompt, "seed": order.seed, "error": str(found)}
            found = _Outcome("error", found.exit_code, {"status": "error", **record})
        self._counts[found.status] += 1
        if found.exit_code:
            if index < self._first_error:
                self._first_error, self.exit_code = index, found.exit_code
            error = f"error: prompt {order.number}: {found.record.get('error')}"
            self.progress.say(error, style="bold red")
        head = {"number": order.number, "id": order.id}
        tail = {"exit_code": found.exit_code}
        self._waiting[index] = json.dumps(head | found.record | tail)
        while (line := self._waiting.pop(self._next, None)) is not None:
            self.link.print(line)
            self._next += 1
        self.progress.advance(self._summary())

    def close(self, ended: str | None = None, *, goes_on: bool = True) -> None:
        """Say what came of it, and how a run that has `ended` early goes on, if it `goes_on`."""
        done, total = self._counts.total(), len(self._job.orders)
        parts = [f"{done} of {total} prompts", self._summary(), f"in {self._job.directory}"]
        if ended is not None and done < total:
            parts[0] = f"{ended}: {parts[0]}"
            if goes_on:
                hint = f"the same command goes on, with --out {self._job.directory}"
                parts.append(f"{hint} and without --fresh")
        self.progress.say("; ".join(filter(None, parts)))

    def _summary(self) -> str:
        counts = self._counts
        return ", ".join(f"{counts[key]} {word}" for key, word in _COUNTED.items() if counts[key])
