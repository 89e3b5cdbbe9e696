"""The formula against arithmetic by hand."""

from __future__ import annotations

import pytest
import torch

from npc_local.salience import formulas


def test_mean_cosine_of_the_direction_by_hand() -> None:
    prompt = torch.tensor([3.0, 4.0])
    negatives = torch.tensor([[0.0, 0.0], [3.0, 3.0], [4.0, 4.0]])  # directions (3,4) (0,1) (-1,0)
    words = torch.tensor([[1.0, 0.0], [0.0, 5.0]])
    assert formulas.paper(prompt, negatives, words).tolist() == pytest.approx([0.7, 0.5, -0.5])


def test_no_direction_scores_zero() -> None:
    prompt = torch.tensor([3.0, 4.0])
    assert formulas.paper(prompt, prompt[None], torch.eye(2)).tolist() == [0.0]


def test_no_words_score_zero() -> None:
    assert formulas.paper(torch.ones(2), torch.zeros(3, 2), torch.empty(0, 2)).tolist() == [0.0] * 3
