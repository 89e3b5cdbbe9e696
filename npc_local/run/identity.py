"""What makes two runs the same: settings, models by their content, and the code that has a say."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from npc_local.agents import Rules
from npc_local.core.config.load import ResolvedProfile
from npc_local.core.hashing import code_digest
from npc_local.core.versions import libraries
from npc_local.run.components import Components

_WORDS = ("core/prompt_markup.py", "core/prompts.py", "core/records.py")
_AGENTS = ("agents/*.py", "backends/schemas.py", *_WORDS)
# Of each kind of stage: the code and the templates that have a say in the answer, whoever gives it.
CODE = {
    "checklist": (*_AGENTS, "agents/templates/checklist.*"),
    "verify": (*_AGENTS, "agents/templates/verify.*"),
    "caption": (*_AGENTS, "agents/templates/caption.*"),
    "propose": (*_AGENTS, "agents/templates/propose*"),
    "generate": ("generator", "core/records.py"),
    "rank": (
        *("salience/rules", "salience/tokens.py", "salience/encoders", "salience/formulas.py"),
        *("salience/scorer.py", "salience/ranking.py", *_WORDS),
    ),
}


def run_identity(profile: ResolvedProfile, components: Components) -> dict[str, Any]:
    """Return what must not change while a run goes on: settings, models by content, code, versions.

    Where models lie, how long is waited for them and whose turn it is on the GPU may change. Reads
    all model files once: minutes for large ones. The components are open, their backends checked.

    Raises:
        ModelFilesError: a file cannot be read.
    """
    identity = settings_identity(profile)
    for part, component in (
        ("generator", components.generator),
        ("encoder", components.scorer),
        ("verifier", components.verifier),
        ("captioner", components.captioner),
        ("proposer", components.proposer),
    ):
        identity[part]["fingerprint"] = component.fingerprint()
    return {**identity, "rules": asdict(components.rules)}


def settings_identity(profile: ResolvedProfile) -> dict[str, Any]:
    """Return what of `run_identity` can be told before a model is read or a server started."""
    away = {"path", "device", "more_devices", "gguf", "loras"}
    described = {"kind", "model", "temperature", "max_pixels", "image_factor"}
    agents = {
        "verifier": profile.verifier,
        "captioner": profile.captioner,
        "proposer": profile.proposer,
    }
    return {
        "candidates": profile.candidates,
        "rules": asdict(Rules(profile.strictness, profile.votes, profile.proposals)),
        "generator": profile.generator.model_dump(mode="json", exclude=away),
        "encoder": profile.encoder.model_dump(mode="json", exclude={"path", "device"}),
        **{
            role: profile.backends[name].model_dump(mode="json", include=described)
            for role, name in agents.items()
        },
        "code": {kind: code_digest(*parts) for kind, parts in CODE.items()},
        "versions": libraries(),
    }
