"""One pipeline in several threads: each waits its turn, and none waits for itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from npc_local.core.errors import ConfigError
from npc_local.core.records import Shot
from npc_local.generator.early_negative.gate import early_negative
from npc_local.generator.early_negative.turns import _turns, turn
from npc_local.generator.family import Pipeline
from npc_local.generator.pipeline_generator import PipelineGenerator
from tests.generator.families.case import PROMPTS, N
from tests.generator.families.flux import CASE

TEXTS = ["red", "one cat", "clock", "two"]
ARGUMENTS = {"num_inference_steps": N, "height": 32, "width": 32, "max_sequence_length": 24}


def at_once(work: Callable[[str], Any]) -> list[Any]:
    """Do the work for each text in a thread of its own, all at the same time."""
    ready = threading.Barrier(len(TEXTS))

    def begin(text: str) -> Any:
        ready.wait()
        return work(text)

    with ThreadPoolExecutor(len(TEXTS)) as pool:
        return list(pool.map(begin, TEXTS))


def latents(pipe: Pipeline, negative: str) -> bytes:
    made = CASE.sample(pipe, PROMPTS[:1], negative_prompt=[negative])
    return made.numpy().tobytes()


def gated(pipe: Pipeline, negative: str) -> bytes:
    with early_negative(pipe, 2):
        return latents(pipe, negative)


def test_each_thread_with_a_gate_of_its_own_waits_its_turn(pipe: Pipeline) -> None:
    expected = [gated(pipe, text) for text in TEXTS]
    assert at_once(lambda text: gated(pipe, text)) == expected


def test_threads_that_call_inside_one_gate_wait_their_turn(pipe: Pipeline) -> None:
    expected = [gated(pipe, text) for text in TEXTS]
    with early_negative(pipe, 2) as gate:
        assert at_once(lambda text: latents(pipe, text)) == expected
    assert gate.forwards == len(TEXTS) * (N + 2)


def test_pipelines_that_share_their_models_wait_their_turn(pipe: Pipeline) -> None:
    expected = [gated(pipe, text) for text in TEXTS]

    def with_a_twin(text: str) -> bytes:
        twin = type(pipe)(**pipe.components)
        twin.set_progress_bar_config(disable=True)
        return gated(twin, text)

    assert at_once(with_a_twin) == expected


@pytest.mark.parametrize("shared", [True, False], ids=["one generator", "a generator each"])
def test_generators_of_one_pipeline_wait_their_turn(pipe: Pipeline, shared: bool) -> None:
    common = PipelineGenerator(pipe, **ARGUMENTS)
    shots = {text: Shot(PROMPTS[0], text, 1) for text in TEXTS}
    expected = [common.generate(shot).image.tobytes() for shot in shots.values()]

    def make(text: str) -> bytes:
        generator = common if shared else PipelineGenerator(pipe, **ARGUMENTS)
        return generator.generate(shots[text]).image.tobytes()

    assert at_once(make) == expected


def test_an_image_inside_the_making_of_another_one_is_refused(pipe: Pipeline) -> None:
    generator = PipelineGenerator(pipe, **ARGUMENTS)
    shot = Shot(PROMPTS[0], "red", 1)
    expected = generator.generate(shot).image.tobytes()

    def again(done: int, steps: int) -> None:
        generator.generate(shot)

    with pytest.raises(ConfigError, match="from inside the making of another one"):
        generator.generate(shot, again)
    assert generator.generate(shot).image.tobytes() == expected


def test_a_turn_is_over_however_it_ends(pipe: Pipeline) -> None:
    with pytest.raises(ZeroDivisionError), turn(pipe, "busy"):
        raise ZeroDivisionError
    with turn(pipe, "busy"), turn(pipe, "another turn"):
        with pytest.raises(ConfigError, match="busy"), turn(pipe, "busy"):
            pass
        assert len(_turns) == 2
    assert not _turns


def test_an_error_in_one_thread_leaves_the_others_their_turn(pipe: Pipeline) -> None:
    def fail(*_: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    def work(text: str) -> bytes | str:
        if text != "red":
            return gated(pipe, text)
        with pytest.raises(KeyboardInterrupt), early_negative(pipe, 2):
            CASE.sample(pipe, PROMPTS[:1], negative_prompt=[text], callback_on_step_end=fail)
        return "failed"

    expected = ["failed", *(gated(pipe, text) for text in TEXTS[1:])]
    assert at_once(work) == expected
    assert isinstance(torch.get_num_threads(), int)
