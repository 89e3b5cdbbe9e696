"""Each step is done once, waits for its turn, and leaves nothing behind when it fails."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
import time
import weakref
from collections import Counter
from dataclasses import replace

import pytest
from PIL import Image

from npc_local.agents import Rules
from npc_local.core.errors import (
    BackendError,
    BackendLostError,
    ConfigError,
    DeviceLostError,
    NpcError,
    StorageError,
)
from npc_local.core.records import Caption, Checklist, Demand, Negative, Render, Shot, Verdict
from npc_local.loop import correct
from npc_local.run.gpu_sharing import GpuSharing, Tenant
from npc_local.run.journal.journal import Journal
from npc_local.run.stages import Stages
from tests.run.journal.world import PROMPTS, Agents, Images, Log, cast_of, search_all
from tests.world import FakeScorer, HashScorer

PROMPT = PROMPTS[0]
SHOT = Shot(PROMPT, None, 7)
DEMANDS = Checklist((Demand("claim 1", "object"), Demand("claim 2", "object")))


@pytest.fixture
def log(tmp_path):
    return Log(tmp_path / "calls")


@pytest.fixture
def journal(tmp_path):
    with Journal.open(tmp_path / "run", {}) as journal:
        yield journal


def words(log):
    """Return the first word of each call: which step it was of."""
    return [line.split(" | ")[0] for line in log.lines()]


# ---------------------------------------------------------------- without a journal


def test_without_a_journal_nothing_is_hashed(log, monkeypatch):
    def never(*_):
        raise AssertionError("computed for nothing")

    for name in ("plain", "digest", "code_digest", "codec_of"):
        monkeypatch.setattr(f"npc_local.run.stages.{name}", never)
    cast = cast_of(log)
    for part in (cast.generator, cast.verifier, cast.scorer):
        monkeypatch.setattr(part, "fingerprint", never)
    found = asyncio.run(correct(PROMPT, Stages(cast), seed=7))
    assert found.status == "corrected"


def test_at_least_one_agent_call_at_a_time(log):
    with pytest.raises(ValueError, match="at least one"):
        Stages(cast_of(log), agents=0)


# ---------------------------------------------------------------- done once


def test_a_second_run_calls_nobody_and_says_the_same(log, journal):
    first = asyncio.run(search_all(Stages(cast_of(log), journal)))
    calls = len(log.lines())
    second = asyncio.run(search_all(Stages(cast_of(log), journal)))
    assert second == first
    assert len(log.lines()) == calls
    assert set(words(log)) == {"checklist", "generate", "verify", "caption", "propose", "rank"}


def test_without_a_journal_each_request_is_a_call(log):
    steps = Stages(cast_of(log))

    async def twice():
        await steps.checklist(PROMPT)
        await steps.checklist(PROMPT)

    asyncio.run(twice())
    assert words(log) == ["checklist"] * 2


def test_the_same_step_at_once_is_done_once(log, journal):
    async def scenario():
        steps = Stages(cast_of(log), journal, agents=4)
        renders = await asyncio.gather(*(steps.generate(SHOT) for _ in range(5)))
        images = {render.image.tobytes() for render in renders}
        assert len(images) == 1
        await asyncio.gather(*(steps.describe(render.image) for render in renders))
        assert not len(steps._flights)

    asyncio.run(scenario())
    assert words(log) == ["generate", "caption"]


def test_order_and_number_of_prompts_do_not_matter(log, journal):
    """F9: ten and then all of them, in another order."""
    prompts = list(PROMPTS)

    def run(chosen):
        return asyncio.run(search_all(Stages(cast_of(log), journal), chosen))

    [one] = run(prompts[:1])
    calls = Counter(log.lines())
    two, again = run(prompts[::-1])
    assert again == one
    assert not [line for line, count in (Counter(log.lines()) - calls).items() if count > 1]
    assert max(Counter(log.lines()).values()) == 1
    assert run(prompts) == [one, two]
    assert max(Counter(log.lines()).values()) == 1


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"rules": Rules("strict")}, {"verify"}),
        ({"rules": Rules(votes=3)}, {"verify"}),
        ({"rules": Rules(proposals="targeted-only")}, {"propose"}),
        ({"generator": "other"}, {"generate"}),
        ({"agents": "other"}, {"checklist", "verify", "caption", "propose"}),
        ({}, set()),
    ],
)
def test_what_changes_an_answer_is_in_its_key_and_nothing_else(log, journal, change, again):
    if "generator" in change:
        change["generator"] = Images(log, name="other")
    if "agents" in change:
        change["agents"] = Agents(log, name="other")

    async def all_steps(steps):
        await steps.checklist(PROMPT)
        image = (await steps.generate(SHOT)).image
        await steps.verify(PROMPT, DEMANDS, image)
        caption = await steps.describe(image)
        mode = steps.proposals
        await steps.propose(PROMPT, caption, "no second", 3)
        await steps.propose(PROMPT, caption, "no second", 3, mode)
        await steps.rank(PROMPT, [Negative("sand", "untargeted")])

    asyncio.run(all_steps(Stages(cast_of(log), journal)))
    calls = len(log.lines())
    asyncio.run(all_steps(Stages(cast_of(log, **change), journal)))
    assert set(words(log)[calls:]) == again


def test_changed_code_is_another_key(log, journal, monkeypatch):
    def ask():
        return asyncio.run(Stages(cast_of(log), journal).checklist(PROMPT))

    ask()
    monkeypatch.setattr("npc_local.run.stages.code_digest", lambda *parts: f"other {parts}")
    ask()
    assert words(log) == ["checklist"] * 2


def test_from_the_prompt_alone_the_key_has_no_caption(log, journal):
    async def scenario():
        steps = Stages(cast_of(log), journal)
        for caption, reason in ((None, ""), (Caption("sand"), "no second")):
            await steps.propose(PROMPT, caption, reason, 3, "prompt-only")

    asyncio.run(scenario())
    assert words(log) == ["propose"]


def test_the_judge_s_answers_are_kept_as_well(log, journal):
    async def judge():
        log("judge")
        return Verdict(True, 1.0, "")

    async def scenario(steps, **key):
        return await steps.once("judge", key, judge, Verdict)

    image, other = Image.new("RGB", (2, 2)), Image.new("RGB", (2, 2), "red")
    steps = Stages(cast_of(log), journal)
    for shown in (image, image.copy(), other):
        found = asyncio.run(scenario(steps, judge="who", image=shown, checklist=DEMANDS))
        assert found == Verdict(True, 1.0, "")
    assert words(log) == ["judge"] * 2
    [first, _] = journal.rows("judge")
    assert first.inputs["checklist"]["demands"][0] == {"text": "claim 1", "kind": "object"}
    with pytest.raises(ValueError, match="lock has no place in a key"):
        asyncio.run(scenario(steps, who=threading.Lock()))


# ---------------------------------------------------------------- failures


def failing(log, role, times=1):
    """Return agents that fail at one role for the first `times` times."""
    left = [role] * times
    return Agents(log, fails=lambda request: request.role in left and left.pop())


def test_two_who_wait_see_one_failure_and_the_next_tries_again(log, journal):
    async def scenario():
        steps = Stages(cast_of(log, agents=failing(log, "checklist")), journal)
        both = await asyncio.gather(
            *(steps.checklist(PROMPT) for _ in range(2)), return_exceptions=True
        )
        assert [str(error) for error in both] == ["server on fire"] * 2
        assert await steps.checklist(PROMPT) == DEMANDS

    asyncio.run(scenario())
    assert words(log) == ["failed", "checklist"]


def test_an_error_is_never_an_answer(log, journal):
    """F8 and F20: the image is kept, the proposer is not asked, and all of it ends well later."""
    whole = asyncio.run(search_all(Stages(cast_of(Log(log.path.with_name("other")))), [PROMPT]))
    steps = Stages(cast_of(log, agents=failing(log, "verify", times=2)), journal)
    for _ in range(2):
        [found] = asyncio.run(search_all(steps, [PROMPT]))
        assert (found["status"], found["error"]) == ("error", "server on fire")
    assert words(log) == ["checklist", "generate", "failed", "failed"]
    assert [row.kind for row in journal.rows()] == ["checklist", "generate"]
    failures = list(journal.failures())
    assert [(one.kind, one.error, one.exit_code) for one in failures] == [
        ("verify", "server on fire", BackendError.exit_code)
    ] * 2
    assert list(journal.failures(remaining=True)) == failures
    assert asyncio.run(search_all(Stages(cast_of(log), journal), [PROMPT])) == whole
    assert words(log).count("generate") == 4
    assert list(journal.failures(remaining=True)) == []
    assert len(list(journal.failures("verify"))) == 2
    assert list(journal.failures("generate")) == []


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_number_that_is_not_finite_is_never_kept(log, journal, bad):
    async def odd():
        return Verdict(True, bad, "")

    async def scenario():
        steps = Stages(cast_of(log, scorer=FakeScorer(sand=bad)), journal)
        with pytest.raises(NpcError, match="'sand' is not a number"):
            await steps.rank(PROMPT, [Negative("sand", "untargeted")])
        with pytest.raises(NpcError, match=r"judge: an answer that cannot be kept: .*JSON"):
            await steps.once("judge", {}, odd, Verdict)

    asyncio.run(scenario())
    assert list(journal.rows()) == []
    assert {failure.kind for failure in journal.failures()} == {"rank", "judge"}


def test_a_disk_that_is_full_is_no_failure_of_the_step(log, journal, monkeypatch):
    def full(row, image):
        raise StorageError("no space left")

    monkeypatch.setattr(journal, "add", full)
    with pytest.raises(StorageError, match="no space left"):
        asyncio.run(Stages(cast_of(log), journal).checklist(PROMPT))
    assert list(journal.failures()) == []


@pytest.mark.parametrize("kind", [DeviceLostError, ConfigError, StorageError, BackendLostError])
def test_what_ends_the_run_is_no_failure_of_the_step(log, journal, kind):
    """Else a benchmark that goes on would take the stage for one that cannot be done."""

    class Lost(Images):
        def generate(self, shot, on_step=None):
            raise kind("not this image's fault")

    with pytest.raises(kind):
        asyncio.run(Stages(cast_of(log, generator=Lost(log)), journal).generate(SHOT))
    assert list(journal.failures()) == []


def test_a_bug_is_no_failure_of_the_step(log, journal):
    class Broken(Images):
        def generate(self, shot, on_step=None):
            raise ZeroDivisionError("oops")

    steps = Stages(cast_of(log, generator=Broken(log)), journal)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(steps.generate(SHOT))
    assert list(journal.failures()) == []


def test_a_row_of_another_shape_is_done_again(log, journal):
    steps = Stages(cast_of(log), journal)
    asyncio.run(steps.checklist(PROMPT))
    [row] = journal.rows()
    journal.add(replace(row, value={"claims": []}))
    assert asyncio.run(steps.checklist(PROMPT)) == DEMANDS
    assert words(log) == ["checklist"] * 2
    assert "not a record of this version" in journal.notices[0]
    [row] = journal.rows()
    assert row.value["demands"][0]["text"] == "claim 1"


# ---------------------------------------------------------------- cancelling


class Held(Agents):
    """Answers once it is let go; notes that a call was cancelled."""

    def __init__(self, log):
        super().__init__(log)
        self.entered, self.release, self.cancelled = asyncio.Event(), asyncio.Event(), 0

    async def complete(self, request):
        self.entered.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return await super().complete(request)


async def _two_wait(steps, agents):
    tasks = [asyncio.create_task(steps.checklist(PROMPT)) for _ in range(2)]
    await agents.entered.wait()
    while not all(task._fut_waiter for task in tasks):
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    return tasks


def test_one_who_gives_up_does_not_take_the_work_from_the_other(log, journal):
    async def scenario():
        agents = Held(log)
        steps = Stages(cast_of(log, agents=agents), journal)
        first, second = await _two_wait(steps, agents)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        agents.release.set()
        assert await second == DEMANDS
        assert agents.cancelled == 0

    asyncio.run(scenario())
    assert words(log) == ["checklist"]


def test_when_all_give_up_the_call_ends_and_the_next_one_begins_anew(log, journal):
    async def scenario():
        agents = Held(log)
        steps = Stages(cast_of(log, agents=agents), journal)
        tasks = await _two_wait(steps, agents)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
        assert agents.cancelled == 1
        assert not len(steps._flights)
        agents.release.set()
        assert await steps.checklist(PROMPT) == DEMANDS

    asyncio.run(scenario())
    assert list(journal.failures()) == []


def test_an_answer_that_is_there_is_kept_although_nobody_waits(log, journal, monkeypatch):
    async def scenario():
        loop, adding, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
        add = journal.add

        def slow(row, image):
            loop.call_soon_threadsafe(adding.set)
            assert go_on.wait(10)
            add(row, image)

        monkeypatch.setattr(journal, "add", slow)
        task = asyncio.create_task(Stages(cast_of(log), journal).checklist(PROMPT))
        await adding.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()

    asyncio.run(scenario())
    journal._thread.shutdown()
    assert [row.kind for row in journal.rows()] == ["checklist"]


class HeldImages(Images):
    """Makes an image once it is let go, and watches that it makes one at a time."""

    def __init__(self, log, at_once=None):
        super().__init__(log)
        self.entered, self.release = threading.Semaphore(0), threading.Semaphore(0)
        self.busy, self.at_once = threading.Lock(), at_once

    def generate(self, shot, on_step=None):
        assert self.busy.acquire(blocking=False), "two images at once on one generator"
        try:
            self.entered.release()
            assert self.release.acquire(timeout=10)
            return super().generate(shot, on_step)
        finally:
            self.busy.release()


async def entered(generator):
    assert await asyncio.to_thread(generator.entered.acquire, timeout=10)


@pytest.mark.parametrize("kept", [False, True])
def test_an_image_in_the_making_keeps_its_generator_although_nobody_waits(log, journal, kept):
    async def scenario():
        generator = HeldImages(log)
        steps = Stages(cast_of(log, generator=generator), journal if kept else None)
        first = asyncio.create_task(steps.generate(SHOT))
        await entered(generator)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        second = asyncio.create_task(steps.generate(replace(SHOT, seed=8)))
        await asyncio.sleep(0.02)
        assert generator.busy.locked()
        generator.release.release()  # the first; the second may begin
        await entered(generator)
        generator.release.release()
        return await second

    assert isinstance(asyncio.run(scenario()), Render)
    assert len(log.lines()) == 2


# ---------------------------------------------------------------- resources


def test_every_device_has_its_own_thread_and_works_at_once(log):
    async def scenario():
        generators = [HeldImages(log) for _ in range(3)]
        cast = cast_of(log, generator=generators[0], more_generators=tuple(generators[1:]))
        steps = Stages(cast)
        tasks = [asyncio.create_task(steps.generate(replace(SHOT, seed=seed))) for seed in range(7)]
        for generator in generators:
            await entered(generator)  # all three, before any is done
        for generator in generators:
            generator.release.release(7)
        renders = await asyncio.gather(*tasks)
        single = [Images(log).generate(replace(SHOT, seed=seed)) for seed in range(7)]
        assert [one.image.tobytes() for one in renders] == [one.image.tobytes() for one in single]

    asyncio.run(scenario())


@pytest.mark.parametrize("agents", [1, 3])
def test_no_more_agent_calls_at_once_than_allowed(log, agents):
    class Counting(Agents):
        now = most = 0

        async def complete(self, request):
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.001)
            self.now -= 1
            return await super().complete(request)

    async def scenario():
        counting = Counting(log)
        steps = Stages(cast_of(log, agents=counting), agents=agents)
        await asyncio.gather(*(steps.checklist(f"{n} stars") for n in range(12)))
        return counting.most

    assert asyncio.run(scenario()) == agents


@pytest.mark.parametrize("shared", [True, False])
def test_a_scorer_on_the_generator_s_encoder_works_in_its_thread(log, shared):
    threads = {}

    class Where(HashScorer):
        def score(self, prompt, negatives):
            threads["scorer"] = threading.get_ident()
            return super().score(prompt, negatives)

    class WhereImages(Images):
        def generate(self, shot, on_step=None):
            threads["generator"] = threading.get_ident()
            return super().generate(shot, on_step)

    async def scenario():
        parts = {"generator": WhereImages(log), "scorer": Where(log)}
        steps = Stages(cast_of(log, shared_encoder=shared, **parts))
        await asyncio.gather(
            steps.generate(SHOT), steps.rank(PROMPT, [Negative("sand", "untargeted")])
        )

    asyncio.run(scenario())
    assert (threads["scorer"] == threads["generator"]) is shared
    assert threading.get_ident() not in threads.values()


class Gpu:
    """A GPU that one tenant at a time may work on; its history, one entry an exchange."""

    def __init__(self):
        self.holder, self.history = None, []

    def sharing(self, served=("agents",)):
        images, agents = (self._tenant(name) for name in ("images", "agents"))
        return GpuSharing(images, agents, frozenset(served))

    def _tenant(self, name):
        async def enter():
            assert self.holder is None
            self.holder = name
            self.history.append(name)

        async def leave():
            assert self.holder == name
            self.holder = None

        return Tenant(name, enter, leave)


class OnGpu(Agents):
    def __init__(self, log, gpu):
        super().__init__(log)
        self.gpu = gpu

    async def complete(self, request):
        assert self.gpu.holder == "agents"
        return await super().complete(request)


class ImagesOnGpu(Images):
    def __init__(self, log, gpu):
        super().__init__(log)
        self.gpu = gpu

    def generate(self, shot, on_step=None):
        assert self.gpu.holder == "images"
        return super().generate(shot, on_step)


@pytest.mark.parametrize("kept", [False, True])
def test_many_prompts_share_each_turn_on_the_gpu(log, journal, kept):
    gpu = Gpu()

    async def scenario():
        cast = cast_of(log, agents=OnGpu(log, gpu), generator=ImagesOnGpu(log, gpu))
        cast = replace(cast, gpu_sharing=gpu.sharing())
        steps = Stages(cast, journal if kept else None, agents=2)
        seeds = range(8)

        async def search(seed):
            with steps.search():
                return await correct(PROMPT, steps, seed=seed, candidates=3)

        found = await asyncio.gather(*map(search, seeds))
        await cast.gpu_sharing.close()
        assert [one.error for one in found] == [None] * len(seeds)
        return found

    found = asyncio.run(scenario())
    attempts = max(len(one.attempts) for one in found)
    assert attempts == 3
    # checklist; image; verify, caption and proposal; rank and image; verify; image; verify ...
    # And not one more because the journal takes its time between two of them.
    assert len(gpu.history) == 1 + 2 + 2 * attempts


def test_the_gpu_waits_for_an_answer_to_be_kept_and_the_next_question(log, journal, monkeypatch):
    """Else the images' side would take it in the milliseconds that the journal needs."""
    gpu, add = Gpu(), journal.add

    def slow(row, image):
        time.sleep(0.02)
        add(row, image)

    monkeypatch.setattr(journal, "add", slow)

    class OnGpuHeld(Held):
        async def complete(self, request):
            assert gpu.holder == "agents"
            return await super().complete(request)

    async def one_prompt(steps):
        with steps.search():
            await steps.checklist(PROMPT)
            await steps.propose(PROMPT, Caption("sand"), "no second", 3)

    async def one_image(steps):
        with steps.search():
            await steps.generate(SHOT)

    async def scenario():
        agents = OnGpuHeld(log)
        cast = cast_of(log, agents=agents, generator=ImagesOnGpu(log, gpu))
        steps = Stages(replace(cast, gpu_sharing=gpu.sharing()), journal)
        asking = asyncio.create_task(one_prompt(steps))
        await agents.entered.wait()
        making = asyncio.create_task(one_image(steps))
        await asyncio.sleep(0.05)  # it waits for its turn now
        agents.release.set()
        await asyncio.wait_for(asyncio.gather(asking, making), 10)

    asyncio.run(scenario())
    assert gpu.history == ["agents", "images"]


