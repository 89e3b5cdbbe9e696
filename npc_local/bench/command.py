"""`npc-local bench`: runs a benchmark and prints its tables."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from npc_local import egress, options
from npc_local.bench.salience_command import salience
from npc_local.bench.token_command import tokens
from npc_local.errors import ConfigError

if TYPE_CHECKING:
    from rich.progress import Progress

    from npc_local.bench.shapes_bench import Item, Results
    from npc_local.config import ResolvedProfile

_EXAMPLES = """\b
Examples:
  npc-local bench shapes
  npc-local bench shapes --per-tag 40 --seeds 0,1 --out runs/shapes
  npc-local bench shapes --split train --arms base,npc --set generators.shapes.negative_steps=6
"""


@click.group()
def bench() -> None:
    """Measure how often images match their prompts, and what a negative prompt costs."""


bench.add_command(salience)
bench.add_command(tokens)


@bench.command(epilog=_EXAMPLES)
@click.option(
    "--per-tag",
    metavar="N",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Prompts for each of the seven tags.",
)
@click.option(
    "--seeds",
    metavar="LIST",
    default="0",
    show_default=True,
    help="Benchmark seeds, comma-separated; each prompt runs once a seed.",
)
@click.option(
    "--arms",
    metavar="LIST",
    default="base,npc,reseed,npc+reseed",
    show_default=True,
    help="What to compare.",
)
@click.option(
    "--split",
    type=click.Choice(["test", "train"]),
    default="test",
    show_default=True,
    help="Held-out prompts, or the side for tuning.",
)
@options.profile
@options.config
@options.overrides
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Keeps results; the same command goes on there.  [default: npc-local-runs/bench-*]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
def shapes(
    per_tag: int,
    seeds: str,
    arms: str,
    split: str,
    profile: str | None,
    config: Path | None,
    overrides: tuple[str, ...],
    out: Path | None,
    as_json: bool,
) -> None:
    """ShapesBench: GenEval++'s seven kinds of prompts in the embedded world.

    Each arm may make as many images as the profile has candidates after the base image, and stops
    at the first correct one. Interrupted, the same command with the same --out goes on.
    """
    import asyncio

    from npc_local import __version__
    from npc_local.bench.arms import ARMS
    from npc_local.bench.shapes_bench import items
    from npc_local.bench.tables import markdown, summary
    from npc_local.config import load_config
    from npc_local.display import libraries_quiet
    from npc_local.offline import go_offline

    chosen_arms = _list(arms, "--arms", tuple(ARMS))
    if chosen_arms[0] != "base":
        chosen_arms = ["base", *(arm for arm in chosen_arms if arm != "base")]
    go_offline()
    chosen = load_config(config, overrides).profile(profile)
    numbers = _numbers(seeds)
    todo = items(per_tag, numbers, test=split == "test")
    settings: dict[str, Any] = {
        "per_tag": per_tag,
        "split": split,
        "arms": chosen_arms,
        "seeds": ",".join(map(str, numbers)),
        "candidates": chosen.candidates,
        "version": __version__,
        "generator": chosen.generator.model_dump(mode="json", exclude={"path"}),
    }
    with libraries_quiet() as stdout:
        results = asyncio.run(_measure(todo, chosen, settings, out))
    found = summary(results, chosen_arms)
    title = f"ShapesBench, {split} side, {per_tag} a tag, benchmark seeds {settings['seeds']}."
    table = f"{title}\n{markdown(found, chosen_arms)}"
    results.write_summary(table)
    if as_json:
        print(json.dumps(found | {"settings": settings, "network": egress.report()}), file=stdout)
    else:
        print(table, file=stdout)
    click.echo(f"kept in {results.path.parent}", err=True)


async def _measure(
    todo: Sequence[Item], profile: ResolvedProfile, settings: dict[str, Any], out: Path | None
) -> Results:
    """Run what is missing, with progress and time left on standard error.

    What decides the results besides `settings` (weights, agents) is added to them, so that a run
    never goes on with another model's numbers.
    """
    from npc_local.bench.shapes_bench import Results, run_items
    from npc_local.cast import open_cast

    progress = _progress()
    task = progress.add_task("prompts", total=len(todo))

    def done(item: Item) -> None:
        progress.update(task, advance=1, description=item.record.tag)

    async with open_cast(profile, logs=None if out is None else out / "logs") as cast:
        settings["rules"] = asdict(cast.rules)
        parts = (cast.generator, cast.verifier, cast.captioner, cast.proposer, cast.scorer)
        settings["fingerprints"] = [part.fingerprint() for part in parts]
        results = Results(out or Path("npc-local-runs") / f"bench-{_digest(settings)}", settings)
        with progress:
            await run_items(todo, cast, settings["arms"], profile.candidates, results, done)
    return results


_GATE_EXAMPLES = """\b
Examples:
  npc-local bench gate
  npc-local bench gate --model tiny --steps 28 --repeats 9 --json
  npc-local bench gate --model full --device cuda --compile
