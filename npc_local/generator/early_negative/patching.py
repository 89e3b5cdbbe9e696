"""Standing in for a method of one object for a while, and giving it back as it was found."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_ABSENT = object()


@contextmanager
def standing_in(
    owner: Any, name: str, stand_in: Callable[..., Any]
) -> Iterator[Callable[..., Any]]:
    """Let `owner.name` be `stand_in`, and yield the method that it stands in for.

    Only this object changes, not its class. What others put in the same place meanwhile (the
    offload hooks of accelerate do, at the end of a pipeline call) is left alone.
    """
    own = vars(owner).get(name, _ABSENT)
    method = getattr(owner, name)

    # Pipelines read signatures (of scheduler.step, of a text encoder's forward): show the real one.
    @functools.wraps(method)
    def shown(*args: Any, **kwargs: Any) -> Any:
        return stand_in(*args, **kwargs)

    setattr(owner, name, shown)
    try:
        yield method
    finally:
        if vars(owner).get(name) is shown:
            if own is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, own)


def forward_slot(model: Any) -> str:
    """Return the attribute that calling a torch module leads to: `forward`, unless compiled."""
    compiled = getattr(model, "_compiled_call_impl", None) is not None
    return "_compiled_call_impl" if compiled else "forward"