def test_an_answer_that_is_kept_takes_no_turn(log, journal):
    async def search(gpu):
        cast = cast_of(log, agents=OnGpu(log, gpu), generator=ImagesOnGpu(log, gpu))
        steps = Stages(replace(cast, gpu_sharing=gpu.sharing()), journal)
        return await search_all(steps, [PROMPT])

    first, second = Gpu(), Gpu()
    assert asyncio.run(search(first)) == asyncio.run(search(second))
    assert first.history
    assert second.history == []


def test_agents_elsewhere_take_no_turn(log):
    gpu = Gpu()

    async def scenario():
        cast = cast_of(log, generator=ImagesOnGpu(log, gpu))
        steps = Stages(replace(cast, gpu_sharing=gpu.sharing(served=())))
        await search_all(steps, [PROMPT])

    asyncio.run(scenario())
    assert gpu.history == ["images"]


def test_a_turn_lasts_until_the_image_is_made_although_nobody_waits(log):
    class Waiting(HeldImages):
        def generate(self, shot, on_step=None):
            render = super().generate(shot, on_step)
            assert gpu.holder == "images"
            done.append(True)
            return render

    gpu, done = Gpu(), []

    async def scenario():
        generator = Waiting(log)
        steps = Stages(replace(cast_of(log, generator=generator), gpu_sharing=gpu.sharing()))
        task = asyncio.create_task(steps.generate(SHOT))
        await entered(generator)
        task.cancel()
        await asyncio.wait([task])
        judging = asyncio.create_task(steps.checklist(PROMPT))
        await asyncio.sleep(0.02)
        assert gpu.holder == "images"
        generator.release.release()
        await judging
        assert done
        assert gpu.holder == "agents"

    asyncio.run(scenario())


