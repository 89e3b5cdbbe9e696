"""Model directories: is each part there that its loader will look for?

Reads configurations and headers of weights. Leaves out: unsafe and stray files (`files`), memory
(`estimate`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from npc_local.cli.doctor.files import inspect_files
from npc_local.cli.doctor.findings import Finding, error, from_exception
from npc_local.core.config.settings import EncoderSettings, GeneratorSettings
from npc_local.core.errors import ConfigError, ModelFilesError, NpcError
from npc_local.core.files import paths
from npc_local.core.files.model_directory import check_weights, read_json, require_directory
from npc_local.generator.loading.directory import INDEX, check_directory, components, lora_file

TRANSFORMERS, DIFFUSERS = "model", "diffusion_pytorch_model"  # how their weights are called
_AGAIN = "copy or download the model directory again"
_SLOW = ("spiece.model", "tokenizer.model", "sentencepiece.bpe.model")
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_TEMPLATES = ("chat_template.jinja", "chat_template.json", "additional_chat_templates")


def inspect_pipeline(settings: GeneratorSettings) -> Iterator[Finding]:
    """Yield what is wrong with a generator's files: its directory, LoRAs, GGUF."""
    root = settings.path
    try:
        require_directory(root)
        index = read_json(root / INDEX)
    except ModelFilesError as caught:
        yield from_exception(caught, root)
        return
    found = list(inspect_files(root))
    for name, library in components(index).items():
        kind = index[name][1]
        replaced = settings.gguf is not None and name in {"transformer", "unet"}
        found += _component(root / name, library, kind, weights=not replaced)
    found += _named_files(settings)
    try:
        check_directory(settings)
    except NpcError as caught:
        # What the parts show already is not said twice.
        if isinstance(caught, ConfigError) or not any(one.level == "error" for one in found):
            found.append(from_exception(caught, root))
    yield from found
    if not any(one.level == "error" for one in found):
        yield Finding("ok", f"complete, a {index['_class_name']}", str(root))


def _named_files(settings: GeneratorSettings) -> Iterator[Finding]:
    """Yield what is wrong with the files that a generator names beside its directory."""
    gguf = settings.gguf
    if gguf is not None and not paths.is_file(gguf, ModelFilesError):
        yield error("no such file (gguf)", gguf, "copy it there, or correct the setting")
    elif gguf is not None:
        with gguf.open("rb") as stream:
            if stream.read(4) != b"GGUF":
                yield error("no GGUF file, by its first bytes", gguf, "copy it again")
    for lora in settings.loras:
        try:
            lora_file(lora)
            if paths.is_dir(lora.path, ModelFilesError):
                check_weights(lora.path)
        except ModelFilesError as caught:
            yield from_exception(caught, lora.path)


def inspect_encoder(settings: EncoderSettings) -> Iterator[Finding]:
    """Yield what is wrong with the text encoder of the salience score."""
    try:
        require_directory(settings.path)
    except ModelFilesError as caught:
        yield from_exception(caught, settings.path)
        return
    folder = settings.path / settings.text_encoder
    found = list(_component(folder, "transformers", f"the text encoder ({settings.kind})"))
    found += _component(settings.path / settings.tokenizer, "transformers", "Tokenizer")
    for part in (settings.text_encoder, settings.tokenizer):
        found += inspect_files(settings.path / part)
    yield from found
    if not any(one.level == "error" for one in found):
        yield Finding("ok", "text encoder and tokenizer are complete", str(folder))


def inspect_served_model(
    root: Path, *, images: bool = False, own_template: bool = False
) -> Iterator[Finding]:
    """Yield what is wrong with the model directory of a vLLM server.

    Args:
        root: the directory.
        images: whether the model is to be shown images.
        own_template: whether the server is given a chat template, so that the directory need
            not hold one.
    """
    try:
        require_directory(root)
        config = read_json(root / "config.json")
    except ModelFilesError as caught:
        yield from_exception(caught, root)
        return
    found = [*inspect_files(root), *_weights(root, TRANSFORMERS)]
    if not paths.is_file(
        root / "tekken.json", ModelFilesError
    ):  # Mistral's own format, with no further files
        found += _tokenizer(root)
    if "vision_config" in config:
        found += _one_of(root, _PROCESSORS, "the image processor's configuration")
    elif images:
        found.append(
            error(
                f"a text-only model (model_type {config.get('model_type')!r}), but it is to verify "
                "or caption images",
                root,
                "name a vision-language model, such as Qwen3-VL-8B-Instruct",
                ConfigError,
            )
        )
    if not own_template and not _has_template(root):
        found.append(
            error(
                "no chat template, neither in tokenizer_config.json nor in chat_template.jinja",
                root,
                f"{_AGAIN}, or add --chat-template FILE to the server's arguments",
            )
        )
    yield from found
    if not any(one.level == "error" for one in found):
        yield Finding("ok", f"complete, a {config.get('model_type')} model", str(root))


