"""Makes images with diffusers pipelines, the negative prompt in the first steps only."""

from npc_local.generator.early_negative.gate import early_negative
from npc_local.generator.pipeline_generator import PipelineGenerator

__all__ = ["PipelineGenerator", "early_negative"]
