"""Text encoders of the salience score: many texts in, one mean-pooled vector each out.

Nothing is padded to 512 tokens. A T5 has no positions of its own, only distances between tokens,
so texts are packed behind one another into rows, each token attending to its own text alone: no
padding at all, and the vectors are those of a text encoded by itself. Other encoders get batches of
texts of similar length. Which texts, and what is made of their vectors: `scorer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from npc_local.core.config.settings import EncoderKind, EncoderSettings
from npc_local.core.device import resolve_device
from npc_local.core.device_errors import is_device_lost
from npc_local.core.errors import ModelFilesError
from npc_local.core.files.model_directory import (
    check_weights,
    hash_files,
    read_json,
    require_directory,
)
from npc_local.core.hashing import digest
from npc_local.core.offline.switches import go_offline

if TYPE_CHECKING:
    from torch import Tensor

MAX_TOKENS = 512  # the paper's sentence length
_POOLING = 2  # raised whenever the same files give other vectors
_ROW = 256  # tokens a packed row: enough for a prompt with its negatives; attention grows with it
_SHORT = 8  # tokens: texts up to this long are padded to each other
_GIB = 2**30


class Text(NamedTuple):
    """A text to encode: a sentence, with the tokenizer's special tokens, or a word without."""

    text: str
    sentence: bool


@dataclass(frozen=True, slots=True)
class Source:
    """Where a text encoder comes from.

    `identity` gives a string that changes whenever its vectors may change. `cached` says whether
    word vectors may be kept on disk under it. `owned` is False for a model in somebody else's
    hands, a pipeline's say, who moves it and gives its memory back.
    """

    load: Callable[[], TextEncoder]
    identity: Callable[[], str]
    cached: bool = True
    owned: bool = True


def from_directory(settings: EncoderSettings) -> Source:
    """Return the encoder in a local directory, which is checked now and loaded later.

    Raises:
        ModelFilesError: the directory or one of its two parts is missing or damaged.
    """
    _check_directory(settings)
    return Source(lambda: TextEncoder.load(settings), lambda: _identity(settings, {}))


def from_generator(
    settings: EncoderSettings, pipe: Callable[[], Any], quantization: Mapping[str, Any] | None
) -> Source:
    """Return the encoder that a generator loads from the same directory, not loaded twice.

    Args:
        settings: says which directory and parts these are; `is_held_by` the generator.
        pipe: gives the pipeline, with the first score.
        quantization: how the model is quantised, if it is.

    Raises:
        ModelFilesError: the directory or one of its two parts is missing or damaged.
    """
    _check_directory(settings)
    return Source(
        lambda: TextEncoder.of_pipeline(settings, pipe()),
        lambda: _identity(settings, quantization or {}),
        owned=False,
    )


def _check_directory(settings: EncoderSettings) -> None:
    """Refuse a directory that is incomplete, or whose model is of another kind than is said."""
    folder = settings.path / settings.text_encoder
    require_directory(settings.path)
    require_directory(settings.path / settings.tokenizer)
    check_weights(folder)
    found = str(read_json(folder / "config.json").get("model_type", ""))
    if kind_of(found) != settings.kind:
        raise ModelFilesError(
            f"{folder}: model_type {found!r} is not kind = {settings.kind!r}; correct the kind "
            '("t5", "clip", "decoder") or the text_encoder of this encoder'
        )


def kind_of(model_type: str) -> EncoderKind:
    """Return the kind of encoder that a model_type of transformers is."""
    kinds: dict[str, EncoderKind] = {"t5": "t5", "clip_text_model": "clip"}
    return kinds.get(model_type, "decoder")


