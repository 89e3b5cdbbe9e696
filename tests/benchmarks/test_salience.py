"""`python -m benchmarks salience`: both ways score alike, what is counted; never how long."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.salience import measure as bench
from benchmarks.salience.measure import Machine, Results, agreement, measure
from benchmarks.salience.random_t5 import PieceTokenizer, cases, random_t5

MACHINE = Machine({"float32": 1e12, "bfloat16": 1e12}, 1e10)  # measuring it takes seconds
WAYS = [
    ("authors", "float32"),
    ("released, cold", "float32"),
    ("released, warm", "float32"),
    ("paper, cold", "float32"),
    ("paper, warm", "float32"),
    ("released, cold", "bfloat16"),
    ("released, warm", "bfloat16"),
]


@pytest.fixture(scope="module")
def found() -> Results:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "_machine", lambda _device: MACHINE)
        model = random_t5("tiny", "cpu")
        return measure(model, cases(2), cases(10), 1, lambda _doing: None)


def test_the_machine_is_measured() -> None:
    machine = bench._speeds(torch.device("cpu"), side=16, length=256)
    assert machine.flops.keys() == {"float32", "bfloat16"}
    assert all(speed > 0 for speed in (machine.bandwidth, *machine.flops.values()))


def test_every_way_is_measured(found: Results) -> None:
    assert [(way.name, way.dtype) for way in found.ways] == WAYS
    assert all(way.seconds > 0 and way.floor > 0 for way in found.ways)
    assert found.batched.keys() == {"float32", "bfloat16"}


def test_both_ways_give_the_same_scores(found: Results) -> None:
    assert found.exact.apart < 1e-4
    assert (found.exact.same_ranking, found.exact.pairs) == (1.0, 1.0)


def test_the_authors_way_pads_and_asks_text_by_text(found: Results) -> None:
    authors, cold, warm, *_ = found.ways
    case = cases(2)
    assert authors.tokens > 512 * (1 + len(case[0].negatives))
    assert authors.passes > 15
    assert cold.passes == warm.passes == 1
    tokenizer = PieceTokenizer()
    sentences = [
        sum(len(tokenizer(text).input_ids) for text in (some.prompt, *some.negatives))
        for some in case
    ]
    assert warm.tokens == sum(sentences) / 2  # all words are known by then
    assert cold.tokens > warm.tokens


def test_agreement_by_hand() -> None:
    first = [[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]]
    second = [[3.0, 1.0, 2.0], [1.0, 2.0, 3.5]]
    found = agreement(first, second)
    assert found.apart == 1.0
    assert found.same_ranking == 0.5
    assert found.same_first == 1.0
    assert found.pairs == pytest.approx(5 / 6)


def test_prompts_are_the_same_each_time_and_different_from_each_other() -> None:
    assert cases(50)[:10] == cases(10)
    assert len({case.prompt for case in cases(50)}) > 45
    assert all(len(set(case.negatives)) == 5 for case in cases(50))


def test_the_command_prints_a_table_and_json(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "_machine", lambda _device: MACHINE)
    options = ["salience", "--size", "tiny", "--prompts", "1", "--many", "3"]
    options += ["--repeats", "1", "--device", "cpu"]
    printed = CliRunner().invoke(main, options)
    assert printed.exit_code == 0, printed.output
    for name, _ in WAYS:
        assert f"| {name} " in printed.stdout
    found = json.loads(CliRunner().invoke(main, [*options, "--json"]).stdout)
    assert [(way["name"], way["dtype"]) for way in found["ways"]] == WAYS
    assert found["exact"]["apart"] < 1e-4
    assert not list(tmp_path.iterdir())
