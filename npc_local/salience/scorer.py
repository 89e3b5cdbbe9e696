"""Ranks negative prompts with a T5 encoder: one batch for everything one prompt needs.

Which tokens are salient is left to `tokens`, what a score is to `formulas`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

from npc_local.device import resolve_device
from npc_local.errors import ModelFilesError
from npc_local.model_files import check_weights, hash_files, require_directory
from npc_local.offline import go_offline
from npc_local.salience import formulas
from npc_local.salience.tokens import salient_tokens
from npc_local.settings import EncoderSettings

if TYPE_CHECKING:
    from torch import Tensor

Encoder: TypeAlias = tuple[Any, Any]  # tokenizer, T5EncoderModel
_MAX_TOKENS = 512  # the paper's sentence length


class T5Scorer:
    """Scores negatives by the paper's salience formula; a `Scorer`.

    Masked mean pooling makes the score independent of padding, so nothing is padded beyond the
    longest text. The directory is checked at once; the model is loaded with the first score.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        """Check the encoder's directory.

        Raises:
            ModelFilesError: the directory or one of its two parts is missing or damaged.
        """
        require_directory(settings.path)
        require_directory(settings.path / settings.tokenizer)
        check_weights(settings.path / settings.text_encoder)
        self.settings = settings
        self._load: Callable[[], Encoder] = self._load_directory
        self._shared = False

    @classmethod
    def sharing(cls, settings: EncoderSettings, load: Callable[[], Encoder]) -> T5Scorer:
        """Return a scorer on an encoder that is in memory anyway, such as a pipeline's own.

        `load` is called with the first score. The scorer computes on that model's device and in
        its dtype, whatever `settings` says.
        """
        scorer = cls(settings)
        scorer._load = load
        scorer._shared = True
        return scorer

    def score(self, prompt: str, negatives: Sequence[str]) -> list[float]:
        """Return one salience score a negative, in order; higher is tried earlier.

        Raises:
            ModelFilesError: the encoder cannot be loaded.
        """
        import torch

        sentences = list(dict.fromkeys([prompt, *negatives]))
        words = salient_tokens(prompt)
        vectors = self.encode(sentences, words)
        row = {sentence: index for index, sentence in enumerate(sentences)}
        chosen = torch.tensor([row[negative] for negative in negatives], dtype=torch.long)
        return formulas.paper(vectors[0], vectors[chosen], vectors[len(sentences) :]).tolist()

    def fingerprint(self) -> str:
        """Return a SHA-256 over the settings and the encoder's files.

        Raises:
            ModelFilesError: a file cannot be read.
        """
        settings = self.settings
        identity = {
            "settings": settings.model_dump(mode="json", exclude={"path"}),
            "files": hash_files(settings.path, [settings.tokenizer, settings.text_encoder]),
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def encode(self, sentences: Sequence[str], words: Sequence[str]) -> Tensor:
        """Return the masked mean of the last hidden states of each text, sentences first.

        Sentences end in the end token, words carry no special token (paper, section 3). A word
        without any token gives a zero vector.

        Returns:
            Shape (len(sentences) + len(words), D), float32 on the CPU.
        """
        import torch

        tokenizer, model = self._encoder
        ids = _token_ids(tokenizer, sentences, True) + _token_ids(tokenizer, words, False)
        batch = tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(model.device)
        mask = batch["attention_mask"]
        with torch.no_grad():
            states = model(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
        states = states.float().masked_fill(mask[..., None] == 0, 0)
        means: Tensor = states.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)
        return means.cpu()

    def leave_device(self) -> None:
        """Give the GPU's memory back; the next score loads the encoder again.

        One that is shared is its owner's to move; one on the CPU is in nobody's way.
        """
        if "_encoder" in vars(self) and (self._shared or self._encoder[1].device.type != "cpu"):
            import gc

            import torch

            del self._encoder
            gc.collect()
            torch.cuda.empty_cache()

    @cached_property
    def _encoder(self) -> Encoder:
        return self._load()

    def _load_directory(self) -> Encoder:
        """Load the tokenizer and the T5 encoder from the local directory."""
        go_offline()
        import torch
        from safetensors import SafetensorError
        from transformers import AutoTokenizer, T5EncoderModel

        settings = self.settings
        loader: Any = T5EncoderModel  # its types do not know output_loading_info
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                settings.path / settings.tokenizer, local_files_only=True
            )
            model, report = loader.from_pretrained(
                settings.path / settings.text_encoder,
                local_files_only=True,
                use_safetensors=True,
                dtype=getattr(torch, settings.dtype),
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise ModelFilesError(f"{settings.path}: cannot be loaded: {error}") from error
        if report["missing_keys"]:
            # transformers would go on with random numbers in their place.
            raise ModelFilesError(
                f"{settings.path / settings.text_encoder}: weights lack "
                f"{', '.join(sorted(report['missing_keys']))}; copy the model again"
            )
        return tokenizer, model.to(resolve_device(settings.device)).eval()


def _token_ids(tokenizer: Any, texts: Sequence[str], special: bool) -> list[list[int]]:
    """Return the token ids of each text, with or without the tokenizer's special tokens."""
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(
        list(texts), add_special_tokens=special, truncation=True, max_length=_MAX_TOKENS
    ).input_ids
    return ids
