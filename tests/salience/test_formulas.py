"""The formulas against arithmetic by hand."""

from __future__ import annotations

import pytest
import torch

from npc_local.salience import formulas

PROMPT = torch.tensor([3.0, 4.0])
NEGATIVES = torch.tensor([[0.0, 0.0], [3.0, 3.0], [4.0, 4.0]])  # directions (3,4) (0,1) (-1,0)
WORDS = torch.tensor([[1.0, 0.0], [0.0, 5.0]])


def test_cosines_of_the_directions_by_hand() -> None:
    expected = [[0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]]
    found = formulas.cosines(PROMPT, NEGATIVES, WORDS)
    assert found.tolist() == [pytest.approx(row) for row in expected]


def test_no_direction_has_cosine_zero() -> None:
    assert formulas.cosines(PROMPT, PROMPT[None], WORDS).tolist() == [[0.0, 0.0]]


def test_a_word_without_a_vector_has_cosine_zero() -> None:
    assert formulas.cosines(PROMPT, NEGATIVES[:1], torch.zeros(1, 2)).tolist() == [[0.0]]


def test_the_papers_score_is_the_mean() -> None:
    each = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    assert formulas.paper(each).tolist() == pytest.approx([0.7, 0.5])


def test_the_released_score_by_hand() -> None:
    quantities = torch.tensor([[0.5, 0.1], [0.0, 0.4]])
    objects = torch.tensor([[0.2], [-0.6]])
    own = torch.tensor([-0.9, 0.3])
    assert formulas.released(quantities, objects, own).tolist() == pytest.approx([1.4, -0.7])


def test_a_mean_over_nothing_is_zero() -> None:
    nothing = torch.empty(3, 0)
    assert formulas.paper(nothing).tolist() == [0.0] * 3
    own = torch.tensor([0.1, 0.2, 0.3])
    assert formulas.released(nothing, nothing, own).tolist() == pytest.approx([-0.1, -0.2, -0.3])
