"""Salience scores as functions of text vectors alone; which texts, and how encoded: `scorer`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def paper(prompt: Tensor, negatives: Tensor, words: Tensor) -> Tensor:
    """Return the paper's score of each negative: mean over w in T(p) of cos(e_p - e_n, v_w).

    A negative that is the prompt itself has no direction and scores 0, as does every negative
    of a prompt without salient tokens.

    Args:
        prompt: e_p, shape (D,).
        negatives: e_n, shape (K, D).
        words: v_w for the W salient tokens, shape (W, D).

    Returns:
        Scores in [-1, 1], shape (K,).
    """
    from torch.nn.functional import cosine_similarity

    if len(words) == 0:
        return negatives.new_zeros(len(negatives))
    directions = prompt - negatives
    return cosine_similarity(directions[:, None], words[None, :], dim=-1).mean(dim=1)
