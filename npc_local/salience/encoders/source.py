"""Where a text encoder comes from: a directory of its own, or a pipeline that has it in memory.

Directories are examined before anything is loaded, and a name for the vectors is made of what is in
them. Loading is left to `text_encoder`, which directory people mean to `find_encoder`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from npc_local.core.config.settings import EncoderKind, EncoderSettings
from npc_local.core.errors import ModelFilesError
from npc_local.core.files.fault import raise_first, read_json
from npc_local.core.files.model_directory import encoder_faults, hash_files
from npc_local.core.hashing import digest
from npc_local.salience.encoders.text_encoder import TextEncoder

_POOLING = 2  # raised whenever the same files give other vectors


@dataclass(frozen=True, slots=True)
class Source:
    """Where a text encoder comes from.

    Attributes:
        load: gives it, loaded.
        identity: gives a string that changes whenever its vectors may change.
        owned: False for a model in somebody else's hands, a pipeline's say, who may change it,
            moves it and gives its memory back.
    """

    load: Callable[[], TextEncoder]
    identity: Callable[[], str]
    owned: bool = True


def from_directory(settings: EncoderSettings) -> Source:
    """Return the encoder in a local directory, which is checked now and loaded later.

    Raises:
        ModelFilesError: the directory or one of its two parts is missing or damaged.
    """
    _check_directory(settings)
    return Source(lambda: TextEncoder.load(settings), lambda: _identity(settings, {}))


def from_generator(
    settings: EncoderSettings,
    pipe: Callable[[], Any],
    quantization: Mapping[str, Any] | None = None,
    identity: Callable[[], str] | None = None,
) -> Source:
    """Return the encoder that a generator holds, not loaded twice.

    Args:
        settings: says which directory and parts these are.
        pipe: gives the pipeline, with the first score.
        quantization: how the model is quantised, if it is.
        identity: gives a string that changes whenever its vectors may change, where the directory
            does not tell what the model is by now; None where it does.

    Raises:
        ModelFilesError: the directory tells, and it or one of its two parts is missing or damaged.
    """
    if identity is None:
        _check_directory(settings)
    return Source(
        lambda: TextEncoder.of_pipeline(settings, pipe()),
        identity or (lambda: _identity(settings, quantization or {})),
        owned=False,
    )


def _check_directory(settings: EncoderSettings) -> None:
    """Refuse a directory that is incomplete, or whose model is of another kind than is said."""
    folder = settings.path / settings.text_encoder
    raise_first(encoder_faults(settings.path, settings.text_encoder, settings.tokenizer))
    model_type = str(read_json(folder / "config.json").get("model_type", ""))
    if kind_of(model_type) != settings.kind:
        raise ModelFilesError(
            f"{folder}: model_type {model_type!r} is not kind = {settings.kind!r}; correct the "
            'kind ("t5", "clip", "decoder") or the text_encoder of this encoder'
        )


def kind_of(model_type: str) -> EncoderKind:
    """Return the kind of encoder that a model_type of transformers is."""
    kinds: dict[str, EncoderKind] = {"t5": "t5", "clip_text_model": "clip"}
    return kinds.get(model_type, "decoder")


def _identity(settings: EncoderSettings, quantization: Mapping[str, Any]) -> str:
    parts = [settings.tokenizer, settings.text_encoder]
    return digest(
        {
            "kind": settings.kind,
            "parts": parts,
            "files": hash_files(settings.path, parts),
            "dtype": settings.dtype,
            "quantization": quantization,
            "pooling": _POOLING,
        }
    )
