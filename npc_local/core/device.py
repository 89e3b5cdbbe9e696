"""Where models run, and with how many threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


def resolve_device(device: str) -> str:
    """Return the torch device that "auto" stands for here; any other name as it is."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


@contextmanager
def torch_threads(number: int | None) -> Iterator[None]:
    """Have torch compute with `number` threads on the CPU, in this thread; None: as it decides.

    Work on tiny tensors is done sooner by one: more of them spend their time waiting for each
    other, and take the cores from everything else.
    """
    if number is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
