"""Salience scores as functions of text vectors alone; which texts, and how encoded: `scorer`.

Notation of the paper, section 3: e_p and e_n are the vectors of prompt and negative as sentences,
d = e_p - e_n, and v_w is the vector of a word or phrase w encoded alone. All cosines of one
negative are rows of one matrix; a vector without a direction has cosine 0 with everything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def cosines(prompt: Tensor, negatives: Tensor, words: Tensor) -> Tensor:
    """Return cos(e_p - e_n, v_w) for every negative and every word: what the scores are made of.

    Args:
        prompt: e_p, shape (D,).
        negatives: e_n, shape (K, D).
        words: v_w, shape (W, D).

    Returns:
        Shape (K, W), in [-1, 1].
    """
    from torch.nn.functional import cosine_similarity

    directions = prompt - negatives
    return cosine_similarity(directions[:, None], words[None, :], dim=-1)


def paper(words: Tensor) -> Tensor:
    """Return the paper's score: the mean over w in T(p) of cos(d, v_w).

    Args:
        words: the `cosines` of the salient tokens, shape (K, W).

    Returns:
        Scores in [-1, 1], shape (K,); 0 if there are no tokens.
    """
    return _mean(words)


def released(quantities: Tensor, objects: Tensor, negatives: Tensor) -> Tensor:
    """Return the score that the authors' released code computes.

    The mean over quantity words of cos(d, v_w), plus the mean over object words, minus
    cos(d, v_n) of the negative's own phrase. It differs from `paper` in that quantities and objects
    are averaged apart, and in the last term: a negative that already points away from the prompt
    (d and v_n opposed) gains.

    Args:
        quantities: the `cosines` of the quantity words, shape (K, Q).
        objects: the `cosines` of the object words, shape (K, O).
        negatives: cos(d, v_n) of each negative with its own phrase vector, shape (K,).

    Returns:
        Scores in [-3, 3], shape (K,); a mean over nothing is 0.
    """
    return _mean(quantities) + _mean(objects) - negatives


def _mean(values: Tensor) -> Tensor:
    return values.mean(dim=1) if values.shape[1] else values.new_zeros(len(values))
