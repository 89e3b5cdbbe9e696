"""`python -m benchmarks throughput`: how near a schedule comes to its busiest resource's own time.

Everything is real but the models, which only take time (`simulated_models`): the loop, its stages,
the journal on the disk, the turns on a shared GPU.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from benchmarks.options import as_json as as_json_option
from benchmarks.options import choice, count
from npc_local.run.pool import AGENTS

if TYPE_CHECKING:
    from benchmarks.throughput.simulated_models import Durations, SimulatedModels
    from npc_local.run.stages import Stages

Mode = Literal["resident", "phased"]
_MODES: tuple[Mode, ...] = ("resident", "phased")
_SIDE = 1024  # pixels: the images that memory is reckoned for
_AGENTS = ("checklist", "verify", "caption", "propose")
_EXAMPLES = """\b
Examples:
  python -m benchmarks throughput
  python -m benchmarks throughput --prompts 280 --mode phased
  python -m benchmarks throughput --agents 2 --no-journal --json
"""


@dataclass(frozen=True, slots=True)
class Result:
    """One mode's run.

    Attributes:
        mode: whether models were resident or took turns.
        prompts: how many.
        in_flight: prompts at once.
        agents: steps of agents at once.
        images: that were made.
        swaps: of models.
        least_swaps: the fewest that these prompts need, however they are scheduled.
        wall: seconds that the run took.
        busiest: the resource that was needed the longest.
        own: seconds that it is needed for, with no more than the fewest swaps: no schedule of
            these steps takes less.
        ratio: wall / own.
        sequential: seconds that the same steps take one after the other, each model resident.
    """

    mode: Mode
    prompts: int
    in_flight: int
    agents: int
    images: int
    swaps: int
    least_swaps: int
    wall: float
    busiest: str
    own: float
    ratio: float
    sequential: float


@click.command(epilog=_EXAMPLES)
@count("--prompts", 100, "Prompts to correct.")
@click.option(
    "--image",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=0.1,
    show_default=True,
    help="Time of an image; all other times follow it.",
)
@choice("--mode", ["both", *_MODES], "both", "All models on the GPU, or taking turns.")
@count("--agents", AGENTS, "Agents' stages at once.")
@click.option(
    "--journal/--no-journal",
    default=True,
    help="Keep each stage on the disk, whose time does not follow --image.  [default: yes]",
)
@as_json_option
def throughput(
    prompts: int, image: float, mode: str, agents: int, journal: bool, as_json: bool
) -> None:
    """Time of many prompts, beside that of the busiest resource alone.

    Generator and agents only take time, in the proportions (estimated) of FLUX.1-dev and a 32B
    vision-language model on one H200, scaled. Loop, journal and turns are the real ones.
    """
    from benchmarks.throughput.simulated_models import Durations

    durations = Durations().scaled(image)
    modes = [name for name in _MODES if mode in ("both", name)]
    results = [measure(name, prompts, durations, agents, journal=journal) for name in modes]
    if as_json:
        times = {"durations": asdict(durations), "results": list(map(asdict, results))}
        click.echo(json.dumps(times))
    else:
        click.echo(_table(results), nl=False)


def measure(
    mode: Mode,
    prompts: int,
    durations: Durations,
    agents: int,
    in_flight: int | None = None,
    *,
    journal: bool = True,
) -> Result:
    """Correct prompts in one mode.

    Args:
        mode: whether models are resident or take turns.
        prompts: how many.
        durations: of the steps.
        agents: steps of agents at once.
        in_flight: prompts at once; None takes what the engine takes, for large images.
        journal: whether each step is kept on the disk.
    """
    from benchmarks.throughput.simulated_models import CANDIDATES, SimulatedModels, least_swaps
    from benchmarks.throughput.simulated_models import prompts as simulated_prompts
    from npc_local.run.journal.journal import Journal
    from npc_local.run.pool import phased_in_flight, resident_in_flight
    from npc_local.run.stages import Stages

    if in_flight is None:
        if mode == "phased":
            in_flight = phased_in_flight(_SIDE, _SIDE, CANDIDATES)
        else:
            in_flight = resident_in_flight(agents, 1)
    models = SimulatedModels(durations)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        rows = stack.enter_context(Journal.open(Path(folder), {})) if journal else None
        stages = Stages(models.components(phased=mode == "phased"), rows, agents=agents)
        begun = time.perf_counter()
        asyncio.run(_correct(stages, prompts, in_flight))
        wall = time.perf_counter() - begun
    least = least_swaps(simulated_prompts(prompts)) if mode == "phased" else 0
    busiest, own = _busiest(models, agents, least)
    return Result(
        mode=mode,
        prompts=prompts,
        in_flight=in_flight,
        agents=agents,
        images=models.calls["image"],
        swaps=models.calls["swap"],
        least_swaps=least,
        wall=wall,
        busiest=busiest,
        own=own,
        ratio=wall / own,
        sequential=models.seconds("image", "rank", *_AGENTS),
    )


async def _correct(stages: Stages, prompts: int, in_flight: int) -> None:
    """Correct prompts; an error of one is a mistake in here."""
    from benchmarks.throughput import simulated_models as world
    from npc_local.core.errors import NpcError
    from npc_local.core.records import Correction
    from npc_local.loop import correct
    from npc_local.run.pool import for_each

    async def search(prompt: str) -> Correction:
        with stages.search():
            return await correct(prompt, stages, seed=0, candidates=world.CANDIDATES)

    def taken(index: int, result: Correction | NpcError) -> None:
        if isinstance(result, NpcError) or result.status == "error":
            raise RuntimeError(f"prompt {index}: {result}")

    await for_each(
        world.prompts(prompts),
        search,
        in_flight=in_flight,
        done=taken,
    )


def _busiest(models: SimulatedModels, agents: int, swaps: int) -> tuple[str, float]:
    """Return the resource that is needed the longest, and for how many seconds.

    In turns, the GPU is one resource: images, agents as many at once as there may be, and `swaps`,
    the fewest that are needed: those that a schedule makes beyond are its waste. 0: no turns.
    """
    images, agents_time = models.seconds("image"), models.seconds(*_AGENTS) / agents
    if swaps:
        return "GPU", images + models.seconds("rank") + swaps * models.durations.swap + agents_time
    return max(("generator", images), ("agents", agents_time), key=lambda resource: resource[1])


def _table(results: list[Result]) -> str:
    """Return the results as a table in markdown."""
    lines = [
        "| mode | prompts | in flight | images | swaps | swaps needed | busiest, its own time "
        "| wall | ratio | one after the other |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        cells = [
            result.mode,
            *(result.prompts, result.in_flight, result.images, result.swaps, result.least_swaps),
            f"{result.busiest}, {result.own:.2f} s",
            f"{result.wall:.2f} s",
            f"{result.ratio:.3f}",
            f"{result.sequential:.2f} s",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"
