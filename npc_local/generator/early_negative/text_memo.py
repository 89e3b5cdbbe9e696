"""Remembers what the text encoders of a pipeline answered, so that no text is encoded twice.

Works below the pipeline's own prompt handling, on token ids: templates, padding and masks of
each family stay the pipeline's business.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from npc_local.generator.early_negative.patching import standing_before
from npc_local.generator.family import Pipeline

if TYPE_CHECKING:
    from torch.nn import Module

# What is kept, on the encoder's device. FLUX.1-dev needs 4 MB a text in bfloat16; an encoder whose
# every layer is read, as Qwen-Image's, 27 MB for 134 tokens, HunyuanImage's 215 MB for its 1,034.
_LIMIT = 512 * 2**20  # bytes
_LARGEST_INPUT = 65536  # elements; more is an image, not a text
# What language models return beside their hidden states, large and read by no pipeline.
_DROPPED = frozenset({"logits", "past_key_values", "attentions", "rope_deltas"})


class TextMemo:
    """The answers of text encoders to their last few inputs, exact copies of the first ones."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._answers: OrderedDict[Hashable, _Answer] = OrderedDict()

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
        """Stand before one encoder."""

        def answer(*args: Any, **inputs: Any) -> Any:
            key = _key(args, inputs)
            if key is None:
                return stand_in.compute(*args, **inputs)
            return self._answer(encoder, key, lambda: stand_in.compute(*args, **inputs))

        with standing_before(encoder, answer) as stand_in:
            yield

    def _answer(self, encoder: Module, inputs: Hashable, compute: Callable[[], Any]) -> Any:
        """Return a copy, which a pipeline may change in place."""
        key = id(encoder), inputs
        if key not in self._answers:
            output = _lean(compute())
            self._answers[key] = _Answer(encoder, output, _bytes(output))
            while len(self._answers) > 1 and self._held() > _LIMIT:
                self._answers.popitem(last=False)
        self._answers.move_to_end(key)
        return copy.deepcopy(self._answers[key].output)

    def forget(self) -> None:
        """Remember nothing any more."""
        self._answers.clear()

    def _held(self) -> int:
        return sum(answer.size for answer in self._answers.values())


@dataclass(frozen=True, slots=True)
class _Answer:
    """What an encoder answered, in so many bytes; the encoder is held so that its id stays its."""

    encoder: Module
    output: Any
    size: int


def _lean(output: Any) -> Any:
    """Return a model's output without what no pipeline reads."""
    if not isinstance(output, dict):
        return output
    return type(output)(**{name: part for name, part in output.items() if name not in _DROPPED})


def _bytes(value: Any) -> int:
    """Return the size of all tensors in a model's output."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.nbytes
    parts = value.values() if isinstance(value, dict) else value
    return sum(map(_bytes, parts)) if isinstance(value, dict | list | tuple) else 0


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
