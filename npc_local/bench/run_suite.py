"""One run of a benchmark, from an opened profile to its tables and files.

What a command line may say is left to `suite_command`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from npc_local.bench.analysis import tables
from npc_local.bench.analysis.summary import summary
from npc_local.bench.results import ArmResult
from npc_local.bench.runner import (
    GIVEN,
    Done,
    Judge,
    check_prompts,
    choose,
    images,
    judge_images,
    run,
    tasks,
)
from npc_local.bench.suites.export import check_export, export, images_from
from npc_local.bench.suites.suite import Suite
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
class Job:
    """What a command asks for.

    Attributes:
        suite: the benchmark.
        profile: who plays.
        arms: what to compare.
        seeds: benchmark seeds.
        limit: prompts at most; None: all.
        judge: the name and the entry of the backend that judges; None: the suite asks none.
        directory: the run directory.
        agents: steps of agents at once.
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
        "generator": profile.generator.model_dump(mode="json", exclude={"device"}),
        "encoder": profile.encoder.model_dump(mode="json", exclude={"device"}),
        "agents": [
            profile.backends[name].model_dump(mode="json", exclude=_WAITING)
            for name in (profile.verifier, profile.captioner, profile.proposer)
        ],
    }
    return Path("npc-local-runs", f"{suite.name}-{digest(settings)[:8]}")


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of it: the summary as plain data, and the exit code of the first error, or 0."""

    found: dict[str, Any]
    exit_code: int


async def measure(job: Job, on_status: Callable[[str], None]) -> Measured:
    """Run what is missing, judge it, and write the summary beside the journal.

    summary.md and summary.json are the latest command's; each selection of prompts, arms, seeds and
    judge has a pair of its own as well, which a command about less of the run leaves alone.

    Args:
        job: what to do.
        on_status: is told what is waited for, and where things are.

    Raises:
        NpcError: it could not begin, or nothing more can be done or kept.
    """
    if job.export is not None:
        await asyncio.to_thread(check_export, job.export, job.suite)
    chosen = choose(job.suite.items(), job.limit)
    todo = tasks(chosen, job.seeds)
    files = {} if job.given is None else images_from(job.given, chosen)
    opened = _open(job, on_status) if job.given is None else _open_judge(job, on_status)
    async with opened as (stages, journal):
        judge = Judge(job.suite, stages.components.judge)
        in_flight = default_in_flight(job.profile, job.agents)
        with Progress(len(todo) * len(job.arms), "results") as progress:
            done = _shown(progress)
            if job.given is None:
                components = stages.components
                agents = (components.verifier, components.proposer, components.judge)
                check_prompts(chosen, [agent for agent in agents if agent is not None])
                results = await run(
                    todo,
                    job.arms,
                    stages,
                    judge,
                    budget=job.profile.candidates,
                    in_flight=in_flight,
                    done=done,
                )
            else:
                results = await judge_images(
                    todo, files, stages, judge, in_flight=in_flight, done=done
                )
        found = await asyncio.to_thread(_write, job, journal, results)
        if job.export is not None:
            await asyncio.to_thread(_export, job, journal, results, job.export, on_status)
    return Measured(found, next((one.exit_code for one in results if one.exit_code), 0))


def _shown(progress: Progress) -> Done:
    return lambda result: progress.advance(f"{result.arm}, {result.task.item.group}")


@asynccontextmanager
async def _open(
    job: Job, on_status: Callable[[str], None]
) -> AsyncIterator[tuple[Stages, SettledJournal]]:
    """Open everybody who plays, and the journal."""
    kept: list[SettledJournal] = []

    def open_journal(directory: Path, identity: Mapping[str, Any]) -> Journal:
        kept.append(_journal(job, directory, identity))
        return kept[0]

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
    ) as stages:
        yield stages, kept[0]


@asynccontextmanager
async def _open_judge(
    job: Job, on_status: Callable[[str], None]
) -> AsyncIterator[tuple[Stages, SettledJournal]]:
    """Open the judge alone, and the journal."""
    nobody: Any = None  # nothing but `Stages.once` is asked for
    opened = nullcontext() if job.judge is None else open_agent(*job.judge, on_status=on_status)
    async with opened as judge:
        identity = {"suite": _identity(job.suite), "images": "made elsewhere"}
        components = Components(nobody, nobody, nobody, nobody, nobody, judge=judge)
        with _journal(job, job.directory, identity) as journal:
            yield Stages(components, journal, agents=job.agents), journal


def _journal(job: Job, directory: Path, identity: Mapping[str, Any]) -> SettledJournal:
    journal = SettledJournal.open(directory, identity)
    if job.retry_errors:
        journal.retry_errors()
    return journal


def _identity(suite: Suite) -> dict[str, str]:
    return {"name": suite.name, "records": suite.fingerprint()}


def _write(job: Job, journal: Journal, results: Sequence[ArmResult]) -> dict[str, Any]:
    judge = "its exact detector" if job.judge is None else f"backend {job.judge[0]}"
    arms = job.arms if job.given is None else [GIVEN]
    found = summary(job.suite, results, arms, judge=judge, costs=journal.costs())
    found["network"] = egress.report()
    shown = tables.markdown(tables.title(found), tables.sections(found))
    data = json.dumps(found, indent=2) + "\n"
    for name in (_selection(found), "summary"):
        write_durably(job.directory / f"{name}.md", shown.encode())
        write_durably(job.directory / f"{name}.json", data.encode())
    return found


def _selection(found: Mapping[str, Any]) -> str:
    """Return the name of the summary of this part of the run."""
    arms, seeds, prompts = [*found["arms"]], found["seeds"], found["prompts"]
    of = digest([arms, seeds, prompts, found["judge"]])[:8]
    return f"summary-{len(arms)}-arms-{prompts}-prompts-{len(seeds)}-seeds-{of}"


def _export(
    job: Job,
    journal: Journal,
    results: Sequence[ArmResult],
    directory: Path,
    on_status: Callable[[str], None],
) -> None:
    """Write each arm's results into a directory of its own in the published layout."""
    for arm in job.arms:
        for seed in job.seeds:
            of_arm = [one for one in results if one.arm == arm and one.task.seed == seed]
            name = arm if len(job.seeds) == 1 else f"{arm}-{seed}"
            export(directory / name, job.suite, images(journal, of_arm))
            if missing := sum(one.answer is None for one in of_arm):
                on_status(f"{directory / name}: {missing} images are missing, as a step failed")
