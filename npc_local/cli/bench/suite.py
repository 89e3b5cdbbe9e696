"""`npc-local bench SUITE`: options, checks, and what is printed. Imports click only at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from npc_local.cli import options
from npc_local.core.errors import ConfigError

if TYPE_CHECKING:
    from npc_local.bench.analysis.summary import Summary
    from npc_local.bench.run_suite import SuiteJob
    from npc_local.bench.suites.suite import Suite
    from npc_local.core.config.load import Config, ResolvedProfile
    from npc_local.core.config.settings import BackendSettings

_ABOUT = {
    "geneval++": """GenEval++: 280 prompts of seven tags, judged right or wrong.

    Each arm may make as many images as the profile has candidates after the base image, and stops
    at the first that the verifier finds correct; the judge sees its result. The same command goes
    on where it stopped.""",
    "imagine": """Imagine-Bench: 270 prompts for things that do not exist, graded from 0 to 10.

    Each arm may make as many images as the profile has candidates after the base image, and stops
    at the first that the verifier finds correct; the judge sees its result. The same command goes
    on where it stopped.""",
    "shapes": """ShapesBench: GenEval++'s seven kinds of prompts in the embedded world.

    Each arm may make as many images as the profile has candidates after the base image, and stops
    at the first that the verifier finds correct; an exact detector judges its result. The same
    command goes on where it stopped.""",
}
_EXAMPLES = {
    "geneval++": """\b
Examples:
  npc-local bench geneval++ --profile flux-dev --out runs/geneval
  npc-local bench geneval++ --profile flux-dev --out runs/geneval --retry-errors
  npc-local bench geneval++ --profile flux-dev --judge openai --limit 70 --arms all
  npc-local bench geneval++ --profile flux-dev --images theirs/ --format csv
""",
    "imagine": """\b
Examples:
  npc-local bench imagine --profile flux-dev --out runs/imagine --arms base,npc
  npc-local bench imagine --profile flux-dev --limit 20 --export exported/
""",
    "shapes": """\b
Examples:
  npc-local bench shapes
  npc-local bench shapes --arms all --seeds 0,1 --out runs/shapes
  npc-local bench shapes --split train --per-tag 20 --set generators.shapes.negative_steps=3
