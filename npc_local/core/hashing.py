"""What determines an answer, and what makes two runs the same: canonical JSON and its SHA-256."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL.Image import Image
from pydantic_core import to_jsonable_python

if TYPE_CHECKING:
    from npc_local.core.config.load import ResolvedProfile
    from npc_local.run.stages import Components

_PACKAGE = Path(__file__).resolve().parent
_ROLES = ("roles", "templating.py", "phrases.py", "records.py")
# Of each kind of step: the code and the templates that have a say in the answer, whoever gives it.
CODE = {
    "checklist": (*_ROLES, "templates/checklist.*"),
    "verify": (*_ROLES, "templates/verify.*"),
    "caption": (*_ROLES, "templates/caption.*"),
    "propose": (*_ROLES, "templates/propose*"),
    "generate": ("diffusion", "records.py"),
    "rank": (
        *("salience/rules", "salience/tokens.py", "salience/encoders.py", "salience/formulas.py"),
        *("salience/scorer.py", "salience/ranking.py", "records.py"),
    ),
}
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


def plain(value: object) -> Any:
    """Return records, mappings and images as JSON data; an image counts by its pixels.

    Raises:
        ValueError: something in it has no such form.
    """
    return to_jsonable_python(value, inf_nan_mode="constants", fallback=_fallback)


def canonical(value: object) -> str:
    """Return the one JSON text of `value`, in ASCII.

    Raises:
        ValueError: it holds a number that is not finite, or something that is no JSON.
    """
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: object) -> str:
    """Return the SHA-256 of the canonical JSON of `value`; errors as `canonical`."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def pixel_hash(image: Image) -> str:
    """Return the SHA-256 of an image's mode, size and pixels, however it is stored."""
    head = f"{image.mode} {image.width}x{image.height}\n".encode()
    return hashlib.sha256(head + image.tobytes()).hexdigest()


@cache
def code_digest(*parts: str) -> str:
    """Return the SHA-256 over source files and templates of this package.

    Args:
        parts: files, folders and glob patterns, relative to the package.

    Raises:
        ValueError: a part names no file.
    """
    hashed = hashlib.sha256()
    for part in parts:
        found = [
            file
            for place in _PACKAGE.glob(part)
            for file in (place.rglob("*") if place.is_dir() else [place])
            if file.suffix in (".py", ".txt")
        ]
        if not found:
            raise ValueError(f"{part!r} names no source file of this package")
        for file in sorted(found):
            content = file.read_bytes()
            head = f"{file.relative_to(_PACKAGE).as_posix()} {len(content)}\n"
            hashed.update(head.encode() + content)
    return hashed.hexdigest()


def differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say in which keys two mappings differ, nested ones as `generator.steps`."""
    old, new = dict(_flat(there)), dict(_flat(now))
    return [
        f"{key}: {_shown(old, key)} there, {_shown(new, key)} now"
        for key in {**old, **new}
        if (key in old, old.get(key)) != (key in new, new.get(key))
    ]


def run_identity(profile: ResolvedProfile, cast: Components) -> dict[str, Any]:
    """Return what must not change while a run goes on: settings, models by content, code, versions.

    Where models lie, how long is waited for them and whose turn it is on the GPU may change. Reads
    all model files once: minutes for large ones. The cast is open, its backends checked.

    Raises:
        ModelFilesError: a file cannot be read.
    """
    away = {"path", "device", "more_devices", "gguf", "loras"}
    backends = profile.backends
    agents = {
        "verifier": (backends[profile.verifier], cast.verifier),
        "captioner": (backends[profile.captioner], cast.captioner),
        "proposer": (backends[profile.proposer], cast.proposer),
    }
    described = {"kind", "model", "temperature", "max_pixels", "image_factor"}
    return {
        "candidates": profile.candidates,
        "rules": asdict(cast.rules),
        "generator": profile.generator.model_dump(mode="json", exclude=away)
        | {"fingerprint": cast.generator.fingerprint()},
        "encoder": profile.encoder.model_dump(mode="json", exclude={"path", "device"})
        | {"fingerprint": cast.scorer.fingerprint()},
        **{
            role: settings.model_dump(mode="json", include=described)
            | {"fingerprint": backend.fingerprint()}
            for role, (settings, backend) in agents.items()
        },
        "code": {kind: code_digest(*parts) for kind, parts in CODE.items()},
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("diffusers", "pillow", "torch", "transformers")
        },
    }


def _fallback(value: object) -> object:
    if isinstance(value, Image):
        return {"pixels": pixel_hash(value)}
    raise ValueError(f"{type(value).__name__} has no place in a key")


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _shown(flat: Mapping[str, Any], key: str) -> str:
    if key not in flat:
        return "absent"
    value = flat[key]
    return value if isinstance(value, str) and 0 < len(value) <= 16 else _SHORT.repr(value)
