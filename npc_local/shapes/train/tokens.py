"""Tokenizer files in the formats of T5 (Unigram) and CLIP (byte-level BPE), from our captions."""

from __future__ import annotations

import json
import math
import random
import re
import string
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import CLIPTokenizer, T5Tokenizer

from npc_local.shapes.scene import sample_scene
from npc_local.shapes.train.data import sample_caption, sample_reading
from npc_local.shapes.wording import NUMBERS

T5_LENGTH = 26  # tokens; the longest training caption takes 25
CLIP_LENGTH = 32


@dataclass(frozen=True, slots=True)
class Tokenizers:
    """The tokenizers of FLUX's two text encoders."""

    t5: T5Tokenizer
    clip: CLIPTokenizer

    def __call__(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Token ids as FluxPipeline makes them: T5 (n, 26) and CLIP (n, 32), padded."""

        def ids(tokenizer: T5Tokenizer | CLIPTokenizer, length: int) -> Tensor:
            encoded: Tensor = tokenizer(
                captions,
                padding="max_length",
                max_length=length,
                truncation=True,
                return_tensors="pt",
            ).input_ids
            return encoded

        return ids(self.t5, T5_LENGTH), ids(self.clip, CLIP_LENGTH)


def make_tokenizers(work: Path, seed: int) -> Tokenizers:
    """Return the tokenizers in `work`, made first if they are not there yet.

    A run that goes on must keep its own: a model learns token ids, not words.
    """
    if not (work / "tokenizer" / "tokenizer.json").exists():
        lines = sentences(5_000, seed)
        t5_tokenizer(lines, work / "tokenizer_2")
        clip_tokenizer(lines, work / "tokenizer")
    return Tokenizers(
        T5Tokenizer.from_pretrained(work / "tokenizer_2"),
        CLIPTokenizer.from_pretrained(work / "tokenizer"),
    )


def sentences(number: int, seed: int) -> list[str]:
    """Captions and digits: what the vocabularies are learned from."""
    rng = random.Random(seed)
    lines = [*map(str, range(10)), *NUMBERS]
    for _ in range(number):
        reading = sample_reading(rng)
        scene = sample_scene(reading.groups, rng, reading.relation)
        lines.append(sample_caption(reading, scene, rng).text)
    return [line for line in lines if line]


def t5_tokenizer(lines: list[str], directory: Path) -> None:
    """Save a T5 tokenizer whose pieces are our words, with letters to fall back on.

    The Unigram trainer does not keep whole words on so small a corpus, so the pieces and their
    log-probabilities are counted here.
    """
    words = Counter(word for line in lines for word in re.findall(r"\w+", line.lower()))
    total = sum(words.values())
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    for word, number in sorted(words.items()):
        # T5 keeps case: each word has a capitalised twin, which `tie_case` gives the same vector.
        forms = dict.fromkeys((word, word.capitalize()))
        pieces += [(f"\u2581{form}", math.log(number / total)) for form in forms]
    # A letter costs more than any word, so that words win.
    letters = ("\u2581", *string.ascii_letters, *string.digits, ".")
    pieces += [*((letter, -12.0) for letter in letters), (",", -3.0)]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=T5_LENGTH)
    tokenizer.save_pretrained(directory)


@torch.no_grad()
def tie_case(tokenizer: T5Tokenizer, embedding: torch.nn.Embedding) -> None:
    """Give every upper-case piece the vector of its lower-case twin, in place."""
    vocabulary = tokenizer.get_vocab()
    for piece, index in vocabulary.items():
        if piece != piece.lower() and piece.lower() in vocabulary:
            embedding.weight[index] = embedding.weight[vocabulary[piece.lower()]]


def clip_tokenizer(lines: list[str], directory: Path) -> None:
    """Train and save a CLIP tokenizer: byte-level BPE with every frequent word whole."""
    blank = CLIPTokenizer()
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer = blank.backend_tokenizer.normalizer
    bpe.pre_tokenizer = blank.backend_tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        end_of_word_suffix="</w>",
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(lines, trainer)
    model = json.loads(bpe.to_str())["model"]
    vocabulary: dict[str, int] = model["vocab"]
    # The trainer numbers single characters in another order in every process.
    single = sorted(piece for piece in vocabulary if re.fullmatch(r".</w>", piece))
    vocabulary |= zip(single, sorted(vocabulary[piece] for piece in single), strict=True)
    merges = [tuple(pair) for pair in model["merges"]]
    family: Any = CLIPTokenizer  # takes pairs, whatever its annotations say
    tokenizer = family(vocab=vocabulary, merges=merges, model_max_length=CLIP_LENGTH)
    tokenizer.save_pretrained(directory)
