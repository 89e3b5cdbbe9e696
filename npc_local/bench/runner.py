"""Runs arms over the prompts of a benchmark, and has every result judged.

What a step is and whether it has been done is `stages`' matter, how many prompts are under way the
engine's, what the numbers mean `summary`'s. A step that fails is an error of the arm that needed it
and of no other; it is never a wrong answer.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from PIL.Image import Image

from npc_local.backends.base import Backend
from npc_local.bench.arms import ARMS, Outcome, Trial
from npc_local.bench.suites.suite import BenchItem, Judgement, Suite
from npc_local.core.errors import NpcError, PromptError, StorageError
from npc_local.core.files.images import open_image
from npc_local.core.records import Shot
from npc_local.run.journal.journal import Journal
from npc_local.run.pool import ENDS_RUN, as_error, run_all
from npc_local.run.stages import Stages

log = logging.getLogger(__name__)

MAX_SEED = 99
"""The highest benchmark seed, so that no base image has the new seed of another."""
GIVEN = "images"
"""The arm that images made elsewhere stand for."""


@dataclass(frozen=True, slots=True)
class Task:
    """One prompt under one benchmark seed."""

    item: BenchItem
    seed: int

    @property
    def image_seed(self) -> int:
        """The base image's seed: of its own, also where two items have one prompt."""
        return 10_000 * self.seed + self.item.number


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one arm for one task.

    Attributes:
        outcome: how the arm ended; None if a step failed, or if the image was made elsewhere.
        judgement: of its result; None if there is none, or the judge call failed.
        error: what failed; None if nothing did.
        failed: in whose work.
        exit_code: of that error; 0 if nothing failed.
    """

    task: Task
    arm: str
    outcome: Outcome | None = None
    judgement: Judgement | None = None
    error: str | None = None
    failed: Literal["loop", "judge"] | None = None
    exit_code: int = 0


Done = Callable[[Result], None]


@dataclass(frozen=True, slots=True)
class Judge:
    """A benchmark's judge: `backend` is whom it asks, None if it needs none."""

    suite: Suite
    backend: Backend | None

    async def __call__(self, stages: Stages, item: BenchItem, image: Image) -> Judgement:
        """Judge one image, unless the journal has the answer; errors as the suite's."""
        key = {**self.suite.asked(self.backend, item), "image": image}
        work = partial(self.suite.judge, self.backend, item, image)
        return await stages.once("judge", key, work, Judgement)


def choose(items: Sequence[BenchItem], limit: int | None) -> list[BenchItem]:
    """Return items in turn from each group, at most `limit`: a larger limit adds to a smaller."""
    before: Counter[str] = Counter()
    places = []
    for item in items:
        places.append(before[item.group])
        before[item.group] += 1
    turns = sorted(zip(places, range(len(items)), strict=True))
    return [items[index] for _, index in turns[:limit]]


def tasks(items: Sequence[BenchItem], seeds: Sequence[int]) -> list[Task]:
    """Return every item under every seed, one seed after the other."""
    return [Task(item, seed) for seed in seeds for item in items]


def check_prompts(items: Sequence[BenchItem], agents: Sequence[Backend]) -> None:
    """Make sure that the agents can work from every prompt.

    Raises:
        PromptError: one of them cannot.
    """
    for item in items:
        for agent in agents:
            try:
                agent.accepts(item.prompt)
            except PromptError as error:
                raise PromptError(
                    f"backend {agent.name} cannot work from prompt {item.number}: {error}; "
                    "choose a profile whose agents can"
                ) from error


async def run(
    todo: Sequence[Task],
    arms: Sequence[str],
    stages: Stages,
    judge: Judge,
    *,
    budget: int,
    in_flight: int,
    done: Done,
) -> list[Result]:
    """Run every arm for every task; the results are in the order of tasks and arms.

    Args:
        todo: the tasks.
        arms: names of `ARMS`.
        stages: does the work.
        judge: judges the result of each arm.
        budget: images that an arm may make after the base image.
        in_flight: tasks under way at once.
        done: told each result as it comes.

    Raises:
        StorageError, ConfigError, DeviceLostError: nothing more can be done or kept.
    """

    async def work(task: Task) -> list[Result]:
        trial = Trial(task.item.prompt, task.image_seed, stages, budget)
        results = []
        with stages.search():
            for arm in arms:
                results.append(await _run_arm(task, arm, trial, stages, judge))
                done(results[-1])
        return results

    return await _all(todo, work, in_flight)


async def judge_images(
    todo: Sequence[Task],
    files: dict[int, Path],
    stages: Stages,
    judge: Judge,
    *,
    in_flight: int,
    done: Done,
) -> list[Result]:
    """Judge images made elsewhere, as the arm `GIVEN`.

    Args:
        todo: the tasks.
        files: the image of each item, by its number.
        stages: does the work; only the judge's.
        judge: judges each image.
        in_flight: images under way at once.
        done: told each result as it comes.

    Raises:
        StorageError, ConfigError, DeviceLostError: nothing more can be done or kept.
    """

    async def work(task: Task) -> list[Result]:
        try:
            image = open_image(files[task.item.number])
            result = Result(task, GIVEN, None, await judge(stages, task.item, image))
        except ENDS_RUN:
            raise
        except Exception as failure:
            error = _counted(failure)
            result = Result(
                task, GIVEN, error=str(error), failed="judge", exit_code=error.exit_code
            )
        done(result)
        return [result]

    return await _all(todo, work, in_flight)


def images(journal: Journal, results: Sequence[Result]) -> Iterator[tuple[BenchItem, Image]]:
    """Yield the result image of every arm that has one, from the journal.

    Raises:
        StorageError: an image is not there any more, or the journal cannot be read.
    """
    keys = {}
    for row in journal.rows("generate"):
        shot = row.inputs["shot"]
        keys[Shot(shot["prompt"], shot["negative"], shot["seed"])] = row.key
    for result in results:
        if result.outcome is None:
            continue
        kept = journal.find("generate", keys[result.outcome.result.shot])
        if kept is None or kept.image is None:
            raise StorageError(
                f"{journal.directory}: the image of prompt {result.task.item.number} is damaged; "
                "run the same command again, which makes it anew"
            )
        yield result.task.item, kept.image


def _counted(failure: Exception) -> NpcError:
    """Return an error to be counted; what nobody foresaw is one too, its traceback logged."""
    if isinstance(failure, NpcError):
        return failure
    log.exception("a benchmark's step")
    return as_error(failure)


async def _run_arm(task: Task, arm: str, trial: Trial, stages: Stages, judge: Judge) -> Result:
    """Run one arm and have its result judged; what fails is in the result."""
    outcome = None
    try:
        outcome, image = await trial.run(ARMS[arm])
        return Result(task, arm, outcome, await judge(stages, task.item, image))
    except ENDS_RUN:
        raise
    except Exception as failure:
        error = _counted(failure)
        return Result(
            task,
            arm,
            outcome,
            error=str(error),
            failed="loop" if outcome is None else "judge",
            exit_code=error.exit_code,
        )


async def _all(
    todo: Sequence[Task], work: Callable[[Task], Awaitable[list[Result]]], in_flight: int
) -> list[Result]:
    found = await run_all(todo, work, in_flight=in_flight, done=_ignore)
    results: list[Result] = []
    for one in found:
        if isinstance(one, NpcError):
            raise one  # `work` keeps errors in its results
        results += one
    return results


def _ignore(index: int, result: object) -> None:
    """`done` of each result has been called already."""
