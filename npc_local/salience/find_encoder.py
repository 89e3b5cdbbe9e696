"""Which text encoder people mean: an entry of models.toml, or one that a directory holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from npc_local.core.config.load import load_config
from npc_local.core.config.settings import EncoderSettings, listed
from npc_local.core.errors import ConfigError, ModelFilesError
from npc_local.core.files import paths
from npc_local.core.files.fault import read_json
from npc_local.core.files.model_directory import require_directory
from npc_local.salience.encoders.source import kind_of

# T5 first: the paper's. The later ones of a pipeline are the larger ones.
_PLACES = (
    ("text_encoder_3", "tokenizer_3"),
    ("text_encoder_2", "tokenizer_2"),
    ("text_encoder", "tokenizer"),
    (".", "."),
)
_UNSUITABLE = ("umt5", "mt5", "clip", "siglip", "bert", "roberta", "xlm-roberta", "distilbert")


def encoder_in(path: Path) -> EncoderSettings:
    """Return settings for the text encoder in a directory, a T5 if it has one.

    The directory is a pipeline's (text_encoder_2 and tokenizer_2 in it, say), or has the model and
    its tokenizer side by side.

    Raises:
        ModelFilesError: it has no text encoder with a tokenizer, or none of a known kind.
    """
    require_directory(path)
    encoders = list(_encoders(path))
    if not encoders:
        places = ", ".join(f"{part}/ and {tokenizer}/" for part, tokenizer in _PLACES[:-1])
        raise ModelFilesError(
            f"{path}: no text encoder with its tokenizer in it; looked for {places}, and for a "
            "model beside a tokenizer. Name the pipeline's directory, or one with both"
        )
    return min(encoders, key=lambda settings: ("t5", "clip", "decoder").index(settings.kind))


def chosen_encoder(
    encoder: str | None,
    formula: str | None,
    tokens: str | None,
    profile: str | None,
    config: Path | None,
    overrides: Sequence[str],
) -> EncoderSettings:
    """Return the encoder that the options of a command ask for.

    Args:
        encoder: the name of an entry of models.toml, or a directory; None takes the profile's.
        formula: replaces the entry's; so does `tokens`.
        tokens: see `formula`.
        profile: the name of a profile.
        config: the configuration's file.
        overrides: changes of its keys.

    Raises:
        ConfigError: neither an encoder of models.toml nor a directory has that name.
        ModelFilesError: the directory has no text encoder.
    """
    if encoder is not None and "://" not in encoder and paths.is_dir(Path(encoder), ConfigError):
        settings = encoder_in(Path(encoder))
    else:
        known = load_config(config, overrides)
        if encoder is not None and encoder not in known.encoders:
            raise ConfigError(
                f"--encoder: found {encoder!r}, no directory and no encoder of models.toml; known: "
                f"{listed(known.encoders)}"
            )
        settings = known.encoders[encoder] if encoder else known.profile(profile).encoder
    changes = {"formula": formula, "tokens": tokens}
    return settings.model_copy(update={key: new for key, new in changes.items() if new})


def _encoders(path: Path) -> Iterator[EncoderSettings]:
    for part, tokenizer in _PLACES:
        config = path / part / "config.json"
        vocabulary = path / tokenizer
        if not paths.is_file(config, ModelFilesError) or not _has_tokenizer(vocabulary):
            continue
        model_type = str(read_json(config).get("model_type", ""))
        if model_type in _UNSUITABLE:
            raise ModelFilesError(
                f"{config}: model_type {model_type!r} is not one that can rank; known: t5, "
                "clip_text_model, and decoders such as qwen3"
            )
        yield EncoderSettings(
            kind=kind_of(model_type),
            path=path,
            text_encoder=part,
            tokenizer=tokenizer,
        )


def _has_tokenizer(folder: Path) -> bool:
    names = ("tokenizer.json", "tokenizer_config.json", "spiece.model", "vocab.json")
    return any(paths.is_file(folder / name, ModelFilesError) for name in names)
