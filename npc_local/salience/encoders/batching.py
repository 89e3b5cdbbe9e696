"""Token ids of many texts as the passes that a model is given: packed into rows, or padded.

Knows nothing of tokenizers, of models, or of what is made of the hidden states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Ids = tuple[int, ...]
Pass = tuple["Tensor", dict[str, "Tensor"]]
"""Which text each token belongs to, shape (rows, width), and the model's inputs.

Tokens that belong to no text have the number of texts.
"""

_ROW = 256  # tokens a packed row: enough for a prompt with its negatives; attention grows with it
_SHORT = 8  # tokens: texts up to this long are padded to each other


def packed(
    ids: Sequence[Ids], tokens_at_once: Callable[[int], int], dtype: torch.dtype
) -> Iterator[Pass]:
    """Yield passes of rows that hold several texts each, one behind the other.

    A text attends to itself alone, so this is for models that have no positions of their own.

    Args:
        ids: of each text; those without a token are in no pass.
        tokens_at_once: how many tokens fit into a pass, given a row's length.
        dtype: of the mask, which is added to the attention's scores: shape (rows, 1, width, width).
    """
    import torch

    full = [index for index, tokens in enumerate(ids) if tokens]
    rows = _rows(full, lambda index: len(ids[index]))
    rows.sort(key=lambda row: sum(len(ids[index]) for index in row), reverse=True)
    while rows:
        width = sum(len(ids[index]) for index in rows[0])
        at_once = max(1, tokens_at_once(width) // width)
        batch, rows = rows[:at_once], rows[at_once:]
        tokens = torch.zeros(len(batch), width, dtype=torch.long)
        owners = torch.full((len(batch), width), len(ids), dtype=torch.long)
        for number, row in enumerate(batch):
            at = 0
            for index in row:
                end = at + len(ids[index])
                tokens[number, at:end] = torch.tensor(ids[index])
                owners[number, at:end] = index
                at = end
        # A row's unused end attends to itself: no softmax over nothing, and it goes nowhere.
        apart = owners[:, None, :, None] != owners[:, None, None, :]
        # Numbers to add, not booleans: eager attention takes those for 0 and 1 and adds them.
        mask = torch.zeros(apart.shape, dtype=dtype).masked_fill_(apart, torch.finfo(dtype).min)
        yield owners, {"input_ids": tokens, "attention_mask": mask}


def padded(ids: Sequence[Ids], tokens_at_once: Callable[[int], int]) -> Iterator[Pass]:
    """Yield passes of texts of similar length, filled up on the right; arguments as of `packed`."""
    import torch

    full = [index for index, tokens in enumerate(ids) if tokens]
    rest = sorted(full, key=lambda index: len(ids[index]), reverse=True)
    while rest:
        width = len(ids[rest[0]])
        at_once = max(1, tokens_at_once(width) // width)
        # At most half of a row is padding, unless it is too short for a pass of its own.
        fitting = [i for i in rest[:at_once] if width <= _SHORT or 2 * len(ids[i]) >= width]
        rest = rest[len(fitting) :]
        tokens = torch.zeros(len(fitting), width, dtype=torch.long)
        owners = torch.full((len(fitting), width), len(ids), dtype=torch.long)
        for number, index in enumerate(fitting):
            tokens[number, : len(ids[index])] = torch.tensor(ids[index])
            owners[number, : len(ids[index])] = index
        yield owners, {"input_ids": tokens, "attention_mask": (owners < len(ids)).long()}


def _rows(full: Sequence[int], length: Callable[[int], int]) -> list[list[int]]:
    """Pack texts into rows of at most `_ROW` tokens, or of one text that is longer.

    First fit, longest first: never more than 11/9 of the fewest rows possible, and one more
    (the classic bound of bin packing).
    """
    rows: list[list[int]] = []
    space: list[int] = []
    for index in sorted(full, key=length, reverse=True):
        need = length(index)
        for number, free in enumerate(space):
            if need <= free:
                rows[number].append(index)
                space[number] -= need
                break
        else:
            rows.append([index])
            space.append(max(_ROW, need) - need)
    return rows