def _identity(settings: EncoderSettings, quantization: Mapping[str, Any]) -> str:
    parts = [settings.tokenizer, settings.text_encoder]
    return digest(
        {
            "kind": settings.kind,
            "parts": parts,
            "files": hash_files(settings.path, parts),
            "dtype": settings.dtype,
            "quantization": quantization,
            "pooling": _POOLING,
        }
    )


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

    def _means(self, ids: Sequence[_Ids]) -> Tensor:
        """Return the mean hidden state of each row of token ids, shape (N, D), on the CPU."""
        import torch

        model, device = self.model, self.device or self.model.device
        sums = torch.zeros(len(ids) + 1, self.width, device=device)
        full = [place for place, tokens in enumerate(ids) if tokens]
        passes = self._packed if model.config.model_type == "t5" else self._padded
        with torch.inference_mode():
            for owners, inputs in passes(full, ids):
                on_device = {name: value.to(device) for name, value in inputs.items()}
                states = model(**on_device).last_hidden_state.float().flatten(0, 1)
                # The last row takes what belongs to no text: padding.
                sums.index_add_(0, owners.flatten().to(device), states)
        lengths = torch.tensor([len(tokens) or 1 for tokens in ids])
        return sums[:-1].cpu() / lengths[:, None]

    def _token_ids(self, texts: Sequence[Text]) -> list[_Ids]:
        """Return each text's token ids, cut at `max_tokens`; each of the two sorts in one call."""
        found: dict[Text, _Ids] = {}
        for sentence in (True, False):
            sort = [text for text in dict.fromkeys(texts) if text.sentence is sentence]
            if sort:
                ids = self.tokenizer(
                    [text.text for text in sort],
                    add_special_tokens=sentence,
                    truncation=True,
                    max_length=self.max_tokens,
                ).input_ids
                found |= dict(zip(sort, map(tuple, ids), strict=True))
        return [found[text] for text in texts]

    def _packed(self, full: Sequence[int], ids: Sequence[_Ids]) -> Iterator[_Pass]:
        """Yield passes of rows that hold several texts each, one behind the other."""
        import torch

        rows = _rows(full, lambda index: len(ids[index]))
        rows.sort(key=lambda row: sum(len(ids[index]) for index in row), reverse=True)
        while rows:
            width = sum(len(ids[index]) for index in rows[0])
            at_once = max(1, self._tokens_at_once(width) // width)
            some, rows = rows[:at_once], rows[at_once:]
            tokens = torch.zeros(len(some), width, dtype=torch.long)
            owners = torch.full((len(some), width), len(ids), dtype=torch.long)
            for number, row in enumerate(some):
                at = 0
                for index in row:
                    end = at + len(ids[index])
                    tokens[number, at:end] = torch.tensor(ids[index])
                    owners[number, at:end] = index
                    at = end
            # A row's unused end attends to itself: no softmax over nothing, and it goes nowhere.
            apart = owners[:, None, :, None] != owners[:, None, None, :]
            # Numbers to add, not booleans: eager attention takes those for 0 and 1 and adds them.
            dtype = self.model.dtype
            mask = torch.zeros(apart.shape, dtype=dtype).masked_fill_(apart, torch.finfo(dtype).min)
            yield owners, {"input_ids": tokens, "attention_mask": mask}

    def _padded(self, full: Sequence[int], ids: Sequence[_Ids]) -> Iterator[_Pass]:
        """Yield passes of texts of similar length, filled up on the right."""
        import torch

        rest = sorted(full, key=lambda index: len(ids[index]), reverse=True)
        while rest:
            width = len(ids[rest[0]])
            at_once = max(1, self._tokens_at_once(width) // width)
            # At most half of a row is padding, unless it is too short for a pass of its own.
            fitting = [i for i in rest[:at_once] if width <= _SHORT or 2 * len(ids[i]) >= width]
            rest = rest[len(fitting) :]
            tokens = torch.zeros(len(fitting), width, dtype=torch.long)
            owners = torch.full((len(fitting), width), len(ids), dtype=torch.long)
            for number, index in enumerate(fitting):
                tokens[number, : len(ids[index])] = torch.tensor(ids[index])
                owners[number, : len(ids[index])] = index
            yield owners, {"input_ids": tokens, "attention_mask": (owners < len(ids)).long()}

    def _tokens_at_once(self, row: int) -> int:
        """Return how many tokens in rows of this length fit into the memory budget."""
        config = _sizes(self.model)
        inner = getattr(config, "d_ff", None) or getattr(config, "intermediate_size", None)
        inner = inner or 4 * config.hidden_size  # as GPT-2 and its kin have it
        # Live at once in a layer: residual, norm, q, k, v and output; the inner layer and its gate;
        # scores, mask and position bias of the attention.
        numbers = 6 * config.hidden_size + 3 * inner + 3 * config.num_attention_heads * row
        return int(self.memory_gib * _GIB / (numbers * self.model.dtype.itemsize))


_Ids = tuple[int, ...]
_Pass = tuple["Tensor", dict[str, "Tensor"]]  # which text each token belongs to; the model's inputs


def _sizes(model: Any) -> Any:
    """Return the configuration that has the text model's sizes."""
    return model.config.get_text_config()


def _rows(full: Sequence[int], length: Callable[[int], int]) -> list[list[int]]:
    """Pack texts into rows of at most `_ROW` tokens, or of one text that is longer.

    First fit, longest first: never more than 11/9 of the fewest rows possible, and one more
    (the classic bound of bin packing).
    """
    rows: list[list[int]] = []
    space: list[int] = []
    for index in sorted(full, key=length, reverse=True):
        need = length(index)
        for number, free in enumerate(space):
            if need <= free:
                rows[number].append(index)
                space[number] -= need
                break
        else:
            rows.append([index])
            space.append(max(_ROW, need) - need)
    return rows