def inspect_directory(root: Path) -> Iterator[Finding]:
    """Yield what is wrong with a model directory, whichever kind it is."""
    if paths.is_file(root / INDEX, ModelFilesError):
        yield from inspect_pipeline(
            GeneratorSettings(
                path=root, steps=1, negative_steps=1, true_cfg_scale=2, height=16, width=16
            )
        )
    elif paths.is_file(root / "config.json", ModelFilesError) or not paths.is_dir(
        root, ModelFilesError
    ):
        yield from inspect_served_model(root)
    else:
        yield from inspect_files(root)
        yield error(
            f"no model directory: neither {INDEX} nor config.json in it",
            root,
            "name the directory that holds one of them",
        )


def _component(folder: Path, library: str, kind: str, *, weights: bool = True) -> Iterator[Finding]:
    """Yield what is wrong with one folder of a pipeline, by the class that loads it."""
    if not paths.is_dir(folder, ModelFilesError):
        yield error(f"the folder of {kind} is missing", folder, _AGAIN)
    elif "Tokenizer" in kind:
        yield from _tokenizer(folder)
    elif "Scheduler" in kind:
        yield from _json(folder / "scheduler_config.json")
    elif "Processor" in kind or "FeatureExtractor" in kind:
        yield from _one_of(folder, _PROCESSORS, f"the configuration of {kind}")
    elif "Guid" in kind:  # HunyuanImage's guiders
        yield from _json(folder / "guider_config.json")
    else:
        yield from _json(folder / "config.json")
        if weights:
            yield from _weights(folder, TRANSFORMERS if library == "transformers" else DIFFUSERS)


def _weights(folder: Path, stem: str) -> Iterator[Finding]:
    """Yield what is wrong with the safetensors of one model, which are called `stem`."""
    try:
        check_weights(folder)
    except ModelFilesError as caught:
        yield from_exception(caught, folder)
        return
    wanted = (f"{stem}.safetensors", f"{stem}.safetensors.index.json")
    if any(paths.is_file(folder / name, ModelFilesError) for name in wanted):
        return
    others = [file.name for file in paths.children(folder, ModelFilesError, "*.safetensors")]
    if not others:
        yield error(f"no weights: {' or '.join(wanted)} is missing", folder, _AGAIN)
    elif all("-of-" in name for name in others):
        yield error(f"weights in shards without {wanted[1]}", folder, _AGAIN)
    else:
        yield error(
            f"no {wanted[0]}, but {', '.join(others[:3])}: a variant or another layout",
            folder,
            "get the files without a variant (such as .fp16) in their names",
        )


def _tokenizer(folder: Path) -> Iterator[Finding]:
    """Yield what is wrong with a tokenizer: its files, and packages that old formats need."""
    yield from _json(folder / "tokenizer_config.json")
    if paths.is_file(folder / "tokenizer.json", ModelFilesError):
        yield from _json(folder / "tokenizer.json")
        return
    slow = [name for name in _SLOW if paths.is_file(folder / name, ModelFilesError)]
    tiktoken = [file.name for file in paths.children(folder, ModelFilesError, "*.tiktoken")]
    if paths.is_file(folder / "vocab.json", ModelFilesError) and paths.is_file(
        folder / "merges.txt", ModelFilesError
    ):
        return
    if paths.is_file(folder / "vocab.txt", ModelFilesError):
        return
    if slow:
        yield from _needs("sentencepiece", folder / slow[0])
    elif tiktoken:
        yield from _needs("tiktoken", folder / tiktoken[0])
    else:
        yield error(
            "no tokenizer.json, nor the older files (vocab.json with merges.txt, "
            f"{', '.join(_SLOW)})",
            folder,
            _AGAIN,
        )


def _needs(package: str, file: Path) -> Iterator[Finding]:
    """Yield that an old tokenizer file needs a package: an error if that is not installed."""
    if importlib.util.find_spec(package) is None:
        yield error(
            f"without a tokenizer.json beside it, it needs {package}, which is not installed",
            file,
            f"pip install {package}, or add the model's tokenizer.json",
            ConfigError,
        )
    else:
        yield Finding("note", f"no tokenizer.json, so it is read with {package}", str(file))


def _has_template(root: Path) -> bool:
    """Whether a directory has a chat template, in whichever place."""
    if any(paths.exists(root / name, ModelFilesError) for name in _TEMPLATES):
        return True
    return bool(_object(root / "tokenizer_config.json").get("chat_template"))


def _one_of(folder: Path, names: tuple[str, ...], what: str) -> Iterator[Finding]:
    """Yield an error if none of the files is there, or one of them is damaged."""
    there = [name for name in names if paths.is_file(folder / name, ModelFilesError)]
    if not there:
        yield error(f"{what} is missing: {' or '.join(names)}", folder, _AGAIN)
    for name in there:
        yield from _json(folder / name)


def _json(file: Path) -> Iterator[Finding]:
    """Yield an error if a file is no JSON object."""
    try:
        read_json(file)
    except ModelFilesError as caught:
        yield from_exception(caught, file)


def _object(file: Path) -> dict[str, Any]:
    """Return a JSON object, empty where there is none."""
    try:
        return read_json(file)
    except ModelFilesError:
        return {}
