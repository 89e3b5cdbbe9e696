"""Random numbers that a pipeline draws beside its own generator, from those of torch.

A pipeline gives its generator to the noise that it begins with, but not always to its scheduler:
most flow-matching pipelines call `scheduler.step` without one, and some schedulers draw from a
source of their own. The same shot would give other bytes each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from npc_local.generator.family import Pipeline

if TYPE_CHECKING:
    from torch import Generator


@contextmanager
def random_numbers_kept(pipe: Pipeline) -> Iterator[list[Generator]]:
    """Yield torch's own generators that a pipeline may draw from, and put them back afterwards.

    Those of the CPU and of the device that it computes on; other devices are left alone, so that
    pipelines on several of them do not disturb each other.
    """
    import torch

    device = pipe._execution_device  # where noise is drawn, also when offloaded
    backend = getattr(torch, device.type, None)
    generators = [torch.default_generator]
    if backend is not None and hasattr(backend, "default_generators") and backend.is_available():
        backend.init()
        generators.append(backend.default_generators[device.index or 0])
    states = [generator.get_state() for generator in generators]
    try:
        yield generators
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


@contextmanager
def seeded(pipe: Pipeline, seed: int) -> Iterator[None]:
    """Let whatever the pipeline draws from torch's own generators come from `seed`."""
    with random_numbers_kept(pipe) as generators:
        for generator in generators:
            generator.manual_seed(seed)
        # A stochastic scheduler would go on with the noise of the image before.
        if getattr(pipe.scheduler, "noise_sampler", None) is not None:
            pipe.scheduler.noise_sampler = None
        yield
