"""Model directories: all that would stop their loaders, and what is unsafe or stray in them.

What a loader needs is known to `core.files.model_directory` and `generator.loading.directory`,
whose first fault a loader raises; here all are listed. Leaves out: memory (`estimate`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from npc_local.cli.doctor.files import inspect_files
from npc_local.cli.doctor.findings import Finding, error, from_fault
from npc_local.core.config.settings import EncoderSettings, GeneratorSettings
from npc_local.core.errors import ConfigError, ModelFilesError
from npc_local.core.files import model_directory, paths
from npc_local.core.files.fault import json_faults, read_json
from npc_local.core.files.model_directory import INDEX, components
from npc_local.core.files.tokenizer import needed_package, tokenizer_faults
from npc_local.generator.loading import directory as pipeline_directory

_SHOWN = 5  # model directories that are proposed for one that is none


def inspect_pipeline(settings: GeneratorSettings, *, sizes: bool = True) -> Iterator[Finding]:
    """Yield what is wrong with a generator's files: its directory, LoRAs, GGUF, image sizes."""
    root = settings.path
    findings = [from_fault(fault) for fault in pipeline_directory.faults(settings, sizes=sizes)]
    what = ""
    if _is_object(root / INDEX):
        index = read_json(root / INDEX)
        what = f"complete, a {index.get('_class_name')}"
        folders = [root / name for name in components(index)]
        findings += [*inspect_files(root), *_old_tokenizers(folders)]
    yield from _with_ok(findings, what, root)


def inspect_encoder(settings: EncoderSettings) -> Iterator[Finding]:
    """Yield what is wrong with the text encoder of the salience score."""
    root, parts = settings.path, (settings.text_encoder, settings.tokenizer)
    findings = [from_fault(fault) for fault in model_directory.encoder_faults(root, *parts)]
    folders = [root / part for part in dict.fromkeys(parts)]
    for folder in folders:
        if paths.is_dir(folder, ModelFilesError):
            findings += inspect_files(folder)
    findings += _old_tokenizers(folders)
    yield from _with_ok(findings, "text encoder and tokenizer are complete", folders[0])


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
    faults = list(model_directory.directory_faults(root)) or list(
        model_directory.served_faults(root, own_template=own_template)
    )
    findings, what = [from_fault(fault) for fault in faults], ""
    if _is_object(root / "config.json"):
        config = read_json(root / "config.json")
        what = f"complete, a {config.get('model_type')} model"
        findings += inspect_files(root)
        if images and "vision_config" not in config:
            findings.append(_sees_nothing(root, config.get("model_type")))
    yield from _with_ok(findings, what, root)


def inspect_directory(root: Path) -> Iterator[Finding]:
    """Yield what is wrong with a model directory, whichever kind it is."""
    if paths.is_file(root / INDEX, ModelFilesError):
        settings = GeneratorSettings(
            path=root, steps=1, negative_steps=1, true_cfg_scale=2, height=16, width=16
        )
        yield from inspect_pipeline(settings, sizes=False)
    elif paths.is_file(root / "config.json", ModelFilesError):
        yield from inspect_served_model(root)
    else:  # what else lies there, a whole home perhaps, is not looked through
        for fault in model_directory.faults(root):
            finding = from_fault(fault)
            others = ", ".join(map(str, _models_in(root)))
            yield error(finding.what, root, f"name a model in it: {others}") if others else finding


def _models_in(root: Path) -> list[Path]:
    """Return the first model directories in a directory."""
    if not paths.is_dir(root, ModelFilesError):
        return []
    models = [
        folder
        for folder in paths.children(root, ModelFilesError)
        if any(paths.is_file(folder / name, ModelFilesError) for name in (INDEX, "config.json"))
    ]
    return models[:_SHOWN]


def _old_tokenizers(folders: Iterable[Path]) -> Iterator[Finding]:
    """Yield a note for each tokenizer of an older format that can be read."""
    for folder in folders:
        if not paths.is_dir(folder, ModelFilesError):
            continue
        needed = needed_package(folder)
        if needed is not None and not list(tokenizer_faults(folder)):
            file, package = needed
            yield Finding("note", f"no tokenizer.json, so it is read with {package}", str(file))


def _sees_nothing(root: Path, model_type: object) -> Finding:
    return error(
        f"a text-only model (model_type {model_type!r}), but it is to verify or caption images",
        root,
        "name a vision-language model, such as Qwen3-VL-8B-Instruct",
        ConfigError,
    )


def _is_object(file: Path) -> bool:
    return not list(json_faults(file))


def _with_ok(findings: Iterable[Finding], what: str, where: Path) -> Iterator[Finding]:
    """Yield findings, and that all is well if none of them is an error."""
    well = True
    for finding in findings:
        well = well and finding.level != "error"
        yield finding
    if well:
        yield Finding("ok", what, str(where))
