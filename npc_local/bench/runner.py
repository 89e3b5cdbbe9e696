"""Runs arms over the prompts of a benchmark, and has every result judged.

What a stage is and whether it has been done is left to `stages`, how many prompts are under way to
`pool`, what the numbers mean to `analysis`. A stage that fails is an error of the arm that needed
it and of no other; it is never a wrong answer.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from PIL.Image import Image

from npc_local.backends.base import Backend
from npc_local.bench.arms import ARMS
from npc_local.bench.results import ArmResult, Task, TriedShot
from npc_local.bench.suites.suite import BenchItem, Judgement, Suite
from npc_local.core.errors import NpcError, PromptError, StorageError, as_error
from npc_local.core.files.images import open_image
from npc_local.loop import correct
from npc_local.run.journal import readers
from npc_local.run.journal.journal import Journal
from npc_local.run.pool import run_all
from npc_local.run.prompt_file import PromptReader
from npc_local.run.stages import Stages

log = logging.getLogger(__name__)

MAX_SEED = 99
"""The highest benchmark seed, so that no base image has the new seed of another."""
GIVEN = "images"
"""The arm that images made elsewhere stand for."""


Done = Callable[[ArmResult], None]


@dataclass(frozen=True, slots=True)
class Judge:
    """A benchmark's judge: `backend` is whom it asks, None if it needs none."""

    suite: Suite
    backend: Backend | None

    async def __call__(self, stages: Stages, item: BenchItem, image: Image) -> Judgement:
        """Judge one image, unless the journal has the answer; errors as the suite's."""
        key = {**self.suite.judgement_key(self.backend, item), "image": image}
        work = partial(self.suite.judge, self.backend, item, image)
        name = None if self.backend is None else self.backend.name
        return await stages.once("judge", key, work, Judgement, backend=name)


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


def check_prompts(items: Sequence[BenchItem], who: Sequence[PromptReader]) -> None:
    """Make sure that all who read prompts can work from every one.

    Raises:
        PromptError: one of them cannot.
    """
    for item in items:
        for reader in who:
            try:
                reader.accepts(item.prompt)
            except PromptError as error:
                name = getattr(reader, "name", None)
                subject = "the salience scorer" if name is None else f"backend {name}"
                raise PromptError(
                    f"{subject} cannot work from prompt {item.number}: {error}; "
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
) -> list[ArmResult]:
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

    async def work(task: Task) -> list[ArmResult]:
        results = []
        with stages.search():
            for arm in arms:
                results.append(await _run_arm(task, arm, stages, judge, budget))
                done(results[-1])
        return results

    return await _all(todo, work, in_flight)


async def judge_images(
    todo: Sequence[Task],
    files: Mapping[int, Path],
    stages: Stages,
    judge: Judge,
    *,
    in_flight: int,
    done: Done,
) -> list[ArmResult]:
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

    async def work(task: Task) -> list[ArmResult]:
        result = ArmResult(task, GIVEN)
        try:
            image = open_image(files[task.item.number])
            result = replace(result, judgement=await judge(stages, task.item, image))
        except Exception as failure:
            result = _failed(result, "judge", failure)
        done(result)
        return [result]

    return await _all(todo, work, in_flight)


def images(journal: Journal, results: Sequence[ArmResult]) -> Iterator[tuple[BenchItem, Image]]:
    """Yield the result image of every arm that has one, from the journal.

    Raises:
        StorageError: an image is not there any more, or the journal cannot be read.
    """
    renders = {render.shot: render for render in readers.renders(journal)}
    for result in results:
        if result.answer is None:
            continue
        render = renders.get(result.answer.shot)  # a damaged row is passed over
        image = None if render is None else readers.image(journal, render)
        if image is None:
            raise StorageError(
                f"{journal.directory}: the image of prompt {result.task.item.number} is damaged; "
                "run the same command again, which makes it anew"
            )
        yield result.task.item, image


async def _run_arm(task: Task, arm: str, stages: Stages, judge: Judge, budget: int) -> ArmResult:
    """Run one arm and have its result judged; what fails is in the result."""
    result, stages = ArmResult(task, arm), stages.made_for(arm, task.image_seed)
    try:
        correction = await correct(
            task.item.prompt,
            stages,
            seed=task.image_seed,
            candidates=budget,
            plan=ARMS[arm].plan,
        )
    except Exception as failure:
        return _failed(result, "loop", failure)
    if correction.original is None or correction.answer is None:  # a stage failed: nothing counts
        error, code = correction.error, correction.exit_code or 0
        return replace(result, error=error, failed="loop", exit_code=code)
    tried = tuple(map(TriedShot.of, (correction.original, *correction.attempts)))
    result = replace(result, tried=tried, answer=TriedShot.of(correction.answer))
    try:
        image = correction.answer.render.image
        return replace(result, judgement=await judge(stages, task.item, image))
    except Exception as failure:
        return _failed(result, "judge", failure)


def _failed(result: ArmResult, work: Literal["loop", "judge"], failure: Exception) -> ArmResult:
    """Return a result with what failed; what nobody foresaw is logged and counts as well.

    Raises:
        StorageError, ConfigError, DeviceLostError: the failure, if it ends the run.
    """
    error = as_error(failure)
    if error.ends_run:
        raise failure
    if error is not failure:
        log.error("a benchmark's %s", work, exc_info=failure)
    return replace(result, error=str(error), failed=work, exit_code=error.exit_code)


async def _all(
    todo: Sequence[Task], work: Callable[[Task], Awaitable[list[ArmResult]]], in_flight: int
) -> list[ArmResult]:
    results: list[ArmResult] = []
    for of_task in await run_all(todo, work, in_flight=in_flight):
        if isinstance(of_task, NpcError):
            raise of_task  # `work` keeps errors in its results
        results += of_task
    return results
