"""The times of `measure` as tables, and what they depend on."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

from npc_local.bench.analysis.tables import table
from npc_local.bench.gate.measure import ModelTimings
from npc_local.bench.gate.random_flux import Setup


def markdown(results: Sequence[ModelTimings]) -> str:
    """Return the results as a markdown table, which reads well in a terminal too."""
    memory = any(
        timing.peak_bytes is not None for model in results for timing in model.ways.values()
    )
    head = ["model", "parameters", "image", "steps", "negative", "forwards", "s an image"]
    head += ["lowest-highest", "ratio", "by forwards", *(["peak memory"] if memory else [])]
    rows = []
    for result in results:
        setup = result.setup
        name = f"{setup.model.name}, compiled" if result.compiled else setup.model.name
        model = [name, _count(setup.parameters), f"{setup.size} x {setup.size}", str(setup.steps)]
        negatives = {"none": "none", "gate": f"first {setup.negative_steps}", "stock": "every step"}
        for way, timing in result.ways.items():
            peak = "" if timing.peak_bytes is None else f"{timing.peak_bytes / 1e9:.2f} GB"
            rows.append(
                [
                    *model,
                    negatives[way],
                    str(timing.forwards),
                    f"{timing.median:.3f}",
                    f"{min(timing.seconds):.3f}-{max(timing.seconds):.3f}",
                    f"{result.ratio(way):.3f}",
                    f"{result.expected(way):.3f}",
                    *([peak] if memory else []),
                ]
            )
    return "\n".join(table(head, rows)) + "\n"


def _count(number: int) -> str:
    """Return a number of parameters in millions or thousands of millions."""
    return f"{number / 1e9:.1f} B" if number >= 1e9 else f"{number / 1e6:.1f} M"


def title(machine: Mapping[str, Any]) -> str:
    """Return in a line what `machine` told."""
    threads = "" if machine["device"] == "cuda" else f", threads: {machine['threads']}"
    return (
        f"{machine['name']}{threads}, {machine['dtype']}, torch {machine['torch']}, diffusers "
        f"{machine['diffusers']}; images timed each way, in turn: {machine['repeats']}."
    )


def machine(setup: Setup) -> dict[str, Any]:
    """Return what the times depend on besides the model."""
    import torch

    cuda = setup.device == "cuda"
    return {
        "device": setup.device,
        "name": torch.cuda.get_device_name() if cuda else "CPU",
        "threads": torch.get_num_threads(),
        "dtype": setup.dtype,
        "repeats": setup.repeats,
        "torch": torch.__version__,
        "diffusers": importlib.metadata.version("diffusers"),
    }
