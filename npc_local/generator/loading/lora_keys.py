"""Which tensors of a LoRA file a pipeline took, and which it dropped.

diffusers turns a dozen layouts into its own (renames, splits, joins and scales tensors), drops what
it does not know with a warning at most, and PEFT then drops what the model has no layer for. So the
file is read a second time with tensors that remember where their values come from, and what came
out is looked for in the adapters. Leaves out: loading (`loras`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from torch import Tensor

# What reads a tensor's value where no tensor comes out.
_READS = frozenset({"item", "tolist", "numpy", "__float__", "__setitem__", "copy_"})


class Provenance:
    """The tensors of one file, each with its name; what is made of them carries their names."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the file's tensors."""
        self.names = frozenset(tensors)
        self.read: set[str] = set()  # as numbers, so that no tensor carries them
        kind = _traced(self.read)
        self.tensors: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            traced = tensor.as_subclass(kind)
            cast("Any", traced).names = frozenset({name})
            self.tensors[name] = traced


def names_of(value: object) -> frozenset[str]:
    """Return the names that tensors in `value` carry."""
    return frozenset().union(*(getattr(tensor, "names", ()) or () for tensor in _tensors(value)))


def dropped(
    provenance: Provenance,
    traced: Mapping[str, Tensor],
    alphas: object,
    converted: Mapping[str, Tensor],
    adapter: Mapping[str, Tensor],
) -> list[str]:
    """Return the names of the file's tensors that do not act, then those that the file lacks.

    Args:
        provenance: of the file.
        traced: what diffusers made of its tensors.
        alphas: what it made of them for scales, in any shape.
        converted: the same as `traced`, with nothing but tensors.
        adapter: the parameters of the adapter that was loaded, without its name in theirs.
    """
    loaded = {name: _bytes(tensor) for name, tensor in adapter.items()}
    dtypes = {tensor.dtype for tensor in adapter.values()}
    free = Counter(loaded.values())
    acting: set[str] = set()
    # Those of a known name first: tensors of other names may be equal to them, zeros for instance.
    for name in sorted(converted, key=lambda name: name not in adapter):
        for content in {_bytes(converted[name].to(dtype)) for dtype in dtypes}:
            if free[content] > 0:
                free[content] -= 1
                acting |= names_of(traced[name])
                break
    # A scale acts with the tensors that it scales.
    stems = {_stem(name) for name in acting}
    scales = provenance.read | names_of(alphas)
    acting |= {name for name in scales if _stem(name) in stems}
    lacking = [name for name, content in loaded.items() if free[content] > 0]
    return sorted(provenance.names - acting) + sorted(lacking)


def _stem(name: str) -> str:
    """Return the layer that a tensor belongs to: x of x.alpha and x.lora_up.weight."""
    for mark in (".lora", ".alpha", "_lora", ".diff", ".hada", ".lokr"):
        if mark in name:
            return name.partition(mark)[0]
    return name.rpartition(".")[0]


def _bytes(tensor: Tensor) -> bytes:
    import hashlib

    import torch

    plain = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.blake2b(plain.numpy().tobytes(), digest_size=16).digest()


def _tensors(value: object) -> Iterator[Tensor]:
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


def _traced(read: set[str]) -> type[Tensor]:
    """Return a kind of tensor whose results carry the names of all that they were made of."""
    import torch

    class Traced(torch.Tensor):
        names: frozenset[str] | None = None

        @classmethod
        def __torch_function__(
            cls, func: Any, types: Any, args: Iterable[Any] = (), kwargs: Any = None
        ) -> Any:
            arguments = [*args, kwargs or {}]
            names = names_of(arguments)
            result = super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
            if getattr(func, "__name__", "") in _READS:
                read.update(names)
            for tensor in _tensors(result):
                if isinstance(tensor, Traced):
                    tensor.names = names
            return result

    return Traced
