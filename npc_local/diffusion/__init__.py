"""Makes images with diffusers pipelines, the negative prompt in the first steps only."""

from npc_local.diffusion.gate import early_negative
from npc_local.diffusion.sampling import PipelineGenerator

__all__ = ["PipelineGenerator", "early_negative"]
