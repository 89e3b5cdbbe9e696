"""Tiny random parts of pipelines that several families share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import CLIPTokenizer, Qwen2Tokenizer, T5Tokenizer

CLIP_LENGTH, T5_LENGTH = 77, 512
_WORDS = ("a", "one", "two", "three", "cat", "clock", "red")
_QWEN_MARKERS = (
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<think>",
    "</think>",
)


def tiny_clip_tokenizer() -> CLIPTokenizer:
    """Return a byte-level BPE tokenizer with letters for words."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=[],
        model_max_length=CLIP_LENGTH,
    )


def tiny_t5_tokenizer() -> T5Tokenizer:
    """Return a Unigram tokenizer of letters and a few words, ending each text in </s>."""
    from transformers import T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁", -2.0)]
    pieces += [(letter, -4.0) for letter in "abcdefghijklmnopqrstuvwxyz0123456789"]
    pieces += [(f"▁{word}", -3.0) for word in _WORDS]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=T5_LENGTH)


def tiny_kl_autoencoder(latent_channels: int = 4, **changes: Any) -> Any:
    """Return an autoencoder that halves each side once: 32 pixels become 16."""
    import diffusers

    kind: Any = diffusers.AutoencoderKL
    values: dict[str, Any] = {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ("DownEncoderBlock2D", "DownEncoderBlock2D"),
        "up_block_types": ("UpDecoderBlock2D", "UpDecoderBlock2D"),
        "block_out_channels": (8, 8),
        "layers_per_block": 1,
        "latent_channels": latent_channels,
        "norm_num_groups": 2,
    }
    return kind(**(values | changes))


def tiny_qwen_tokenizer() -> Qwen2Tokenizer:
    """Return a byte-level tokenizer of letters, with Qwen's markers and a chat template."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    pieces = [*sorted(ByteLevel.alphabet()), "<|endoftext|>", *_QWEN_MARKERS]
    tokenizer = Qwen2Tokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=[],
        additional_special_tokens=list(_QWEN_MARKERS),
    )
    tokenizer.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
        "{{ message['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return tokenizer
