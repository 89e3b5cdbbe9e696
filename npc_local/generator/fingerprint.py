"""What a pipeline in memory is, by content: everything that its images depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from npc_local.core.errors import ConfigError
from npc_local.core.versions import libraries
from npc_local.generator.family import Pipeline

if TYPE_CHECKING:
    import torch


def pipeline_fingerprint(pipe: Pipeline, settings: object) -> str:
    """Return a SHA-256 over settings, library versions, configurations, vocabularies and weights.

    Raises:
        ConfigError: some weights are offloaded to where they cannot be read.
    """
    import torch

    digest = hashlib.sha256()
    digest.update(repr((settings, libraries(), pipe.config)).encode())
    for name, part in sorted(pipe.components.items()):
        digest.update(f"{name}: {getattr(part, 'config', None)!r}".encode())
        if hasattr(part, "backend_tokenizer"):
            digest.update(part.backend_tokenizer.to_str().encode())
        if not isinstance(part, torch.nn.Module):
            continue
        for module in part.modules():
            digest.update(repr(getattr(module, "scaling", None)).encode())  # of a LoRA
        for key, tensor in _weights(part):
            content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(key.encode() + content.numpy().tobytes())
    return digest.hexdigest()


def _weights(part: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield a model's weights, those that sequential offload keeps elsewhere included."""
    for key, tensor in part.state_dict().items():
        if not tensor.is_meta:
            yield key, tensor
            continue
        owner, _, name = key.rpartition(".")
        hook = getattr(part.get_submodule(owner), "_hf_hook", None)
        for each in getattr(hook, "hooks", (hook,)):  # a model's own has several, one after another
            weights = getattr(each, "weights_map", None)
            if weights is not None:
                yield key, weights[name]
                break
        else:
            raise ConfigError(f"weights of {key} are nowhere in memory: they cannot be told apart")
