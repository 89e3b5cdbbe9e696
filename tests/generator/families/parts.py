"""Tiny random parts of pipelines that several families share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.generator.families.case import N

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import (
        CLIPTextConfig,
        CLIPTokenizer,
        GemmaTokenizer,
        Qwen2Tokenizer,
        T5Tokenizer,
    )

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


def tiny_kl_autoencoder(latent_channels: int = 4, halvings: int = 1, **changes: Any) -> Any:
    """Return an autoencoder that halves each side so many times; once makes 16 of 32 pixels."""
    import diffusers

    kind: Any = diffusers.AutoencoderKL
    blocks = halvings + 1
    values: dict[str, Any] = {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ("DownEncoderBlock2D",) * blocks,
        "up_block_types": ("UpDecoderBlock2D",) * blocks,
        "block_out_channels": (8,) * blocks,
        "layers_per_block": 1,
        "latent_channels": latent_channels,
        "norm_num_groups": 2,
        "shift_factor": 0.1,
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


def tiny_qwen3_config(tokenizer: Qwen2Tokenizer) -> Any:
    """Return the configuration of a Qwen3 text encoder with 16 channels and three layers."""
    from transformers import Qwen3Config

    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        pad_token_id=tokenizer.pad_token_id,
    )


def flow_schedule(pipe: Any, mu: float | None = None) -> tuple[Tensor, Tensor]:
    """Return the noise levels and times of `N` steps for a flow-matching pipeline.

    The table is diffusers' own: its rounding is not what is tested here.
    """
    import numpy as np

    schedule = type(pipe.scheduler).from_config(pipe.scheduler.config)
    schedule.set_timesteps(sigmas=np.linspace(1, 1 / N, N), mu=mu)
    return schedule.sigmas, schedule.timesteps


def flux_shift(pipe: Any, tokens: int) -> float:
    """Return how far FLUX.1 and its kin shift the noise levels for an image of `tokens`."""
    config = pipe.scheduler.config
    slope = (config.max_shift - config.base_shift) / (
        config.max_image_seq_len - config.base_image_seq_len
    )
    shift: float = config.base_shift + slope * (tokens - config.base_image_seq_len)
    return shift


def flux_packed(latents: Tensor) -> Tensor:
    """Return square latents as FLUX.1 and its kin pack them: a token for each 2 by 2 pixels."""
    images, channels, side = latents.shape[0], latents.shape[1], latents.shape[2] // 2
    latents = latents.reshape(images, channels, side, 2, side, 2).permute(0, 2, 4, 1, 3, 5)
    return latents.reshape(images, side * side, 4 * channels)


def flux_positions(side: int) -> Tensor:
    """Return the place of each token of a square image: (0, row, column)."""
    import torch

    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], -1).reshape(-1, 3).float()


def tiny_gemma_tokenizer() -> GemmaTokenizer:
    """Return a tokenizer of single characters that begins each text with <bos>."""
    import string

    from transformers import GemmaTokenizer

    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", "\n"]
    pieces += string.ascii_letters + string.digits + string.punctuation
    return GemmaTokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)}, merges=[], add_bos_token=True
    )


def tiny_marked_tokenizer(*marks: str, **special: Any) -> Any:
    """Return a byte-level tokenizer of letters that begins each text with `marks`."""
    import transformers
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.processors import TemplateProcessing

    vocab = {piece: index for index, piece in enumerate([*sorted(ByteLevel.alphabet()), *marks])}
    tokenizer = Tokenizer(BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = TemplateProcessing(
        single=[*marks, "$A"], special_tokens=[(mark, vocab[mark]) for mark in marks]
    )
    kind: Any = transformers.PreTrainedTokenizerFast
    return kind(tokenizer_object=tokenizer, **special)


def tiny_gemma(tokenizer: GemmaTokenizer) -> Any:
    """Return a Gemma 2 of two layers, 16 wide."""
    import transformers

    kind: Any = transformers.Gemma2Model
    return kind(
        transformers.Gemma2Config(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
        )
    )


def tiny_qwen_vl(tokenizer: Qwen2Tokenizer) -> Any:
    """Return a Qwen2.5-VL of three layers, 16 wide."""
    import transformers

    models: Any = transformers
    size = {"hidden_size": 16, "intermediate_size": 32}
    config = models.Qwen2_5_VLConfig(
        text_config={
            **size,
            "vocab_size": len(tokenizer),
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "initializer_range": 0.5,  # or the texts would hardly differ
            "bos_token_id": None,
            "eos_token_id": None,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [1, 1, 2],
            },
        },
        vision_config={**size, "depth": 1, "num_heads": 2, "out_hidden_size": 16},
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
    )
    return models.Qwen2_5_VLForConditionalGeneration(config)


def tiny_clip_config(tokenizer: CLIPTokenizer, width: int) -> CLIPTextConfig:
    """Return the configuration of a CLIP text model whose every embedding is `width` wide."""
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CLIP_LENGTH,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def tiny_t5_encoder(tokenizer: T5Tokenizer, width: int) -> Any:
    """Return a T5 text encoder whose embeddings are `width` wide."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_ff=48,
        d_kv=8,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    encoder: Any = T5EncoderModel(config)
    return encoder.eval()


def tiny_qwen3_vl_config(tokenizer: Qwen2Tokenizer) -> Any:
    """Return the configuration of a Qwen3-VL of three layers, 16 wide."""
    import transformers

    models: Any = transformers
    size = {"hidden_size": 16, "intermediate_size": 32}
    return models.Qwen3VLConfig(
        text_config={
            **size,
            "vocab_size": len(tokenizer),
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 8,
            "initializer_range": 0.5,  # or the texts would hardly differ
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [2, 1, 1],
                "mrope_interleaved": True,
            },
        },
        vision_config={
            **size,
            "depth": 1,
            "num_heads": 2,
            "out_hidden_size": 16,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
    )


def tiny_qwen_processor(kind: Any, tokenizer: Qwen2Tokenizer) -> Any:
    """Return a `kind` of processor for texts alone; the part for videos asks for torchvision."""
    text_only = type(kind.__name__, (kind,), {"check_argument_for_proper_class": lambda *_: None})
    return text_only(
        tokenizer=tokenizer,
        chat_template=(
            "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
            "{% for part in message['content'] %}{{ part['text'] }}{% endfor %}<|im_end|>\n"
            "{% endfor %}"
        ),
    )


def tiny_qwen_autoencoder() -> Any:
    """Return Qwen-Image's autoencoder with four channels; it halves each side once."""
    import diffusers

    kind: Any = diffusers.AutoencoderKLQwenImage
    return kind(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )


def drawn_anew(model: Any, spread: float = 0.2) -> Any:
    """Return the model with all its parameters drawn anew, large enough for texts to matter."""
    import torch

    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=spread)
    return model
