"""Runs of all arms over all benchmarks: shared steps, stops, errors, retries, limits."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace

import pytest

from npc_local.bench.analysis.summarise import summarise
from npc_local.bench.analysis.summary import ArmErrors
from npc_local.bench.arms import ARMS
from npc_local.bench.results import Task
from npc_local.bench.runner import Judge, check_prompts, choose, images, run, tasks
from npc_local.bench.suites.geneval_pp import GenEvalPlusPlus
from npc_local.bench.suites.imagine import ImagineBench
from npc_local.bench.suites.shapes import ShapesBench
from npc_local.bench.suites.suite import BenchItem
from npc_local.core.errors import PromptError, StorageError
from npc_local.run.journal.sticky_failures import SettledJournal
from npc_local.run.stages import Stages
from tests.bench.suites.fakes import RECORDS, write
from tests.bench.world import Agents, Images, components_of

ARMS_ALL = list(ARMS)
IDENTITY = {"world": 1}


@pytest.fixture
def suites(tmp_path):
    geneval = write(tmp_path / "geneval_pp.jsonl", RECORDS["geneval++"]())
    imagine = write(tmp_path / "imagine_bench.jsonl", RECORDS["imagine"]())
    return {
        "geneval++": GenEvalPlusPlus(geneval),
        "imagine": ImagineBench(imagine),
        "shapes": ShapesBench(2),
    }


class World:
    """A run directory and who plays; every `run` is a new process as far as the journal knows."""

    def __init__(self, directory, suite, *, arms=ARMS_ALL, limit=7, seeds=(0,), in_flight=4):
        self.directory, self.suite, self.arms = directory, suite, arms
        self.limit, self.seeds, self.in_flight = limit, seeds, in_flight
        self.reverse = False

    def run(self, generator=None, agents=None, *, judge=None, retry=False, stop_after=None):
        """Return results, summary, and who played."""
        generator, agents = generator or Images(), agents or Agents()

        async def play():
            with SettledJournal.open(self.directory, IDENTITY) as journal:
                if retry:
                    journal.retry_errors()
                components = components_of(generator, agents, judge)
                stages = Stages(components, journal, agents=3)
                todo = tasks(choose(self.suite.items(), self.limit), self.seeds)
                done = Counter()
                me = asyncio.current_task()

                def counted(result):
                    done["results"] += 1
                    if done["results"] == stop_after:
                        me.cancel()

                results = await run(
                    todo[::-1] if self.reverse else todo,
                    self.arms,
                    stages,
                    Judge(self.suite, components.judge if self.suite.asks else None),
                    budget=3,
                    in_flight=self.in_flight,
                    done=counted,
                )
                costs = journal.costs()
                return results, summarise(
                    self.suite, results, self.arms, judge="somebody", costs=costs
                )

        results, summary = asyncio.run(play())
        return results, summary, generator, agents


def without_times(summary):
    """A summary without what differs between two runs of the same."""
    return replace(summary, costs={})


@pytest.mark.parametrize("name", ["geneval++", "imagine", "shapes"])
def test_all_arms_over_every_benchmark(tmp_path, suites, name):
    suite = suites[name]
    results, summary, generator, agents = World(
        tmp_path / "run", suite, limit=None if name == "shapes" else 12
    ).run()
    prompts = 14 if name == "shapes" else 12
    assert [(r.task.item.number, r.arm) for r in results] == [
        (item.number, arm)
        for item in choose(suite.items(), 12 if prompts == 12 else None)
        for arm in ARMS
    ]
    assert not any(result.error for result in results)
    shots = {one.shot for result in results for one in result.tried}
    assert len(generator.shots) == len(shots)  # eight arms, and each image once
    assert agents.asked["verify"] == len(shots)
    assert agents.asked["checklist"] == len({r.task.item.prompt for r in results})
    final = {(r.task.item.number, r.answer.shot) for r in results}
    if suite.asks:
        assert agents.asked["judge"] == len(final)
    else:
        assert agents.asked["judge"] == 0
    assert summary.agreement.images == len(final)
    assert all(summary.arms[arm].score is not None for arm in ARMS)
    json.dumps(summary.data())


@pytest.mark.parametrize("name", ["geneval++", "imagine", "shapes"])
def test_a_run_that_is_stopped_goes_on_to_the_same_numbers(tmp_path, suites, name):
    whole, summary, _, _ = World(tmp_path / "whole", suites[name]).run()
    stopped = World(tmp_path / "stopped", suites[name])
    made, asked = Counter(), Counter()
    for stop_after in (5, 25, None):
        generator, agents = Images(), Agents()
        try:
            results, again, _, _ = stopped.run(generator, agents, stop_after=stop_after)
        except asyncio.CancelledError:
            assert stop_after is not None
        made.update(generator.shots)
        asked.update(agents.asked)
    assert results == whole
    assert without_times(again) == without_times(summary)
    # What is lost with each stop: the image under way, and the calls.
    assert made.total() <= len(made) + 2
    assert asked["judge"] <= len(whole) + 2 * 3


def test_the_order_of_tasks_changes_no_number(tmp_path, suites):
    forward = World(tmp_path / "forward", suites["geneval++"], seeds=(0, 1), limit=9)
    backward = World(tmp_path / "backward", suites["geneval++"], seeds=(0, 1), limit=9, in_flight=1)
    backward.reverse = True
    assert without_times(backward.run()[1]) == without_times(forward.run()[1])


def test_a_larger_limit_adds_to_a_smaller_one(tmp_path, suites):
    world = World(tmp_path / "run", suites["geneval++"], limit=10)
    first, _, generator, _ = world.run()
    world.limit = 21
    second, _, more, agents = world.run()
    assert second[: len(first)] == first
    assert not set(generator.shots) & set(more.shots)
    assert len({shot.prompt for shot in more.shots}) == 11
    assert agents.asked["checklist"] == 11


def test_a_limit_takes_evenly_from_all_groups(suites):
    for suite in suites.values():
        items = suite.items()
        for limit in (1, len(suite.groups), 3 * len(suite.groups) + 1):
            counted = Counter(item.group for item in choose(items, limit))
            assert counted.total() == min(limit, len(items))
            assert max(counted.values()) - min(counted[group] for group in suite.groups) <= 1
        assert sorted(item.number for item in choose(items, None)) == [i.number for i in items]


def test_every_task_has_a_seed_of_its_own(suites):
    todo = tasks(suites["shapes"].items(), (0, 1, 99))
    assert len({task.image_seed for task in todo}) == len(todo)


class Flaky(Agents):
    """A judge that fails for some prompts while it is ill."""

    def __init__(self, ill):
        super().__init__(name="judge", fails=self.unwell)
        self.ill = ill

    def unwell(self, request):
        return any(word in request.user for word in self.ill)


def test_failed_judge_calls_withhold_the_headline_until_they_are_redone(tmp_path, suites):
    suite = suites["geneval++"]
    world = World(tmp_path / "run", suite)
    bad = choose(suite.items(), 7)[2]
    ill = Flaky([bad.prompt])
    results, summary, _, _ = world.run(judge=ill)
    failed = [result for result in results if result.error]
    assert {result.task.item.number for result in failed} == {bad.number}
    assert {result.failed for result in failed} == {"judge"}
    assert all(result.exit_code == 4 and result.answer is not None for result in failed)
    for arm in summary.arms.values():
        assert arm.score is None
        assert arm.interval_95 is None
        assert arm.errors == ArmErrors(loop=0, judge=1)
        assert arm.groups[bad.group].value is None
        assert arm.groups["counting"].value is not None
    assert all(pair.p is None and pair.difference is None for pair in summary.pairs)
    assert sum(error.results for error in summary.errors) == len(failed)

    # Going on asks nobody again.
    well = Flaky([])
    _, same, again, nobody = world.run(judge=well)
    assert without_times(same) == without_times(summary)
    assert (again.shots, nobody.asked, well.asked) == ([], {}, {})

    # Retrying asks exactly what failed.
    _, healed, again, nobody = world.run(judge=well, retry=True)
    shots = {result.answer.shot for result in failed}
    assert (again.shots, nobody.asked) == ([], {})
    assert well.asked == {"judge": len(shots)}
    assert healed.errors == ()
    _, never_ill, _, _ = World(tmp_path / "other", suite).run(judge=Flaky([]))
    assert without_times(healed) == without_times(never_ill)


def test_failed_steps_are_errors_of_their_arms_until_they_are_redone(tmp_path, suites):
    suite = suites["shapes"]
    world = World(tmp_path / "run", suite)
    ill = Agents(fails=lambda request: request.role == "caption")
    results, summary, _, _ = world.run(agents=ill)
    wrong = {r.task.item.number for r in results if r.arm == "base" and not r.answer.correct}
    assert wrong
    assert {(r.task.item.number, r.arm) for r in results if r.error} == {
        (number, arm)
        for number in wrong
        for arm in ("npc", "targeted-only", "untargeted-only", "random-rank", "npc+reseed")
    }
    assert ill.asked["caption"] == len(wrong)  # five arms need it; it was asked once
    assert summary.arms["npc"].score is None
    assert summary.arms["npc"].verifier is None
    assert summary.arms["npc"].images_per_failing_prompt is None
    assert summary.arms["reseed"].score is not None
    well = Agents()
    results, summary, _, _ = world.run(agents=well, retry=True)
    assert not any(result.error for result in results)
    assert well.asked["checklist"] == 0
    assert well.asked["caption"] == len(wrong)
    _, never_ill, _, _ = World(tmp_path / "other", suite).run()
    assert without_times(summary) == without_times(never_ill)


def test_a_generator_that_fails_spoils_its_own_images_only(tmp_path, suites):
    world = World(tmp_path / "run", suites["shapes"], in_flight=1)
    results, _, _, _ = world.run(generator=Images(fail_at=3))
    assert {result.exit_code for result in results if result.error} == {6}
    assert any(result.error is None for result in results)


def test_a_bug_that_one_prompt_meets_spoils_that_prompt_only(tmp_path, suites):
    class Poisoned(Agents):
        async def complete(self, request):
            if request.role == "checklist" and request.fields["prompt"] == poison:
                raise KeyError("nobody foresaw this")
            return await super().complete(request)

    poison = suites["shapes"].items()[0].prompt
    results, _, _, _ = World(tmp_path / "run", suites["shapes"]).run(agents=Poisoned())
    failed = [result for result in results if result.error]
    assert {result.task.item.prompt for result in failed} == {poison}
    assert {result.exit_code for result in failed} == {1}
    assert "a bug in npc-local or a library: KeyError" in failed[0].error
    assert len(failed) < len(results)


def test_storage_that_fails_ends_the_run(tmp_path, suites, monkeypatch):
    def full(self, row, image=None):
        raise StorageError("no space left")

    monkeypatch.setattr(SettledJournal, "add", full)
    with pytest.raises(StorageError, match="no space left"):
        World(tmp_path / "run", suites["shapes"]).run()


def test_result_images_are_the_journal_s(tmp_path, suites):
    world = World(tmp_path / "run", suites["shapes"])
    results, _, _, _ = world.run()
    with SettledJournal.open(world.directory, IDENTITY) as journal:
        shown = list(images(journal, results))
        (one,) = [r for r in results if r.more][:1]
        [(item, image)] = images(journal, [one])
        expected = Images().generate(one.answer.shot).image
        assert (item, image.tobytes()) == (one.task.item, expected.tobytes())
    assert len(shown) == len(results)


def test_prompts_that_agents_cannot_work_from_are_told_before_any_work(suites):
    class Narrow(Agents):
        def accepts(self, prompt):
            if "thing 1" in prompt:
                raise PromptError("'thing' is no shape")

    items = suites["geneval++"].items()
    with pytest.raises(PromptError, match=r"backend narrow cannot .* prompt 2: 'thing' is no"):
        check_prompts(items, [Agents(), Narrow(name="narrow")])
    check_prompts(items, [Agents()])


def test_a_task_is_a_prompt_and_a_seed():
    item = BenchItem(17, "a cat", "counting", {})
    assert Task(item, 2).image_seed == 20_017
    assert replace(Task(item, 2), seed=0).image_seed == 17
