"""Who does the work of a run: generator, agents and scorer, and by which rules.

How a profile is opened as these is left to `factory`, when each of them works to `executor`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from npc_local.agents import Rules
from npc_local.backends.base import Backend
from npc_local.generator.base import Generator
from npc_local.run.gpu_sharing import GpuSharing
from npc_local.salience.base import Scorer


@dataclass(frozen=True, slots=True)
class Components:
    """The generator, the three agents, and the scorer that ranks; and by which rules.

    Attributes:
        generator: makes the images.
        verifier: derives checklists and judges images.
        captioner: describes images.
        proposer: proposes negative prompts.
        scorer: ranks them.
        rules: how verdicts and proposals come about.
        more_generators: the same generator on further devices: it must not matter who makes an
            image.
        shared_encoder: the scorer computes on the generator's text encoder, so that both need one
            thread.
        gpu_sharing: leases the GPU, where the agents' models and the generator's share one.
        judge: who is asked about results, in a benchmark whose judge is a backend.
    """

    generator: Generator
    verifier: Backend
    captioner: Backend
    proposer: Backend
    scorer: Scorer
    rules: Rules = field(default_factory=Rules)
    more_generators: tuple[Generator, ...] = ()
    shared_encoder: bool = False
    gpu_sharing: GpuSharing | None = None
    judge: Backend | None = None
