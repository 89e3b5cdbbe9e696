"""Remembers what the text encoders of a pipeline answered, so that no text is encoded twice.

Works below the pipeline's own prompt handling, on token ids: templates, padding and masks of
each family stay the pipeline's business.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from npc_local.diffusion.family import Pipeline
from npc_local.diffusion.patching import forward_slot, standing_in

if TYPE_CHECKING:
    from torch.nn import Module

# Answers kept. FLUX.1-dev needs two a text (4 MB in bfloat16); an encoder whose every layer is
# read, as Qwen-Image's, takes about 20 MB for a text of 100 tokens.
_KEPT = 16
_LARGEST_INPUT = 65536  # elements; more is an image, not a text


class TextMemo:
    """The answers of text encoders to their last few inputs, exact copies of the first ones."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._answers: OrderedDict[Hashable, Any] = OrderedDict()

    @contextmanager
    def over(self, pipe: Pipeline) -> Iterator[None]:
        """Answer calls of the text encoders of `pipe` from memory where possible."""
        import torch

        with ExitStack() as stack:
            for name, encoder in pipe.components.items():
                if name.startswith("text_encoder") and isinstance(encoder, torch.nn.Module):
                    stack.enter_context(self._remembering(encoder))
            yield

    @contextmanager
    def _remembering(self, encoder: Module) -> Iterator[None]:
        """Stand in for one encoder's forward."""

        def forward(*args: Any, **inputs: Any) -> Any:
            key = _key(args, inputs)
            if key is None:
                return compute(*args, **inputs)
            return self._answer((id(encoder), key), lambda: compute(*args, **inputs))

        with standing_in(encoder, forward_slot(encoder), forward) as compute:
            yield

    def _answer(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """Return a copy, which a pipeline may change in place."""
        if key in self._answers:
            self._answers.move_to_end(key)
        else:
            self._answers[key] = compute()
            while len(self._answers) > _KEPT:
                self._answers.popitem(last=False)
        return copy.deepcopy(self._answers[key])


def _key(args: tuple[Any, ...], inputs: dict[str, Any]) -> Hashable | None:
    """Return a value that is equal for equal inputs; None if some input has no such value."""
    import torch

    parts: list[Hashable] = []
    for name, value in [*enumerate(args), *sorted(inputs.items())]:
        if isinstance(value, torch.Tensor):
            if value.numel() > _LARGEST_INPUT:
                return None
            content = value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
            parts.append((name, tuple(value.shape), str(value.dtype), str(value.device), content))
        elif value is None or isinstance(value, bool | int | float | str):
            parts.append((name, value))
        else:  # a key-value cache, say, that the call fills
            return None
    return tuple(parts)
