"""What makes two runs the same: settings, models by their content, and the code that has a say."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from npc_local.core.config.load import ResolvedProfile
from npc_local.core.hashing import code_digest
from npc_local.core.versions import libraries
from npc_local.run.components import Components

_AGENTS = ("agents/*.py", "backends/schemas.py", "core/records.py")
# Of each kind of step: the code and the templates that have a say in the answer, whoever gives it.
CODE = {
    "checklist": (*_AGENTS, "agents/templates/checklist.*"),
    "verify": (*_AGENTS, "agents/templates/verify.*"),
    "caption": (*_AGENTS, "agents/templates/caption.*"),
    "propose": (*_AGENTS, "agents/templates/propose*"),
    "generate": ("generator", "core/records.py"),
    "rank": (
        *("salience/rules", "salience/tokens.py", "salience/encoders", "salience/formulas.py"),
        *("salience/scorer.py", "salience/ranking.py", "core/records.py"),
    ),
}


def run_identity(profile: ResolvedProfile, components: Components) -> dict[str, Any]:
    """Return what must not change while a run goes on: settings, models by content, code, versions.

    Where models lie, how long is waited for them and whose turn it is on the GPU may change. Reads
    all model files once: minutes for large ones. The components are open, their backends checked.

    Raises:
        ModelFilesError: a file cannot be read.
    """
    away = {"path", "device", "more_devices", "gguf", "loras"}
    backends = profile.backends
    agents = {
        "verifier": (backends[profile.verifier], components.verifier),
        "captioner": (backends[profile.captioner], components.captioner),
        "proposer": (backends[profile.proposer], components.proposer),
    }
    described = {"kind", "model", "temperature", "max_pixels", "image_factor"}
    return {
        "candidates": profile.candidates,
        "rules": asdict(components.rules),
        "generator": profile.generator.model_dump(mode="json", exclude=away)
        | {"fingerprint": components.generator.fingerprint()},
        "encoder": profile.encoder.model_dump(mode="json", exclude={"path", "device"})
        | {"fingerprint": components.scorer.fingerprint()},
        **{
            role: settings.model_dump(mode="json", include=described)
            | {"fingerprint": backend.fingerprint()}
            for role, (settings, backend) in agents.items()
        },
        "code": {kind: code_digest(*parts) for kind, parts in CODE.items()},
        "versions": libraries(),
    }
