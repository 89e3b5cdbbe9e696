"""`npc-local bench gate`: what a negative prompt costs in time. Imports click only at once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from npc_local.cli.bench.suite import listed

if TYPE_CHECKING:
    from rich.progress import Progress

_EXAMPLES = """\b
Examples:
  npc-local bench gate
  npc-local bench gate --model tiny --steps 28 --repeats 9 --json
  npc-local bench gate --model full --device cuda --compile
"""


@click.command(epilog=_EXAMPLES)
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
    from npc_local.bench.gate import measure as gate_bench
    from npc_local.bench.gate import random_flux
    from npc_local.bench.gate import tables as gate_tables
    from npc_local.core.offline.switches import go_offline
    from npc_local.core.terminal import libraries_quiet

    names = listed(models, "--model", tuple(random_flux.MODELS))
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

        def on_status(doing: str, work: float) -> None:
            progress.update(task, advance=work, description=doing)

        with progress:
            for job in jobs:
                results += gate_bench.measure(job, compiled=compiled, on_status=on_status)
        where = gate_tables.machine(jobs[0])
    if as_json:
        found = {"machine": where, "results": [result.as_dict() for result in results]}
        print(json.dumps(found), file=stdout)
        return
    print(f"{gate_tables.title(where)}\n\n{gate_tables.markdown(results)}", end="", file=stdout)


def _progress() -> Progress:
    """Return a bar on standard error, with time taken and time left."""
    from rich.progress import Progress, TimeElapsedColumn, TimeRemainingColumn

    from npc_local.core.terminal import error_console

    columns = (*Progress.get_default_columns()[:-1], TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=error_console())
