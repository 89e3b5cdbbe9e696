"""Trains the embedded generator from scratch: `python -m npc_local.shapes.train`.

Stages: `data` (drawn scenes with captions), `tokens` (tokenizer files), `autoencoder`, `text`
(teaches the text encoders to read), `denoiser` (flow matching, then guidance distillation),
`export` (an ordinary diffusers FLUX directory). Each stage is seeded and goes on where it stopped.
"""

from npc_local.core.offline.switches import go_offline

go_offline()  # before anything here imports diffusers or transformers
