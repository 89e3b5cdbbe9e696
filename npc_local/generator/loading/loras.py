"""LoRAs into a loaded pipeline, each whole or not at all."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npc_local.core.config.settings import LoraSettings
from npc_local.core.errors import ConfigError, ModelFilesError
from npc_local.generator.family import Pipeline
from npc_local.generator.loading.directory import lora_file
from npc_local.generator.loading.library_errors import LIBRARY_FAILS, fits, need
from npc_local.generator.loading.lora_keys import Provenance, dropped

if TYPE_CHECKING:
    from torch import Tensor

_NAMED = 3  # tensors in a message


def add_loras(pipe: Pipeline, loras: list[LoraSettings]) -> None:
    """Load LoRAs into a pipeline, each with its weight.

    Raises:
        ConfigError: the pipeline takes none, or a package is missing.
        ModelFilesError: a file is damaged, or a part of it would not act.
    """
    if not loras:
        return
    need("peft", "loras", "lora")
    if not hasattr(pipe, "load_lora_weights"):
        raise ConfigError(f"loras: {type(pipe).__name__} cannot load any; leave them out")
    names = []
    for number, lora in enumerate(loras):
        names.append(f"lora_{number}")
        _add(pipe, lora_file(lora), names[-1])
    with fits("loras"):
        pipe.set_adapters(names, [lora.weight for lora in loras])


def _add(pipe: Pipeline, file: Path, name: str) -> None:
    """Load one file as the adapter `name`.

    Raises:
        ModelFilesError: as `add_loras`.
    """
    from safetensors import SafetensorError

    conversion = None
    try:
        with (
            warnings.catch_warnings(action="ignore"),  # of peft, at each LoRA but the first
            _conversion_seen(pipe, file) as conversion,
        ):
            pipe.load_lora_weights(
                str(file.parent),
                weight_name=file.name,
                adapter_name=name,
                local_files_only=True,
                use_safetensors=True,
            )
        unused = conversion.unused(_adapter(pipe, name))
    except (*LIBRARY_FAILS, SafetensorError) as error:
        strange = [] if conversion is None else _of_no_layer(pipe, conversion.converted)
        why = f"; nothing here matches {_listed(strange)}" if strange else ""
        raise ModelFilesError(f"{file}: cannot be loaded as a LoRA: {error}{why}") from error
    if unused:
        raise ModelFilesError(
            f"{file}: only a part of it would act, since it is for another model than this "
            f"{type(pipe).__name__}, or in a layout that diffusers does not read whole; nothing "
            f"here matches {_listed(unused)}"
        )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more tensors" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _of_no_layer(pipe: Pipeline, converted: dict[str, Tensor]) -> list[str]:
    """Return the tensors in PEFT's layout of layers that the pipeline's models have not."""
    import torch

    layers = {
        f"{part}.{layer}"
        for part, model in pipe.components.items()
        if isinstance(model, torch.nn.Module)
        for layer, _ in model.named_modules()
    }
    strange = []
    for name in converted:
        layer, mark, _ = name.partition(".lora_")
        # CLIP's text model has its layers one level higher than LoRA files say.
        if mark and not {layer, layer.replace(".text_model", "")} & layers:
            strange.append(name)
    return strange


@dataclass
class _Conversion:
    """What diffusers made of a file, seen while it was loaded."""

    provenance: Provenance
    converted: dict[str, Tensor]
    traced: dict[str, Tensor]
    alphas: object = None

    def unused(self, adapter: dict[str, Tensor]) -> list[str]:
        return dropped(self.provenance, self.traced, self.alphas, self.converted, adapter)


@contextmanager
def _conversion_seen(pipe: Pipeline, file: Path) -> Iterator[_Conversion]:
    """See what the pipeline's own conversion of a file gives while it loads the file."""
    from safetensors.torch import load_file

    convert = pipe.lora_state_dict
    seen = _Conversion(Provenance(load_file(file)), {}, {})

    def seeing(source: object, *args: Any, **options: Any) -> Any:
        result = convert(source, *args, **options)
        ours = {name: options[name] for name in options if name not in _OF_FILES}
        traced = convert(seen.provenance.tensors.copy(), *args, **ours)
        seen.converted.update(_first(result))
        seen.traced.update(_first(traced))
        seen.alphas = traced[1:] if isinstance(traced, tuple) else None
        return result

    pipe.lora_state_dict = seeing
    try:
        yield seen
    finally:
        del pipe.lora_state_dict


_OF_FILES = frozenset({"weight_name", "local_files_only", "use_safetensors"})


def _first(result: Any) -> dict[str, Tensor]:
    """Return the tensors of what lora_state_dict returns, which scales and metadata may follow."""
    tensors: dict[str, Tensor] = dict(result[0] if isinstance(result, tuple) else result)
    return tensors


def _adapter(pipe: Pipeline, name: str) -> dict[str, Tensor]:
    """Return the parameters of an adapter, in whichever models of the pipeline it has some."""
    import torch

    return {
        ".".join([part, *(word for word in key.split(".") if word != name)]): tensor
        for part, model in pipe.components.items()
        if isinstance(model, torch.nn.Module)
        for key, tensor in model.named_parameters()
        if name in key.split(".")
    }
