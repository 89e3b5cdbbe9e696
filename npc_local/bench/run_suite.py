"""One run of a benchmark, from an opened profile to its tables and files.

What a command line may say is left to `cli.bench.suite`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from npc_local.bench.analysis import tables
from npc_local.bench.analysis.summarise import summarise
from npc_local.bench.analysis.summary import Summary
from npc_local.bench.results import ArmResult
from npc_local.bench.runner import (
    GIVEN,
    Judge,
    check_prompts,
    choose,
    images,
    judge_images,
    run,
    tasks,
)
from npc_local.bench.suites.export import check_export, export, images_from
from npc_local.bench.suites.suite import BenchItem, Suite
from npc_local.core.config.load import ResolvedProfile
from npc_local.core.config.settings import BackendSettings
from npc_local.core.files import paths
from npc_local.core.files.atomic import write_durably
from npc_local.core.hashing import digest
from npc_local.core.offline import egress
from npc_local.core.terminal import Progress
from npc_local.run.components import Components
from npc_local.run.factory import open_agent, open_components
from npc_local.run.journal.journal import Journal
from npc_local.run.journal.sticky_failures import SettledJournal
from npc_local.run.pool import default_in_flight
from npc_local.run.session import OpenComponents, open_session
from npc_local.run.stages import Stages

# Of a backend: what has no say in its answers.
_WAITING: Any = {
    "timeout": True,
    "retries": True,
    "api_key_env": True,
    "allow_network": True,
    "server": {"python", "gpu_memory_utilization", "start_timeout", "restarts", "sleep"},
}


@dataclass(frozen=True, slots=True)
class SuiteJob:
    """What a command asks for.

    Attributes:
        suite: the benchmark.
        profile: says who does the work.
        arms: what to compare.
        seeds: benchmark seeds.
        limit: prompts at most; None: all.
        judge: the name and the entry of the backend that judges; None: the suite asks none.
        directory: the run directory.
        agents: stages of agents at once.
        retry_errors: do again what failed in an earlier run.
        export: where images and records go in the published layout; None: nowhere.
        given: a directory of images made elsewhere, to be judged in place of any arm's.
        open_components: opens the profile.
    """

    suite: Suite
    profile: ResolvedProfile
    arms: Sequence[str]
    seeds: Sequence[int]
    limit: int | None
    judge: tuple[str, BackendSettings] | None
    directory: Path
    agents: int
    retry_errors: bool = False
    export: Path | None = None
    given: Path | None = None
    open_components: OpenComponents = open_components


def default_directory(suite: Suite, profile: ResolvedProfile, images: Path | None) -> Path:
    """Return where a run is kept that was given no place: one for these settings.

    As in the run's identity, how long is waited for a model and on which device it runs do not
    count. Models count by their paths here, as none has been opened.
    """
    settings = {
        "suite": [suite.name, suite.fingerprint()],
        "images": None if images is None else str(paths.absolute(images)),
        "candidates": profile.candidates,
        "rules": [profile.strictness, profile.votes],
        "generator": profile.generator.model_dump(mode="json", exclude={"device", "more_devices"}),
        "encoder": profile.encoder.model_dump(mode="json", exclude={"device"}),
        "agents": [
            profile.backends[name].model_dump(mode="json", exclude=_WAITING)
            for name in (profile.verifier, profile.captioner, profile.proposer)
        ],
    }
    return Path("npc-local-runs", f"{suite.name}-{digest(settings)[:8]}")


async def measure(job: SuiteJob, on_status: Callable[[str], None]) -> tuple[Summary, int]:
    """Run what is missing, judge it, and write the summary beside the journal.

    summary.md and summary.json are the latest command's; each selection of prompts, arms, seeds and
    judge has a pair of its own as well, which a command about less of the run leaves alone.

    Args:
        job: what to do.
        on_status: is told what is waited for, and where things are.

    Returns:
        The summary, and the exit code of the first error, or 0.

    Raises:
        NpcError: it could not begin, or nothing more can be done or kept.
    """
    if job.export is not None:
        await asyncio.to_thread(check_export, job.export, job.suite)
    items = choose(job.suite.items(), job.limit)
    files = None if job.given is None else images_from(job.given, items)
    opened = _open(job, items, on_status) if files is None else _open_judge(job, on_status)
    async with opened as (stages, journal):
        with Progress(len(items) * len(job.seeds) * len(job.arms), "results") as progress:
            results = await _results(job, items, files, stages, progress)
        summary = await asyncio.to_thread(_write, job, journal, results)
        if job.export is not None:
            await asyncio.to_thread(_export, job, journal, results, job.export, on_status)
    return summary, next((result.exit_code for result in results if result.exit_code), 0)


async def _results(
    job: SuiteJob,
    items: Sequence[BenchItem],
    files: Mapping[int, Path] | None,
    stages: Stages,
    progress: Progress,
) -> list[ArmResult]:
    """Run the arms, or judge the images in `files`."""
    todo, components = tasks(items, job.seeds), stages.components
    judge = Judge(job.suite, components.judge)
    generators = 1 + len(components.more_generators)
    in_flight = default_in_flight(job.profile, job.agents, generators)

    def done(result: ArmResult) -> None:
        progress.advance(f"{result.arm}, {result.task.item.group}")

    if files is not None:
        return await judge_images(todo, files, stages, judge, in_flight=in_flight, done=done)
    return await run(
        todo,
        job.arms,
        stages,
        judge,
        budget=job.profile.candidates,
        in_flight=in_flight,
        done=done,
    )


@asynccontextmanager
async def _open(
    job: SuiteJob, items: Sequence[BenchItem], on_status: Callable[[str], None]
) -> AsyncIterator[tuple[Stages, SettledJournal]]:
    """Open all components, and the journal."""
    journals: list[SettledJournal] = []

    def open_journal(directory: Path, identity: Mapping[str, Any]) -> Journal:
        journals.append(_journal(job, directory, identity))
        return journals[0]

    name, profile = None, job.profile
    if job.judge is not None:
        name, settings = job.judge
        profile = replace(profile, backends={**profile.backends, name: settings})
    async with open_session(
        profile,
        logs=job.directory / "logs",
        journal=job.directory,
        same={"suite": _identity(job.suite)},
        agents=job.agents,
        judge=name,
        open_components=job.open_components,
        open_journal=open_journal,
        on_status=on_status,
        admit=partial(check_prompts, items),
    ) as stages:
        yield stages, journals[0]


@asynccontextmanager
async def _open_judge(
    job: SuiteJob, on_status: Callable[[str], None]
) -> AsyncIterator[tuple[Stages, SettledJournal]]:
    """Open the judge alone, and the journal."""
    nobody: Any = None  # only `Stages.once` is asked for anything
    opened = nullcontext() if job.judge is None else open_agent(*job.judge, on_status=on_status)
    async with opened as judge:
        identity = {"suite": _identity(job.suite), "images": "made elsewhere"}
        components = Components(nobody, nobody, nobody, nobody, nobody, judge=judge)
        with _journal(job, job.directory, identity) as journal:
            yield Stages(components, journal, agents=job.agents), journal


def _journal(job: SuiteJob, directory: Path, identity: Mapping[str, Any]) -> SettledJournal:
    journal = SettledJournal.open(directory, identity)
    if job.retry_errors:
        journal.retry_errors()
    return journal


def _identity(suite: Suite) -> dict[str, str]:
    return {"name": suite.name, "records": suite.fingerprint()}


def _write(job: SuiteJob, journal: Journal, results: Sequence[ArmResult]) -> Summary:
    judge = "its exact detector" if job.judge is None else f"backend {job.judge[0]}"
    arms = job.arms if job.given is None else [GIVEN]
    summary = summarise(job.suite, results, arms, judge=judge, costs=journal.costs())
    summary = replace(summary, network=egress.report())
    shown = tables.markdown(tables.title(summary), tables.sections(summary))
    data = json.dumps(summary.data(), indent=2) + "\n"
    for name in (_selection(summary), "summary"):
        write_durably(job.directory / f"{name}.md", shown.encode())
        write_durably(job.directory / f"{name}.json", data.encode())
    return summary


def _selection(summary: Summary) -> str:
    """Return the name of the summary of this part of the run."""
    arms, seeds, prompts = [*summary.arms], summary.seeds, summary.prompts
    of = digest([arms, seeds, prompts, summary.judge])[:8]
    return f"summary-{len(arms)}-arms-{prompts}-prompts-{len(seeds)}-seeds-{of}"


def _export(
    job: SuiteJob,
    journal: Journal,
    results: Sequence[ArmResult],
    directory: Path,
    on_status: Callable[[str], None],
) -> None:
    """Write each arm's results into a directory of its own in the published layout."""
    for arm in job.arms:
        for seed in job.seeds:
            of_arm = [
                result for result in results if result.arm == arm and result.task.seed == seed
            ]
            name = arm if len(job.seeds) == 1 else f"{arm}-{seed}"
            export(directory / name, job.suite, images(journal, of_arm))
            if missing := sum(result.answer is None for result in of_arm):
                on_status(f"{directory / name}: {missing} images are missing, as a stage failed")
