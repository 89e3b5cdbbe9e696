"""The throughput benchmark: what it counts, what it calls own time, and that it runs."""

from __future__ import annotations

import asyncio
import json

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.throughput.command import _busiest, measure
from benchmarks.throughput.simulated_models import (
    CANDIDATES,
    Durations,
    SimulatedModels,
    least_swaps,
    prompts,
)
from npc_local.loop import correct
from npc_local.run.stages import Stages

QUICK = Durations().scaled(1e-4)


def right_at(prompt):
    return int(prompt.split()[-1])


def images_of(count):
    return sum(1 + min(right_at(prompt), CANDIDATES) for prompt in prompts(count))


def test_prompts_fail_as_often_as_in_the_paper():
    fates = [right_at(prompt) for prompt in prompts(5_000)]
    failing = [fate for fate in fates if fate]
    assert len(failing) / len(fates) == pytest.approx(0.63, abs=0.02)
    attempts = sum(min(fate, CANDIDATES) for fate in failing) / len(failing)
    assert attempts == pytest.approx(2.5, abs=0.1)
    assert sum(fate <= CANDIDATES for fate in failing) / len(failing) == pytest.approx(
        0.89, abs=0.02
    )
    assert prompts(10) == prompts(20)[:10]


@pytest.mark.parametrize("mode", ["resident", "phased"])
def test_every_step_is_counted_once(mode):
    found = measure(mode, 20, QUICK, agents=4)
    failing = sum(right_at(prompt) > 0 for prompt in prompts(20))
    assert found.images == images_of(20)
    assert bool(found.swaps) == (mode == "phased")
    steps = QUICK.checklist * 20 + (QUICK.image + QUICK.verify) * found.images
    steps += (QUICK.caption + QUICK.propose + QUICK.rank) * failing
    assert found.sequential == pytest.approx(steps)
    assert found.ratio == found.wall / found.own > 1


def test_swaps_are_few_where_a_turn_serves_many():
    many, few = (measure("phased", 40, QUICK, agents=4, in_flight=n) for n in (40, 4))
    assert many.images == few.images
    # 40 prompts together need at most one turn of each side an image of the longest search; more
    # only where an answer is on its way to the disk when the others are done.
    assert many.swaps <= 2 * (1 + 1 + CANDIDATES) + 6
    assert few.swaps > 2 * many.swaps


def test_own_time_is_that_of_the_busiest_resource():
    models = SimulatedModels(Durations(image=2, checklist=1, verify=3, swap=5))
    models.calls.update(image=10, verify=10, checklist=4, swap=2)
    assert _busiest(models, 1, 0) == ("agents", 34)
    assert _busiest(models, 2, 0) == ("generator", 20)
    assert _busiest(models, 2, 3) == ("GPU", 20 + 17 + 3 * 5)


def test_swaps_beyond_the_fewest_are_no_part_of_the_own_time():
    many, single = (measure("phased", 20, QUICK, agents=4, in_flight=n) for n in (20, 1))
    assert single.swaps > 2 * many.swaps
    assert single.own == many.own
    longest = max(min(right_at(prompt), CANDIDATES) for prompt in prompts(20))
    assert many.least_swaps == single.least_swaps == 1 + 2 * (1 + longest) <= many.swaps


def test_a_schedule_can_do_with_the_fewest_swaps():
    """One search alone, which no other can hold up."""
    for number, prompt in enumerate(prompts(6)):
        models = SimulatedModels(QUICK)
        stages = Stages(models.components(phased=True))
        asyncio.run(correct(prompt, stages, seed=0, candidates=CANDIDATES))
        assert models.calls["swap"] == least_swaps([prompt]), number


def test_the_help_shows_its_examples_line_by_line():
    shown = CliRunner().invoke(main, ["throughput", "--help"]).stdout
    assert "\\b" not in shown
    assert "  python -m benchmarks throughput --prompts 280 --mode phased\n" in shown


def test_the_command_prints_both_modes():
    arguments = ["throughput", "--prompts", "3", "--image", "0.0001"]
    table = CliRunner().invoke(main, arguments).stdout.splitlines()
    assert [line.split(" | ")[0] for line in table[2:]] == ["| resident", "| phased"]
    result = CliRunner().invoke(main, [*arguments, "--mode", "phased", "--json"])
    [found] = json.loads(result.stdout)["results"]
    assert (found["mode"], found["prompts"], found["images"]) == ("phased", 3, images_of(3))
