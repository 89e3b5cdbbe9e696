"""`npc-local bench gate`: what a negative prompt costs in time. Imports click only at once."""

from __future__ import annotations

import json

import click

from npc_local.cli import options
from npc_local.cli.bench.suite import listed

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
@options.count("--steps", "Denoising steps.  [default: 20; full: 50]")
@options.count(
    "--negative-steps", "First denoising steps that the gated negative acts in.", default=3
)
@options.count("--size", "Side of the square image.  [default: 256; full: 1024]", metavar="PIXELS")
@options.count("--repeats", "Timed images of each way of sampling.", default=5)
@options.choice(
    "--device",
    ("auto", "cpu", "cuda"),
    "Where to measure; auto takes the GPU if there is one.",
)
@options.choice(
    "--dtype",
    ("auto", "float32", "bfloat16"),
    "Of the weights; auto is bfloat16 on a GPU, float32 on a CPU.",
)
@click.option(
    "--compile/--no-compile",
    "compiled",
    default=False,
    help="Measure again with the transformer's repeated blocks compiled.  [default: no]",
)
@options.as_json("Print the times as one JSON object.")
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
    from npc_local.bench.gate import random_flux, tables
    from npc_local.bench.gate.measure import measure
    from npc_local.core.offline.switches import go_offline
    from npc_local.core.terminal import Progress, libraries_quiet

    names = listed(models, "--model", tuple(random_flux.MODELS))
    go_offline()
    with libraries_quiet() as stdout:
        place = random_flux.choose_device(device)
        setups = [
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
        timings = []
        with Progress(sum(setup.total_work(compiled=compiled) for setup in setups)) as progress:
            for setup in setups:
                timings += measure(setup, compiled=compiled, on_status=progress.advance)
        machine = tables.machine(setups[0])
    if as_json:
        report = {"machine": machine, "results": [timing.as_dict() for timing in timings]}
        print(json.dumps(report), file=stdout)
        return
    print(f"{tables.title(machine)}\n\n{tables.markdown(timings)}", end="", file=stdout)