def test_who_gives_up_while_queueing_holds_nothing(log):
    async def scenario():
        generator, gpu = HeldImages(log), Gpu()
        steps = Stages(replace(cast_of(log, generator=generator), gpu_sharing=gpu.sharing()))
        first = asyncio.create_task(steps.generate(SHOT))
        await entered(generator)
        queueing = [asyncio.create_task(steps.generate(SHOT)) for _ in range(3)]
        await asyncio.sleep(0.01)
        for task in queueing:
            task.cancel()
        await asyncio.wait(queueing)
        generator.release.release(2)
        await first
        await asyncio.wait_for(steps.checklist(PROMPT), 5)  # the GPU is free for the agents
        await asyncio.wait_for(steps.generate(SHOT), 5)  # and so is the generator

    asyncio.run(scenario())
    assert words(log) == ["generate", "checklist", "generate"]


# ---------------------------------------------------------------- cost


def test_the_ledger_has_what_each_step_took(log, journal):
    steps = Stages(cast_of(log, rules=Rules(votes=3)), journal)
    [found] = asyncio.run(search_all(steps, [PROMPT]))
    costs = journal.costs()
    images = len(found["attempts"])
    assert costs["generate"].cost.forwards == found["forwards"] == 10 * images
    judged = costs["verify"]
    assert (judged.steps, judged.failures) == (images, 0)
    spent = (judged.cost.calls, judged.cost.tokens_in, judged.cost.tokens_out)
    assert spent == (3 * images, 30 * images, 9 * images)
    assert costs["rank"].cost.calls == 0
    assert all(ledger.cost.peak_bytes > 1_000_000 for ledger in costs.values())
    again = Stages(cast_of(log, rules=Rules(votes=3)), journal)
    asyncio.run(search_all(again, [PROMPT]))
    assert journal.costs() == costs  # what was looked up costs nothing


