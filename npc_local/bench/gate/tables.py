"""The times of `gate_bench` as tables, and what they depend on."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

from npc_local.bench.analysis.tables import table
from npc_local.bench.gate.measure import Result
from npc_local.bench.gate.random_flux import Job


def markdown(results: Sequence[Result]) -> str:
    """Return the results as a markdown table, which reads well in a terminal too."""
    memory = any(found.peak_bytes is not None for one in results for found in one.ways.values())
    head = ["model", "parameters", "image", "steps", "negative", "forwards", "s an image"]
    head += ["lowest-highest", "ratio", "by forwards", *(["peak memory"] if memory else [])]
    rows = []
    for result in results:
        job = result.job
        name = f"{job.model.name}, compiled" if result.compiled else job.model.name
        model = [name, _count(job.parameters), f"{job.size} x {job.size}", str(job.steps)]
        negatives = {"none": "none", "gate": f"first {job.negative_steps}", "stock": "every step"}
        for way, found in result.ways.items():
            peak = "" if found.peak_bytes is None else f"{found.peak_bytes / 1e9:.2f} GB"
            rows.append(
                [
                    *model,
                    negatives[way],
                    str(found.forwards),
                    f"{found.median:.3f}",
                    f"{min(found.seconds):.3f}-{max(found.seconds):.3f}",
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


def machine(job: Job) -> dict[str, Any]:
    """Return what the times depend on besides the model."""
    import torch

    cuda = job.device == "cuda"
    return {
        "device": job.device,
        "name": torch.cuda.get_device_name() if cuda else "CPU",
        "threads": torch.get_num_threads(),
        "dtype": job.dtype,
        "repeats": job.repeats,
        "torch": torch.__version__,
        "diffusers": importlib.metadata.version("diffusers"),
    }
