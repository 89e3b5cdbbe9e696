"""`npc-local bench gate`: forwards, images, tables and refusals; never how long it took."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from npc_local.bench.gate import measure, random_flux
from npc_local.bench.gate.measure import ModelTimings, Timing
from npc_local.bench.gate.random_flux import MODELS, WAYS, Setup, failures, plan
from npc_local.bench.gate.tables import machine as machine_of
from npc_local.bench.gate.tables import markdown, title
from npc_local.cli import main as cli
from npc_local.core.errors import ConfigError, GeneratorError

STEPS = 4


def planned(**changes):
    wanted = {
        "steps": STEPS,
        "negative_steps": 3,
        "size": 64,
        "repeats": 2,
        "device": "cpu",
        "dtype": "float32",
    }
    return plan("tiny", **wanted | changes)


@pytest.fixture(scope="module")
def subject():
    return random_flux.build(planned())


def image(subject, way, negative_steps=3, **more):
    return measure.sample(subject, way, steps=STEPS, negative_steps=negative_steps, size=64, **more)


def test_the_forwards_are_those_of_each_way(subject):
    messages = []
    made = {way: image(subject, way, on_status=messages.append) for way in WAYS}
    assert {way: one.forwards for way, one in made.items()} == {"none": 4, "gate": 7, "stock": 8}
    assert messages == [1, 1, 1, 1, 2, 2, 2, 1, 2, 2, 2, 2]
    assert all(one.seconds > 0 and one.peak_bytes is None for one in made.values())


def test_each_way_makes_its_own_image(subject):
    none, gate, stock = (image(subject, way).latents for way in WAYS)
    assert torch.equal(none, image(subject, "none").latents)
    for one, other in ((none, gate), (none, stock), (gate, stock)):
        assert not torch.equal(one, other)
    assert all(one.isfinite().all() and one.std() > 0.1 for one in (none, gate, stock))


def test_a_negative_gated_to_all_steps_is_the_stock_pipeline_s(subject):
    gated = image(subject, "gate", negative_steps=STEPS)
    stock = image(subject, "stock")
    assert torch.equal(gated.latents, stock.latents)
    assert gated.forwards == stock.forwards


def test_every_round_times_every_way_and_the_work_adds_up():
    setup = planned()
    messages = []
    (result,) = measure.measure(setup, on_status=lambda doing, work: messages.append((doing, work)))
    assert {way: found.forwards for way, found in result.ways.items()} == {
        "none": 4,
        "gate": 7,
        "stock": 8,
    }
    assert all(len(found.seconds) == 2 for found in result.ways.values())
    assert sum(work for _, work in messages) == pytest.approx(setup.total_work(compiled=False))
    rounds = list(dict.fromkeys(doing for doing, _ in messages))
    assert rounds == [
        "tiny: making weights",
        "tiny: warming up",
        *(f"tiny: {way}, 1 of 2" for way in ("none", "gate", "stock")),
        *(f"tiny: {way}, 2 of 2" for way in ("gate", "stock", "none")),
    ]


def test_compiled_is_measured_after_the_same_model_as_it_is(monkeypatch):
    from diffusers import FluxTransformer2DModel

    compiled = []
    slot = "compile_repeated_blocks"
    monkeypatch.setattr(FluxTransformer2DModel, slot, lambda self: compiled.append(self))
    results = measure.measure(planned(repeats=1), compiled=True)
    assert [result.compiled for result in results] == [False, True]
    assert len(compiled) == 1


def test_the_full_model_is_flux_dev():
    full = MODELS["full"]
    assert random_flux.count_parameters(full) == 11_901_408_320
    assert (full.size, full.steps, full.text_tokens) == (1024, 50, 512)
    assert full.config["axes_dims_rope"] == (16, 56, 56)
    sizes = [random_flux.count_parameters(model) for model in MODELS.values()]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("name", ["tiny", "middle"])
def test_rotary_axes_fill_a_head(name):
    config = MODELS[name].config
    assert sum(config["axes_dims_rope"]) == config["attention_head_dim"]


def test_types_follow_the_device():
    assert planned(dtype="auto").dtype == "float32"
    assert next(
        random_flux.build(planned(dtype="bfloat16")).pipe.transformer.parameters()
    ).dtype == (torch.bfloat16)
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"negative_steps": 5}, "--negative-steps: found 5; must be at most 4"),
        ({"steps": None, "negative_steps": 21}, "must be at most 20"),
        ({"size": 100}, "--size: found 100; must be a multiple of 16"),
        ({"size": 48}, "at least 64"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        planned(**changes)


def test_weights_that_cannot_fit_are_refused_before_they_are_made(monkeypatch):
    monkeypatch.setattr(random_flux.os, "sysconf", lambda name: 1000)
    with pytest.raises(GeneratorError, match=r"need 0\.0 GB.*smaller --model.*--dtype bfloat16"):
        planned()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "out of memory on cpu with tiny at"),
        (RuntimeError("[enforce] DefaultCPUAllocator: can't allocate"), "what may help: a smaller"),
        (RuntimeError("mat1 and mat2\nmore"), "the model failed: mat1 and mat2$"),
    ],
)
def test_failures_of_the_model_are_told(monkeypatch, error, message):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(measure, "sample", fail)
    with pytest.raises(GeneratorError, match=message):
        measure.measure(planned())


def test_failures_of_the_compiler_are_told():
    from torch._dynamo.exc import TorchDynamoException

    with (
        pytest.raises(GeneratorError, match=r"cannot be compiled: no g.*leave --compile out"),
        failures(planned()),
    ):
        raise TorchDynamoException("no g++")


def test_numbers_that_are_not_finite_are_refused(monkeypatch):
    made = measure.Sample(torch.tensor([1.0, float("nan")]), 1, 1.0, None)
    monkeypatch.setattr(measure, "sample", lambda *args, **kwargs: made)
    with pytest.raises(GeneratorError, match="not finite"):
        measure.measure(planned())


def made_up(peak=None, compiled=False):
    setup = Setup(
        model=MODELS["full"],
        steps=50,
        negative_steps=3,
        size=1024,
        repeats=3,
        device="cuda",
        dtype="bfloat16",
        parameters=11_901_408_320,
    )
    ways = {
        "none": Timing(50, (10.0, 20.0, 10.0), peak),
        "gate": Timing(53, (10.5, 21.0, 10.8), peak),
        "stock": Timing(100, (20.0, 40.0, 19.0), peak),
    }
    return ModelTimings(setup, compiled, ways)


def test_ratios_are_of_one_round():
    result = made_up()
    assert [result.ratio(way) for way in WAYS] == pytest.approx([1, 1.05, 2])
    assert [result.expected(way) for way in WAYS] == pytest.approx([1, 1.06, 2])


def test_the_table():
    lines = markdown([made_up(25_000_000_000), made_up(26_000_000_000, compiled=True)]).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert cells[0][-1] == "peak memory"
    assert cells[3] == [
        *("full", "11.9 B", "1024 x 1024", "50", "first 3", "53"),
        *("10.800", "10.500-21.000", "1.050", "1.060", "25.00 GB"),
    ]
    assert cells[7][0] == "full, compiled"
    assert cells[7][-1] == "26.00 GB"
    assert len({len(line) for line in lines}) == 1


def test_the_table_has_no_memory_without_a_gpu():
    assert "memory" not in markdown([made_up()])


def test_the_title():
    machine = machine_of(replace(planned(), repeats=7))
    assert "CPU, threads: " in title(machine)
    assert title(machine).endswith("in turn: 7.")
    assert "threads" not in title(machine | {"device": "cuda"})


@pytest.fixture
def command():
    def run(*arguments):
        return CliRunner().invoke(cli.main, ["bench", "gate", "--model", "tiny", *arguments])

    return run


SMALL = ("--size", "64", "--steps", "4", "--repeats", "1", "--device", "cpu")


def test_the_command_prints_a_table(command):
    result = command(*SMALL)
    assert result.exit_code == 0, result.output
    assert "4.9 M" in result.stdout
    assert "first 3" in result.stdout


def test_json_is_one_object(command):
    result = command(*SMALL, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    machine = {"device", "name", "threads", "dtype", "repeats", "torch", "diffusers"}
    assert set(found["machine"]) == machine
    (one,) = found["results"]
    assert set(one) == {
        *("model", "parameters", "size", "text_tokens", "steps", "negative_steps", "compiled"),
        "ways",
    }
    assert list(one["ways"]) == ["none", "gate", "stock"]
    assert set(one["ways"]["gate"]) == {
        *("forwards", "seconds", "median_seconds", "ratio", "expected_ratio", "peak_bytes"),
    }
    assert one["ways"]["gate"]["expected_ratio"] == 7 / 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "tiny,huge"], "--model: found 'tiny,huge'; known: tiny, middle, full"),
        (["--size", "100"], "--size: found 100"),
        (["--negative-steps", "30"], "--negative-steps: found 30"),
        (["--negative-steps", "0"], "--negative-steps"),
        (["--repeats", "0"], "--repeats"),
        (["--device", "tpu"], "--device"),
        (["--device", "cuda"], "--device cuda: PyTorch sees no GPU"),
    ],
)
def test_bad_options_are_refused(command, monkeypatch, arguments, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = command(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