def test_what_failed_costs_as_well(log, journal):
    class Half(Agents):
        def _checklist(self, request, pixel):
            return {"claims": []}

    steps = Stages(cast_of(log, agents=Half(log)), journal)
    with pytest.raises(BackendError, match="claims"):
        asyncio.run(steps.checklist(PROMPT))
    ledger = journal.costs()["checklist"]
    assert (ledger.steps, ledger.failures, ledger.cost.tokens_in) == (0, 1, 10)


def test_seconds_are_work_and_not_waiting(log, journal, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("npc_local.core.costs.time.perf_counter", lambda: clock[0])

    class Ticking(Agents):
        async def complete(self, request):
            await asyncio.sleep(0.001)
            clock[0] += 1
            return await super().complete(request)

    class TickingImages(Images):
        def generate(self, shot, on_step=None):
            clock[0] += 100
            return super().generate(shot, on_step)

    class TickingScores(HashScorer):
        def score(self, prompt, negatives):
            clock[0] += 10_000
            return super().score(prompt, negatives)

    async def scenario():
        parts = {"generator": TickingImages(log), "scorer": TickingScores(log)}
        steps = Stages(cast_of(log, agents=Ticking(log), **parts), journal, agents=1)
        await asyncio.gather(*(steps.checklist(f"{n} stars") for n in range(6)))
        await asyncio.gather(*(steps.generate(replace(SHOT, seed=n)) for n in range(6)))
        negatives = [Negative("sand", "untargeted")]
        await asyncio.gather(*(steps.rank(f"{n} stars", negatives) for n in range(6)))

    asyncio.run(scenario())
    seconds = {row.kind: set() for row in journal.rows()}
    for row in journal.rows():
        seconds[row.kind].add(row.cost.seconds)
    assert seconds == {"checklist": {1.0}, "generate": {100.0}, "rank": {10_000.0}}


# ---------------------------------------------------------------- memory


def test_no_image_outlives_its_step(log, journal):
    async def scenario():
        steps = Stages(cast_of(log), journal)
        render = await steps.generate(SHOT)
        await steps.verify(PROMPT, DEMANDS, render.image)
        alive = weakref.ref(render.image)
        del render
        gc.collect()
        return alive()

    assert asyncio.run(scenario()) is None


def test_memory_stays_flat_over_thousands_of_steps(log, tmp_path, monkeypatch):
    """Objects are counted, not bytes: what is kept a step would show as thousands of them."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)

    class Quiet(Images):
        def generate(self, shot, on_step=None):
            return Render(Image.new("RGB", (4, 4)), 1, 0.0)

    async def some(steps, seeds):
        for seed in seeds:
            render = await steps.generate(replace(SHOT, seed=seed))
            await steps.once("judge", {"seed": seed, "image": render.image}, _yes, bool)
        gc.collect()
        return len(gc.get_objects())

    async def _yes():
        return True

    async def scenario(journal):
        journal._database.execute("PRAGMA synchronous = OFF")
        steps = Stages(cast_of(log, generator=Quiet(log)), journal)
        first = await some(steps, range(100))
        last = await some(steps, range(100, 1_600))
        again = await some(steps, range(1_600))  # looked up, all of them
        count = sum(1 for _ in journal.rows())
        return first, last, again, count

    with Journal.open(tmp_path / "many", {}) as journal:
        first, last, again, count = asyncio.run(scenario(journal))
    assert count == 3_200
    assert max(last, again) - first < 500
