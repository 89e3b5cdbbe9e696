"""Token ids as passes: every token once, in a pass that fits. Vectors: `test_text_encoder`."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from npc_local.salience.encoders import batching
from npc_local.salience.encoders.batching import packed, padded

IDS = st.lists(st.lists(st.integers(1, 99), max_size=40).map(tuple), max_size=12)


@given(ids=IDS, room=st.integers(1, 200), way=st.sampled_from(("packed", "padded")))
def test_every_token_is_in_one_pass_with_its_own_text(
    ids: list[tuple[int, ...]], room: int, way: str
) -> None:
    passes = (
        packed(ids, lambda _: room, torch.float32)
        if way == "packed"
        else padded(ids, lambda _: room)
    )
    found: dict[int, list[int]] = {}
    for owners, inputs in passes:
        rows, width = owners.shape
        assert rows == 1 or rows * width <= room
        assert inputs["input_ids"].shape == owners.shape
        for owner, token in zip(
            owners.flatten().tolist(), inputs["input_ids"].flatten().tolist(), strict=True
        ):
            found.setdefault(owner, []).append(token)
    found.pop(len(ids), None)  # padding
    assert found == {index: list(tokens) for index, tokens in enumerate(ids) if tokens}


@given(ids=IDS)
def test_a_packed_text_attends_to_itself_alone(ids: list[tuple[int, ...]]) -> None:
    for owners, inputs in packed(ids, lambda _: 10_000, torch.float32):
        open_ = inputs["attention_mask"][:, 0] == 0
        assert torch.equal(open_, owners[:, :, None] == owners[:, None, :])


def test_rows_are_filled_and_never_split() -> None:
    lengths = [200, 5, 180, 60, 56, 300, 1, 1]
    rows = batching._rows(range(len(lengths)), lambda index: lengths[index])
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    filled = [sum(lengths[index] for index in row) for row in rows]
    assert filled == [300, 256, 247]
