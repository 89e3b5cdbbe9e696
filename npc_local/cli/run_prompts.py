"""Prompts of the command line, one after the other, each stage shown as it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from npc_local.cli.live_view import LiveView
from npc_local.core.config.load import ResolvedProfile
from npc_local.core.errors import NpcError
from npc_local.core.files import paths
from npc_local.core.records import Correction
from npc_local.loop import StageFinished, StageStarted, correct
from npc_local.run.factory import open_components
from npc_local.run.output.directories import folder_name, output_directory
from npc_local.run.output.result_folder import ResultFolder
from npc_local.run.session import OpenComponents, is_run, open_session
from npc_local.run.stages import Stages

_JOURNAL = "journal"


@dataclass(frozen=True, slots=True)
class Job:
    """What the prompts of one command share.

    `journal` is the directory of its journal, if it has one. `stdout` takes a JSON line a prompt;
    None: nothing. `open_components` opens the profile.
    """

    profile: ResolvedProfile
    seed: int
    directory: Path
    journal: Path | None
    display: LiveView
    stdout: TextIO | None
    open_components: OpenComponents = open_components


@contextmanager
def output(wanted: Path | None) -> Iterator[tuple[Path, Path | None]]:
    """Give the directory of a command, new or where it was cut off, and that of its journal.

    A command that names no directory has no journal: it could not be told to go on.

    Raises:
        StorageError: the directory has something else in it, or cannot be written to.
    """
    if wanted is not None and is_run(wanted / _JOURNAL):
        directory = paths.absolute(wanted)
        yield directory, directory / _JOURNAL
        return
    with output_directory(wanted) as directory:
        yield directory, None if wanted is None else directory / _JOURNAL


async def correct_all(prompts: Sequence[str], job: Job) -> int:
    """Correct one prompt after the other; return the exit code of the first that failed, or 0."""
    code = 0
    async with AsyncExitStack() as stack:
        stack.callback(job.display.stop)  # also when a server does not start
        opening = open_session(
            job.profile,
            logs=job.directory / "logs",
            journal=job.journal,
            same={"seed": job.seed, "prompts": list(prompts)},
            open_components=job.open_components,
            on_status=job.display.on_status,
            on_step=job.display.progress,
        )
        stages = await stack.enter_async_context(opening)
        job.display.stop()
        for number, prompt in enumerate(prompts, start=1):
            alone = len(prompts) == 1
            folder = job.directory if alone else job.directory / folder_name(number, prompt)
            job.display.begin(prompt, job.seed, number=number, total=len(prompts))
            results = ResultFolder(folder, job.profile)
            exit_code = await _correct_one(prompt, stages, results, job)
            code = code or exit_code
    return code


async def _correct_one(prompt: str, stages: Stages, results: ResultFolder, job: Job) -> int:
    """Correct one prompt, keeping and showing whatever happens; return its exit code, or 0."""

    def watch(event: StageStarted | StageFinished) -> None:
        results(event)
        job.display(event)

    def finish(correction: Correction) -> int:
        correction = results.finish(correction)
        job.display.end(correction, results.path)
        if job.stdout is not None:
            line = results.record(correction) | {"exit_code": correction.exit_code or 0}
            print(json.dumps(line), file=job.stdout, flush=True)
        return correction.exit_code or 0

    try:
        correction = await correct(
            prompt,
            stages,
            seed=job.seed,
            candidates=job.profile.candidates,
            watch=watch,
            on_unfinished=finish,
        )
    except NpcError as error:  # kept and shown by then; the next prompt has its say all the same
        return error.exit_code
    return finish(correction)
