"""Makes images with diffusers pipelines, the negative prompt in the first steps only."""
