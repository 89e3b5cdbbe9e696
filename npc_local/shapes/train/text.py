"""The text encoders, a small T5 and a small CLIP, taught to read before any image is made.

A denoiser that trains together with blank text encoders ignores the text for most of its time.
So both first learn, by regression, what captions say (`data.facts`).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    T5Config,
    T5EncoderModel,
)

from npc_local.shapes.train.data import FACTS, Caption, Corpus, facts
from npc_local.shapes.train.progress import Means, Run
from npc_local.shapes.train.tokens import CLIP_LENGTH, Tokenizers, tie_case

T5_WIDTH = 128
CLIP_WIDTH = 96


class TextEncoders(nn.Module):
    """T5 and CLIP together, as the denoiser sees them."""

    def __init__(self, tokenizers: Tokenizers) -> None:
        super().__init__()
        self.tokenizers = tokenizers
        self.t5 = T5EncoderModel(
            T5Config(
                vocab_size=len(tokenizers.t5),
                d_model=T5_WIDTH,
                d_kv=32,
                d_ff=384,
                num_layers=4,
                num_heads=4,
                feed_forward_proj="gated-gelu",
                dropout_rate=0.0,
                is_encoder_decoder=False,
                use_cache=False,
            )
        )
        self.clip = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizers.clip),
                hidden_size=CLIP_WIDTH,
                intermediate_size=4 * CLIP_WIDTH,
                num_hidden_layers=2,
                num_attention_heads=3,
                max_position_embeddings=CLIP_LENGTH,
                bos_token_id=tokenizers.clip.bos_token_id,
                eos_token_id=tokenizers.clip.eos_token_id,
                pad_token_id=tokenizers.clip.pad_token_id,
                projection_dim=CLIP_WIDTH,
            )
        )

    def forward(self, t5_ids: Tensor, clip_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states (n, 26, 128), without a mask as FLUX runs its T5, and pooled (n, 96)."""
        hidden = self.t5(input_ids=t5_ids).last_hidden_state
        return hidden, self.clip(input_ids=clip_ids).pooler_output

    def tie_case(self) -> None:
        """Make capitals mean what small letters mean."""
        tie_case(self.tokenizers.t5, self.t5.shared)


class _Readers(nn.Module):
    """Heads that say what a caption said; dropped after this stage."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Linear(T5_WIDTH, 256)
        self.t5 = nn.Sequential(nn.GELU(), nn.Linear(256, FACTS))
        self.masked = nn.Sequential(nn.Linear(T5_WIDTH, 256), nn.GELU(), nn.Linear(256, FACTS))
        self.clip = nn.Sequential(nn.Linear(CLIP_WIDTH, 256), nn.GELU(), nn.Linear(256, FACTS))


def train_text(corpus: Corpus, tokenizers: Tokenizers, work: Path, steps: int) -> TextEncoders:
    """Train both encoders to read captions; returns them without the reading heads.

    The T5 reads both ways that npc-local uses it: padded without a mask (the pipeline), and with
    a mask and mean-pooled (the salience score).
    """
    run = Run(work, "text", steps)
    captions = [caption for row in corpus.captions for caption in row][:120_000]
    t5_ids, clip_ids = tokenizers([caption.text.lower() for caption in captions])
    said = torch.stack([facts(caption) for caption in captions])
    encoders, readers = TextEncoders(tokenizers), _Readers()
    both = nn.ModuleList([encoders, readers])
    optimizer = torch.optim.AdamW(both.parameters(), lr=1.5e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps + 1)
    start = run.resume(model=both, optimizer=optimizer)
    # All that the schedule keeps besides: a run that goes on may be given more steps.
    schedule.last_epoch = start
    means = Means()
    for step in run.count(start):
        chosen = torch.randint(len(captions), (128,))
        losses = _losses(encoders, readers, t5_ids[chosen], clip_ids[chosen], said[chosen])
        torch.autograd.backward(sum(losses.values(), torch.zeros(())))
        nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        means.add(**losses)
        if run.due(step + 1, 100):
            run.log(step + 1, **means.take())
        if run.due(step + 1, 500):
            run.save(step + 1, model=both, optimizer=optimizer)
    return encoders


def _losses(
    encoders: TextEncoders, readers: _Readers, t5_ids: Tensor, clip_ids: Tensor, truth: Tensor
) -> dict[str, Tensor]:
    mask = (t5_ids != encoders.tokenizers.t5.pad_token_id).float()
    hidden, pooled = encoders(t5_ids, clip_ids)
    masked = encoders.t5(input_ids=t5_ids, attention_mask=mask).last_hidden_state
    mean = (masked * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
    return {
        "t5": _error(readers.t5(readers.token(hidden).amax(1)), truth),
        "masked": _error(readers.masked(mean), truth),
        "clip": _error(readers.clip(pooled), truth),
    }


def _error(guess: Tensor, truth: Tensor) -> Tensor:
    """Squared error, summed over the facts of a caption, averaged over captions."""
    return functional.mse_loss(guess, truth, reduction="none").sum(-1).mean()


def spoken(captions: list[list[Caption]]) -> list[str]:
    """The captions' texts in one list, row by row, in small letters as the encoders learn them."""
    return [caption.text.lower() for row in captions for caption in row]