"""


@bench.command(epilog=_GATE_EXAMPLES)
@click.option(
    "--model",
    "models",
    metavar="LIST",
    default="tiny,middle",
    show_default=True,
    help="tiny, middle, full (FLUX.1-dev's size, for a GPU), comma-separated.",
)
@click.option(
    "--steps",
    metavar="N",
    type=click.IntRange(min=1),
    help="Denoising steps.  [default: 20; full: 50]",
)
@click.option(
    "--negative-steps",
    metavar="N",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="First denoising steps that the gated negative acts in.",
)
@click.option(
    "--size",
    metavar="PIXELS",
    type=click.IntRange(min=1),
    help="Side of the square image.  [default: 256; full: 1024]",
)
@click.option(
    "--repeats",
    metavar="N",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Timed images of each way of sampling.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to measure; auto takes the GPU if there is one.",
)
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="Of the weights; auto is bfloat16 on a GPU, float32 on a CPU.",
)
@click.option(
    "--compile/--no-compile",
    "compiled",
    default=False,
    help="Measure again with the transformer's repeated blocks compiled.  [default: no]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the times as one JSON object.")
def gate(
    models: str,
    steps: int | None,
    negative_steps: int,
    size: int | None,
    repeats: int,
    device: str,
    dtype: str,
    compiled: bool,
    as_json: bool,
) -> None:
    """Time of one image without a negative, with one in the first steps, and in every step.

    FLUX.1 transformers with random weights, so no model files are needed: time depends on their
    size alone. Prompt embeddings are given and the latents are not decoded, so that only sampling
    is measured. A ratio is the median of the rounds' ratios to the time without a negative.
    """
    from npc_local.bench import gate_bench, gate_tables, random_flux
    from npc_local.display import libraries_quiet
    from npc_local.offline import go_offline

    names = _list(models, "--model", tuple(random_flux.MODELS))
    go_offline()
    with libraries_quiet() as stdout:
        place = random_flux.choose_device(device)
        jobs = [
            random_flux.plan(
                name,
                steps=steps,
                negative_steps=negative_steps,
                size=size,
                repeats=repeats,
                device=place,
                dtype=dtype,
            )
            for name in names
        ]
        results = []
        progress = _progress()
        total = sum(job.total_work(compiled=compiled) for job in jobs)
        task = progress.add_task("starting", total=total)

        def told(doing: str, work: float) -> None:
            progress.update(task, advance=work, description=doing)

        with progress:
            for job in jobs:
                results += gate_bench.measure(job, compiled=compiled, told=told)
        where = gate_tables.machine(jobs[0])
    if as_json:
        found = {"machine": where, "results": [result.as_dict() for result in results]}
        print(json.dumps(found), file=stdout)
        return
    print(f"{gate_tables.title(where)}\n\n{gate_tables.markdown(results)}", end="", file=stdout)


def _progress() -> Progress:
    """Return a bar on standard error, with time taken and time left."""
    from rich.progress import Progress, TimeElapsedColumn, TimeRemainingColumn

    from npc_local.display import error_console

    columns = (*Progress.get_default_columns()[:-1], TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=error_console())


def _list(text: str, option: str, known: Sequence[str]) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ConfigError(f"{option}: found {text!r}; known: {', '.join(known)}")
    return names


def _numbers(text: str) -> list[int]:
    try:
        numbers = list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        numbers = [-1]
    if min(numbers) < 0 or max(numbers) > 9_999:
        raise ConfigError(f"--seeds: found {text!r}; must be numbers from 0 to 9999, like 0,1,2")
    return numbers


def _digest(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
