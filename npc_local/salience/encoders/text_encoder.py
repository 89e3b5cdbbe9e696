"""Text encoders of the salience score: many texts in, one mean-pooled vector each out.

Nothing is padded to 512 tokens. A T5 has no positions of its own, only distances between tokens,
so texts are packed behind one another into rows, each token attending to its own text alone: no
padding at all, and the vectors are those of a text encoded by itself. Other encoders get batches of
texts of similar length (`batching`). Where an encoder comes from: `source`. Which texts, and what
is made of their vectors: `scorer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from npc_local.core.config.settings import EncoderSettings
from npc_local.core.device import resolve_device
from npc_local.core.device_errors import is_device_lost
from npc_local.core.errors import ModelFilesError
from npc_local.core.files.weights import variants
from npc_local.core.offline.switches import go_offline
from npc_local.salience.encoders.batching import Ids, packed, padded

if TYPE_CHECKING:
    from torch import Tensor

MAX_TOKENS = 512  # the paper's sentence length
_GIB = 2**30


class Text(NamedTuple):
    """A text to encode: a sentence, with the tokenizer's special tokens, or a word without."""

    text: str
    sentence: bool


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """A tokenizer and a text model in memory.

    `memory_gib` bounds what one forward pass may take beside the weights, by an estimate from the
    model's sizes. `device` is where the model computes, if its weights wait elsewhere (offloading).
    """

    tokenizer: Any
    model: Any
    memory_gib: float = 1.0
    device: Any = None

    @classmethod
    def of_pipeline(cls, settings: EncoderSettings, pipe: Any) -> TextEncoder:
        """Take tokenizer and model out of a pipeline, which keeps them.

        Raises:
            ModelFilesError: the pipeline was loaded without one of them.
        """
        parts = [getattr(pipe, name, None) for name in (settings.tokenizer, settings.text_encoder)]
        if None in parts:
            raise ModelFilesError(
                f"{settings.path}: the pipeline has no {settings.text_encoder} with a "
                f"{settings.tokenizer}; name another encoder"
            )
        return cls(parts[0], parts[1], settings.memory_gib, pipe._execution_device)

    @classmethod
    def load(cls, settings: EncoderSettings) -> TextEncoder:
        """Load tokenizer and model from a local directory, safetensors only, no code of its own.

        Raises:
            ModelFilesError: they cannot be loaded, or weights are missing.
        """
        go_offline()
        import torch
        import transformers
        from safetensors import SafetensorError

        library: Any = transformers  # parts of it have no types
        library.utils.logging.disable_progress_bar()
        folder = settings.path / settings.text_encoder
        classes = {"t5": "T5EncoderModel", "clip": "CLIPTextModel", "decoder": "AutoModel"}
        loader = getattr(library, classes[settings.kind])
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                settings.path / settings.tokenizer, local_files_only=True
            )
            model, report = loader.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                variant=min(variants(folder), default=None),
                dtype=getattr(torch, settings.dtype),
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            raise ModelFilesError(f"{settings.path}: cannot be loaded: {error}") from error
        if report["missing_keys"]:
            # transformers would go on with random numbers in their place.
            raise ModelFilesError(
                f"{folder}: weights lack {', '.join(sorted(report['missing_keys']))}; "
                'copy the model again, or correct the encoder\'s kind ("t5", "clip", "decoder")'
            )
        encoder = cls(
            tokenizer, model.to(resolve_device(settings.device)).eval(), settings.memory_gib
        )
        try:
            encoder.vectors([Text("a", True), Text("word", False)])
        except (AttributeError, IndexError, TypeError, ValueError, RuntimeError) as error:
            if is_device_lost(error):
                raise
            kind = model.config.model_type
            raise ModelFilesError(
                f"{folder}: a {kind} cannot be used as a text encoder: {error}"
            ) from error
        return encoder

    @property
    def width(self) -> int:
        """The length D of a vector."""
        return int(_sizes(self.model).hidden_size)

    @property
    def max_tokens(self) -> int:
        """The longest text that is read; what is beyond is cut off."""
        positions = getattr(_sizes(self.model), "max_position_embeddings", None)
        return min(MAX_TOKENS, positions or MAX_TOKENS)

    def length(self, sentence: str) -> int:
        """Return how many tokens a sentence has, uncut."""
        return len(self.tokenizer(sentence).input_ids)

    def vectors(self, texts: Sequence[Text]) -> Tensor:
        """Return the mean of the last hidden states over each text's own tokens.

        A text without any token (a word that the tokenizer drops) gives a zero vector.

        Returns:
            Shape (N, D), float32 on the CPU, copied from the device once.
        """
        import torch

        ids = self._token_ids(texts)
        # Texts of the same tokens ("cat", " cat ") get the very same vector: the direction from one
        # to the other must be zero, not rounding noise.
        places = {tokens: place for place, tokens in enumerate(dict.fromkeys(ids))}
        vectors = self._means(list(places))
        return vectors[torch.tensor([places[tokens] for tokens in ids], dtype=torch.long)]

    def _means(self, ids: Sequence[Ids]) -> Tensor:
        """Return the mean hidden state of each row of token ids, shape (N, D), on the CPU."""
        import torch

        model, device = self.model, self.device or self.model.device
        sums = torch.zeros(len(ids) + 1, self.width, device=device)
        if model.config.model_type == "t5":
            passes = packed(ids, self._tokens_at_once, model.dtype)
        else:
            passes = padded(ids, self._tokens_at_once)
        with torch.inference_mode():
            for owners, inputs in passes:
                on_device = {name: value.to(device) for name, value in inputs.items()}
                states = model(**on_device).last_hidden_state.float().flatten(0, 1)
                # The last row takes what belongs to no text: padding.
                sums.index_add_(0, owners.flatten().to(device), states)
        lengths = torch.tensor([len(tokens) or 1 for tokens in ids])
        return sums[:-1].cpu() / lengths[:, None]

    def _token_ids(self, texts: Sequence[Text]) -> list[Ids]:
        """Return each text's token ids, cut at `max_tokens`; each of the two sorts in one call."""
        ids_of: dict[Text, Ids] = {}
        for sentence in (True, False):
            sort = [text for text in dict.fromkeys(texts) if text.sentence is sentence]
            if sort:
                ids = self.tokenizer(
                    [text.text for text in sort],
                    add_special_tokens=sentence,
                    truncation=True,
                    max_length=self.max_tokens,
                ).input_ids
                ids_of |= dict(zip(sort, map(tuple, ids), strict=True))
        return [ids_of[text] for text in texts]

    def _tokens_at_once(self, row: int) -> int:
        """Return how many tokens in rows of this length fit into the memory budget."""
        config = _sizes(self.model)
        inner = getattr(config, "d_ff", None) or getattr(config, "intermediate_size", None)
        inner = inner or 4 * config.hidden_size  # as GPT-2 and its kin have it
        # Live at once in a layer: residual, norm, q, k, v and output; the inner layer and its gate;
        # scores, mask and position bias of the attention.
        numbers = 6 * config.hidden_size + 3 * inner + 3 * config.num_attention_heads * row
        return int(self.memory_gib * _GIB / (numbers * self.model.dtype.itemsize))


def _sizes(model: Any) -> Any:
    """Return the configuration that has the text model's sizes."""
    return model.config.get_text_config()
