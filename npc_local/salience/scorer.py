"""Ranks negative prompts in text space: every text once, as few passes as memory allows.

Which tokens are salient is left to `tokens`, what a score is to `formulas`, how texts become
vectors to `encoders`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Literal, TypeAlias

from npc_local.core.config.settings import EncoderSettings
from npc_local.core.device import torch_threads
from npc_local.core.device_errors import is_device_lost, is_out_of_memory
from npc_local.core.errors import ConfigError, DeviceLostError, GeneratorError
from npc_local.core.hashing import digest
from npc_local.core.records import SalientToken
from npc_local.salience import formulas
from npc_local.salience.encoders.source import Source, from_directory
from npc_local.salience.encoders.text_encoder import Text, TextEncoder
from npc_local.salience.rules import spacy_model
from npc_local.salience.tokens import Rule, salient_tokens

if TYPE_CHECKING:
    from torch import Tensor

Formula = Literal["paper", "released"]
_MOST_WORDS = 4_096  # 64 MiB of vectors with T5-XXL
Pair: TypeAlias = tuple[str, Sequence[str]]  # a prompt and its negatives


@dataclass(frozen=True, slots=True)
class Scoring:
    """What a score is made of: the formula, and the rule that says which tokens are salient."""

    formula: Formula = "paper"
    tokens: Rule = "auto"
    spacy_model: str | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """One negative's salience score and what it is made of.

    `terms` of the paper's formula are the cosines of the salient tokens, whose mean is the score.
    Those of the released one are "quantities" + "objects" - "negative".
    """

    score: float
    terms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Ranking:
    """The salient tokens of a prompt and one score a negative, in the order they were given.

    `unread` counts the prompt's tokens that are beyond what the encoder reads.
    """

    tokens: tuple[SalientToken, ...]
    scores: tuple[Score, ...]
    unread: int = 0


class SalienceScorer:
    """Scores negatives by the paper's salience formula, or the released code's; a `Scorer`.

    A vector depends on its text alone (masked mean pooling, no attention between texts), so scores
    do not depend on order, company or what was computed before, up to rounding of 1e-6. Safe to
    call from several threads, which then wait for each other.
    """

    def __init__(
        self, source: Source, scoring: Scoring | None = None, *, threads: int | None = None
    ) -> None:
        """Take the encoder, loaded with the first score, and by which rules to score.

        Args:
            source: the encoder.
            scoring: the rules.
            threads: of torch on the CPU; None for as many as it decides.
        """
        self.scoring = scoring or Scoring()
        self._source = source
        self._threads = threads
        self._words: dict[Text, Tensor] = {}
        self._lock = Lock()

    @classmethod
    def open(cls, settings: EncoderSettings, source: Source | None = None) -> SalienceScorer:
        """Return the scorer of an entry of models.toml; `source` replaces its own encoder.

        Raises:
            ModelFilesError: the encoder's directory or one of its parts is missing or damaged.
        """
        scoring = Scoring(settings.formula, settings.tokens, settings.spacy_model)
        return cls(source or from_directory(settings), scoring, threads=settings.threads)

    def accepts(self, prompt: str) -> None:
        """Find the salient tokens, which may need a parser; the encoder is not loaded.

        Raises:
            ConfigError: the rule needs spaCy's parser, which is not installed.
            ModelFilesError: the parser cannot be loaded.
        """
        self.tokens(prompt)

    def score(self, prompt: str, negatives: Sequence[str]) -> list[float]:
        """Return one salience score a negative, in order; higher is tried earlier.

        Raises:
            ConfigError: the rule needs spaCy's parser, which is not installed.
            ModelFilesError: the encoder or the parser cannot be loaded.
        """
        [ranking] = self.rank([(prompt, negatives)])
        return [score.score for score in ranking.scores]

    def rank(self, pairs: Sequence[Pair]) -> list[Ranking]:
        """Score any number of prompts with their negatives in one go.

        Raises:
            ConfigError: the rule needs spaCy's parser, which is not installed.
            DeviceLostError: the GPU has failed for good.
            ModelFilesError: the encoder or the parser cannot be loaded.
        """
        tokens = [self.tokens(prompt) for prompt, _ in pairs]
        texts = _texts(pairs, tokens, phrases=self.scoring.formula == "released")
        with self._lock, torch_threads(self._threads):
            try:
                vectors = self._vectors(texts)
            except (RuntimeError, MemoryError) as error:
                if is_device_lost(error):
                    raise DeviceLostError(f"the GPU failed while ranking: {error}") from error
                if is_out_of_memory(error):
                    raise GeneratorError(
                        "out of memory while ranking; end other programs, lower memory_gib, or "
                        'choose device = "cpu" for this encoder'
                    ) from error
                raise
            longest = self._encoder.max_tokens
            lengths = [self._encoder.length(prompt) for prompt, _ in pairs]
        return [
            Ranking(salient, self._scores(pair, salient, vectors), max(0, length - longest))
            for pair, salient, length in zip(pairs, tokens, lengths, strict=True)
        ]

    def tokens(self, prompt: str) -> tuple[SalientToken, ...]:
        """Return T(p) by the rule of the settings.

        Raises:
            ConfigError: the rule needs spaCy's parser, which is not installed.
            ModelFilesError: the parser cannot be loaded.
        """
        return salient_tokens(prompt, self.scoring.tokens, self.scoring.spacy_model)

    def fingerprint(self) -> str:
        """Return a SHA-256 over the rules, the encoder's content and the parser's version.

        Raises:
            ConfigError: the rule needs spaCy's parser, which is not installed.
            ModelFilesError: a file of the encoder cannot be read.
        """
        identity = {"scoring": asdict(self.scoring), "encoder": self._source.identity()}
        if self.scoring.tokens in ("auto", "parser"):
            identity["parser"] = self._parser_version()
        return digest(identity)

    def _parser_version(self) -> str:
        """Return what the parser is; for "auto" it may be absent until a prompt asks for it."""
        try:
            return spacy_model.version(self.scoring.spacy_model)
        except ConfigError:
            if self.scoring.tokens == "parser":
                raise
            return "absent"

    def leave_device(self) -> None:
        """Give the GPU's memory back; the next score loads the encoder again.

        One that is shared is its owner's to move; one on the CPU is in nobody's way.
        """
        with self._lock:
            if "_encoder" not in vars(self):
                return
            if not self._source.owned or self._encoder.model.device.type != "cpu":
                import gc

                import torch

                del self._encoder
                gc.collect()
                torch.cuda.empty_cache()

    def enter_device(self) -> None:
        """Take nothing yet: the next score loads the encoder where it belongs."""

    def _scores(
        self, pair: Pair, tokens: Iterable[SalientToken], vectors: Mapping[Text, Tensor]
    ) -> tuple[Score, ...]:
        """Apply the formula to one prompt."""
        import torch

        prompt, negatives = pair
        if not negatives:
            return ()
        numbers = _unique(token.text for token in tokens if token.kind == "number")
        things = _unique(token.text for token in tokens if token.kind != "number")
        directed = vectors[Text(prompt, True)], _stack(vectors, negatives, sentences=True)
        if self.scoring.formula == "paper":
            words = _unique(token.text for token in tokens)
            each = formulas.cosines(*directed, _stack(vectors, words))
            totals = formulas.paper(each)
            terms = [dict(zip(words, row, strict=True)) for row in each.tolist()]
        else:
            quantities = formulas.cosines(*directed, _stack(vectors, numbers))
            objects = formulas.cosines(*directed, _stack(vectors, things))
            own = formulas.cosines(*directed, _stack(vectors, negatives)).diagonal()
            totals = formulas.released(quantities, objects, own)
            parts = torch.stack(
                [formulas.paper(quantities), formulas.paper(objects), own], dim=1
            ).tolist()
            terms = [
                dict(zip(("quantities", "objects", "negative"), p, strict=True)) for p in parts
            ]
        return tuple(map(Score, totals.tolist(), terms))

    def _vectors(self, texts: Sequence[Text]) -> dict[Text, Tensor]:
        """Return the vector of each text; those of words are kept for the prompts to come."""
        known = {text: self._words[text] for text in texts if text in self._words}
        missing = [text for text in texts if text not in known]
        fresh = dict(zip(missing, self._encoder.vectors(missing), strict=True))
        if self._source.owned:  # another's model may be changed between two calls
            # Copies, since a row of many would keep them all.
            words = {text: row.clone() for text, row in fresh.items() if not text.sentence}
            self._words |= words
            for oldest in list(self._words)[: max(0, len(self._words) - _MOST_WORDS)]:
                del self._words[oldest]
        return known | fresh

    @cached_property
    def _encoder(self) -> TextEncoder:
        return self._source.load()


def _texts(
    pairs: Sequence[Pair], tokens: Sequence[Iterable[SalientToken]], *, phrases: bool
) -> list[Text]:
    """Return what has to be encoded, each text once."""
    texts: dict[Text, None] = {}
    for (prompt, negatives), salient in zip(pairs, tokens, strict=True):
        texts |= dict.fromkeys(Text(sentence, True) for sentence in (prompt, *negatives))
        texts |= dict.fromkeys(Text(token.text, False) for token in salient)
        if phrases:
            texts |= dict.fromkeys(Text(negative, False) for negative in negatives)
    return list(texts)


def _stack(vectors: Mapping[Text, Tensor], texts: Sequence[str], sentences: bool = False) -> Tensor:
    """Return the vectors of some texts as rows."""
    import torch

    if not texts:
        return torch.zeros(0, len(next(iter(vectors.values()))))
    return torch.stack([vectors[Text(text, sentences)] for text in texts])


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))
