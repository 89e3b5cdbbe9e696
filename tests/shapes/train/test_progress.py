from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from npc_local.shapes.train.progress import Means, Run


def _parts():
    model = nn.Linear(2, 2)
    return model, torch.optim.AdamW(model.parameters(), lr=0.1)


def _step(model, optimizer):
    model(torch.randn(4, 2)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.fixture(autouse=True)
def _same_random_numbers():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path):
    run = Run(tmp_path, "stage", 4)
    model, optimizer = _parts()
    for step in run.count(run.resume(model=model, optimizers=[optimizer])):
        _step(model, optimizer)
        if step == 1:
            run.save(step + 1, model=model, optimizers=[optimizer])
    unbroken = model.weight.clone()

    torch.manual_seed(99)
    model, optimizer = _parts()
    start = run.resume(model=model, optimizers=[optimizer])
    assert start == 2
    for _ in run.count(start):
        _step(model, optimizer)
    assert torch.equal(model.weight, unbroken)


def test_a_kill_while_saving_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    run = Run(tmp_path, "stage", 4)
    model, _ = _parts()
    run.save(1, model=model)

    def half(state, file):
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        run.save(2, model=model)
    assert run.resume(model=model) == 1


def test_nothing_to_resume(tmp_path):
    assert Run(tmp_path, "stage", 4).resume(model=_parts()[0]) == 0


def test_due_at_round_numbers_and_at_the_end(tmp_path):
    run = Run(tmp_path, "stage", 25)
    assert [step for step in range(1, 26) if run.due(step, 10)] == [10, 20, 25]


def test_log_appends_lines_of_json(tmp_path):
    for step in (1, 2):
        Run(tmp_path, "stage", 2).log(step, loss=0.123456789)
    lines = (tmp_path / "stage" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 1, "loss": 0.12346},
        {"step": 2, "loss": 0.12346},
    ]


def test_means_start_over():
    means = Means()
    means.add(loss=torch.tensor(1.0), label=torch.tensor(4.0))
    means.add(loss=torch.tensor(2.0), label=torch.tensor(4.0))
    assert means.take() == {"loss": 1.5, "label": 4.0}
    means.add(loss=torch.tensor(5.0))
    assert means.take() == {"loss": 5.0}
