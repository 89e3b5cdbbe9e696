"""T5 encoders with random weights, and texts for them: what timing the salience score needs.

Time depends on a model's size and on how many tokens a text has, not on what was learned.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

SIZES: Mapping[str, Mapping[str, int]] = {
    "tiny": {"d_model": 128, "d_ff": 256, "num_layers": 4, "num_heads": 4, "d_kv": 32},
    "large": {"d_model": 1024, "d_ff": 2816, "num_layers": 24, "num_heads": 16, "d_kv": 64},
    "xxl": {"d_model": 4096, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "d_kv": 64},
}
_VOCABULARY = 32_128
_PIECE = 5  # letters a token: T5's own vocabulary makes about 1.3 tokens of an English word
_END = 1
_COUNTS = ("one", "two", "three", "four", "five")
_COLOURS = ("red", "green", "blue", "yellow", "purple", "black", "white", "orange")
_THINGS = (
    *("apples", "dogs", "bicycles", "teddy bears", "dining tables", "umbrellas", "elephants"),
    *("suitcases", "hair driers", "stop signs", "laptops", "oranges", "trucks", "zebras"),
)
_PLACES = ("left", "right", "above", "below")
_GROUNDS = ("wooden floor", "grey wall", "green grass field", "people in the background")


@dataclass(frozen=True, slots=True)
class Case:
    """A prompt and its negatives."""

    prompt: str
    negatives: tuple[str, ...]


def cases(number: int) -> list[Case]:
    """Return that many prompts of GenEval++'s kinds, five negatives each; always the same."""
    rng = random.Random(0)
    drawn = []
    for _ in range(number):
        first, second = rng.sample(_THINGS, 2)
        prompt = (
            f"A photo of {rng.choice(_COUNTS)} {rng.choice(_COLOURS)} {first} on the "
            f"{rng.choice(_PLACES)} and {rng.choice(_COUNTS)} {rng.choice(_COLOURS)} {second}"
        )
        negatives = (
            f"{rng.choice(_COUNTS)} {first}",
            f"{rng.choice(_COLOURS)} {second}",
            f"{first} on the {rng.choice(_PLACES)}",
            *rng.sample(_GROUNDS, 2),
        )
        drawn.append(Case(prompt, negatives))
    return drawn


class PieceTokenizer:
    """Cuts words into pieces of a few letters; called as the tokenizers of transformers are."""

    def __call__(
        self,
        text: str | Sequence[str],
        *,
        add_special_tokens: bool = True,
        truncation: bool = False,
        max_length: int = 512,
    ) -> SimpleNamespace:
        """Return the token ids of a text, or of each of several."""
        if not isinstance(text, str):
            rows = [
                self(
                    each,
                    add_special_tokens=add_special_tokens,
                    truncation=truncation,
                    max_length=max_length,
                ).input_ids
                for each in text
            ]
            return SimpleNamespace(input_ids=rows)
        ids = [
            2 + zlib.crc32(word[at : at + _PIECE].encode()) % (_VOCABULARY - 2)
            for word in text.lower().split()
            for at in range(0, len(word), _PIECE)
        ]
        ids += [_END] if add_special_tokens else []
        if truncation and len(ids) > max_length:
            ids = [*ids[: max_length - 1], _END]
        return SimpleNamespace(input_ids=ids)


def random_t5(size: str, device: str) -> Any:
    """Return a gated T5 encoder (v1.1) of a known size with random float32 weights."""
    import torch
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(0)
    sizes: dict[str, Any] = dict(SIZES[size])
    config = T5Config(
        vocab_size=_VOCABULARY, feed_forward_proj="gated-gelu", dropout_rate=0.0, **sizes
    )
    with torch.device(device):
        model: Any = T5EncoderModel(config)
    return model.eval()