""",
}
_ARMS = "base,npc,prompt-only,reseed"


@dataclass(frozen=True, slots=True)
class _Options:
    """The options of one command."""

    suite: str
    data: Path | None
    per_tag: int | None
    split: str
    arms: str
    seeds: str
    limit: int | None
    judge: str | None
    profile: str | None
    config: Path | None
    overrides: tuple[str, ...]
    out: Path | None
    fresh: bool
    retry_errors: bool
    export: Path | None
    images: Path | None
    agents: int | None
    form: str
    numbers: dict[str, int | None]  # of the profile, as `options.sampling` has them


def suite_command(name: str) -> click.Command:
    """Return the command of one benchmark."""

    def run(**given: Any) -> None:
        numbers = {name: given.pop(name) for name in options.NUMBERS}
        values = {"data": None, "per_tag": None, "split": "test", "numbers": numbers, **given}
        code = _run(_Options(suite=name, **values))
        click.get_current_context().exit(code)

    run.__doc__ = _ABOUT[name]
    for option in reversed([*_own_options(name), *_OPTIONS]):
        run = option(run)
    return click.command(name, epilog=_EXAMPLES[name])(run)


def _own_options(name: str) -> list[options.Decorator]:
    if name != "shapes":
        text = "The published records, or their directory.  [default: models/benchmarks]"
        return [options.path("--data", text, metavar="PATH")]
    return [
        options.count("--per-tag", "Prompts drawn for each of the seven tags.  [default: 40]"),
        options.choice("--split", ("test", "train"), "Held-out prompts, or the side for tuning."),
    ]


_OPTIONS: list[options.Decorator] = [
    click.option(
        "--arms",
        metavar="LIST",
        default=_ARMS,
        show_default=True,
        help="What to compare with base, comma-separated; all: every arm.",
    ),
    click.option(
        "--seeds",
        metavar="LIST",
        default="0",
        show_default=True,
        help="Benchmark seeds, comma-separated; each prompt runs once a seed.",
    ),
    options.count(
        "--limit",
        "Take N prompts, evenly from all groups; more later adds to them.  [default: all]",
    ),
    click.option(
        "--judge",
        metavar="BACKEND",
        help="Who judges results: a backend of models.toml.  [default: the verifier's backend, "
        "asked the benchmark's own question; shapes: an exact detector]",
    ),
    options.profile,
    options.config,
    options.sampling,
    options.overrides,
    options.path(
        "--out",
        "Keeps every stage; the same command goes on there.  [default: one for these settings "
        "in ./npc-local-runs]",
        metavar="DIR",
    ),
    click.option(
        "--fresh", is_flag=True, help="Begin anew, in DIR-2, DIR-3 and so on if DIR is taken."
    ),
    click.option("--retry-errors", is_flag=True, help="Do again the stages that failed."),
    options.path(
        "--export",
        "Write each arm's images as the published scripts read them.",
        metavar="DIR",
    ),
    options.path(
        "--images",
        "Judge images made elsewhere, 1.jpg or 1.png and so on; no model makes any.",
        metavar="DIR",
    ),
    options.count("--agents", "Stages of agents at once.  [default: 8]"),
    options.form,
]


def _run(given: _Options) -> int:
    """Do what the command says; return the exit code of the first stage that failed, or 0.

    This process watches over another one that does it, if the command is its own.
    """
    import asyncio

    from npc_local.bench.run_suite import measure
    from npc_local.cli.options import ARGUMENTS
    from npc_local.core.config.load import load_config
    from npc_local.core.offline.switches import go_offline
    from npc_local.core.terminal import libraries_quiet
    from npc_local.core.threads import run_interruptibly
    from npc_local.run.supervisor import Link, can_supervise, supervise

    go_offline()
    link = Link()
    job = _job(given, load_config(given.config, given.overrides), link.directory)
    if link.directory is None and can_supervise(click.get_current_context().meta[ARGUMENTS]):
        return supervise(job.directory, on_status)
    with libraries_quiet() as stdout:
        link.stdout = stdout
        click.get_current_context().meta[options.PRINT] = link.print_end
        try:
            summary, exit_code = run_interruptibly(measure(job, on_status))
        except (KeyboardInterrupt, asyncio.CancelledError):
            without = " without --fresh" if given.fresh else ""
            on_status(f"interrupted; the same command{without} goes on, with --out {job.directory}")
            raise
        link.print(render(summary, given.form).removesuffix("\n"))
    on_status(f"kept in {job.directory}")
    return exit_code


def on_status(line: str) -> None:
    """Say something on standard error."""
    from npc_local.core.terminal import plain

    click.echo(plain(line), err=True)


def render(summary: Summary, form: str) -> str:
    """Return a summary in one of `options.FORMATS`."""
    import json

    from npc_local.bench.analysis import csv_rows, tables

    if form == "json":
        return json.dumps(summary.data()) + "\n"
    if form == "csv":
        return csv_rows.to_csv(summary)
    show = tables.markdown if form == "markdown" else tables.text
    return show(tables.title(summary), tables.sections(summary))


def _job(given: _Options, config: Config, directory: Path | None) -> SuiteJob:
    """Check the options against each other; `directory` has been chosen already if it is given.

    Raises:
        ConfigError: one of them is not allowed.
    """
    from npc_local.bench.arms import ARMS
    from npc_local.bench.run_suite import SuiteJob, default_directory
    from npc_local.bench.runner import GIVEN
    from npc_local.run.factory import open_components
    from npc_local.run.output.directories import run_directory
    from npc_local.run.pool import AGENTS

    context = click.get_current_context()
    profile = options.adjusted(config.profile(given.profile), **given.numbers)
    suite = _suite(given)
    arms = [*ARMS] if given.arms.strip() == "all" else listed(given.arms, "--arms", [*ARMS])
    arms = ["base", *(arm for arm in arms if arm != "base")]  # what the others differ from
    seeds = _seeds(given.seeds)
    if given.images is not None:
        if given.export is not None:
            raise ConfigError("--images and --export: those images are in that layout already")
        for name in ("arms", "seeds"):
            if _is_given(name):
                raise ConfigError(f"--images and --{name}: no arm makes those images; leave it out")
        arms, seeds = [GIVEN], [0]
    elif profile.proposals != "caption":
        known = ", ".join(name for name, arm in ARMS.items() if arm.proposes)
        raise ConfigError(
            f"proposals = {profile.proposals!r} in the profile has no say in a benchmark, where "
            f"the arm does; leave it out and name arms with --arms; those that propose: {known}"
        )
    return SuiteJob(
        suite=suite,
        profile=profile,
        arms=arms,
        seeds=seeds,
        limit=given.limit,
        judge=_judge(given, config, profile, suite),
        directory=directory
        or context.with_resource(
            run_directory(
                given.out or default_directory(suite, profile, given.images), fresh=given.fresh
            )
        ),
        agents=given.agents or AGENTS,
        retry_errors=given.retry_errors,
        export=given.export,
        given=given.images,
        open_components=context.obj or open_components,
    )


def _is_given(option: str) -> bool:
    source = click.get_current_context().get_parameter_source(option)
    return source is not ParameterSource.DEFAULT


def _suite(given: _Options) -> Suite:
    from npc_local.bench.suites.registry import open_suite

    if given.suite != "shapes":
        return open_suite(given.suite, given.data)
    from npc_local.bench.suites.shapes import PER_TAG, ShapesBench

    return ShapesBench(given.per_tag or PER_TAG, test=given.split == "test")


def _judge(
    given: _Options, config: Config, profile: ResolvedProfile, suite: Suite
) -> tuple[str, BackendSettings] | None:
    """Return the name and the entry of the backend that judges, if the suite asks one."""
    if not suite.asks:
        if given.judge is not None:
            raise ConfigError(f"--judge: {suite.title} has an exact judge of its own; leave it out")
        return None
    name = given.judge or profile.verifier
    if name not in config.backends:
        known = ", ".join(config.backends)
        raise ConfigError(f"--judge: no backend {name!r} in models.toml; known: {known}")
    return name, config.backends[name]


def listed(text: str, option: str, known: Sequence[str]) -> list[str]:
    """Return the names in a comma-separated list, each once.

    Raises:
        ConfigError: there is none, or one is not known.
    """
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ConfigError(f"{option}: found {text!r}; known: {', '.join(known)}")
    return names


def _seeds(text: str) -> list[int]:
    from npc_local.bench.runner import MAX_SEED

    try:
        seeds = list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        seeds = [-1]
    if min(seeds) < 0 or max(seeds) > MAX_SEED:
        raise ConfigError(
            f"--seeds: found {text!r}; must be numbers from 0 to {MAX_SEED}, like 0,1,2"
        )
    return seeds
