"""How long the salience score takes: the authors' way against `salience.scorer`, same weights.

Beside each time stands its floor: what the machine needs at least for the arithmetic and the
reading of weights that this way of scoring asks for, at the speeds measured here just before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from benchmarks.salience.random_t5 import Case, PieceTokenizer
from npc_local.salience.encoders.source import Source
from npc_local.salience.encoders.text_encoder import TextEncoder
from npc_local.salience.scorer import SalienceScorer, Scoring
from npc_local.salience.tokens import salient_tokens

if TYPE_CHECKING:
    from torch import Tensor

_SENTENCE = 512  # what the released code pads each sentence to
OnStatus = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Machine:
    """What the device can do: measured arithmetic in FLOP/s by dtype, reading in bytes/s."""

    flops: dict[str, float]
    bandwidth: float


@dataclass(frozen=True, slots=True)
class Way:
    """One way of scoring, a prompt. `tokens` and `passes` are what the model was given."""

    name: str
    dtype: str
    seconds: float
    tokens: float
    passes: float
    operations: float
    read: float
    floor: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """How two ways agree over the same prompts.

    `apart` is the largest difference of two scores; `same_ranking` and `same_first` are shares of
    prompts; `pairs` is the share of pairs of negatives that both order alike.
    """

    apart: float
    same_ranking: float
    same_first: float
    pairs: float


@dataclass(frozen=True, slots=True)
class Results:
    """Everything that one run measures. Agreements are with the authors' way, in float32."""

    parameters: int
    ways: tuple[Way, ...]
    exact: Agreement
    bfloat16: Agreement
    exact_prompts: int
    bfloat16_prompts: int
    batched: dict[str, float]  # prompts a minute by dtype


def measure(
    model: Any,
    some: Sequence[Case],
    many: Sequence[Case],
    repeats: int,
    on_status: OnStatus,
) -> Results:
    """Time all ways on one model.

    Args:
        model: a T5 encoder in float32. It is turned into bfloat16 on the way.
        some: the prompts that are scored one after the other, by all ways.
        many: the prompts that are scored in one go, and that bfloat16 is compared on.
        repeats: timed rounds; a round scores each of `some` once. The authors' way gets one.
        on_status: is given what is done next.
    """
    import torch

    clock = _Clock(model, some, on_status)
    authors = _Authors(model)
    scores_of: dict[Case, list[float]] = {}
    clock.time("authors", "float32", lambda case: scores_of.update({case: authors(case)}), 1)
    ours = _Ours(model)
    for formula in ("released", "paper"):
        for state, score in (("cold", ours.cold), ("warm", ours.warm)):
            clock.time(f"{formula}, {state}", "float32", partial(score, formula), repeats)
    exact = agreement(list(scores_of.values()), [ours.cold("released", case) for case in some])
    on_status(f"{len(many)} prompts at once, float32")
    full, full_minute = ours.batch(many)

    model.to(torch.bfloat16)
    ours = _Ours(model)
    for state, score in (("cold", ours.cold), ("warm", ours.warm)):
        clock.time(f"released, {state}", "bfloat16", partial(score, "released"), repeats)
    on_status(f"{len(many)} prompts at once, bfloat16")
    half, half_minute = ours.batch(many)
    return Results(
        parameters=clock.matrices + model.shared.weight.numel(),
        ways=tuple(clock.ways),
        exact=exact,
        bfloat16=agreement(full, half),
        exact_prompts=len(some),
        bfloat16_prompts=len(many),
        batched={"float32": full_minute, "bfloat16": half_minute},
    )


class _Clock:
    """Times ways of scoring the same prompts on one model; `ways` has what it has measured."""

    def __init__(self, model: Any, cases: Sequence[Case], on_status: OnStatus) -> None:
        self.matrices = sum(p.numel() for p in model.parameters()) - model.shared.weight.numel()
        self.ways: list[Way] = []
        self._cases, self._on_status = cases, on_status
        self._machine, self._probe = _machine(model.device), _Probe(model)

    def time(self, name: str, dtype: str, work: Callable[[Case], object], rounds: int) -> None:
        """Time `work` on each prompt, `rounds` times over."""
        self._on_status(f"{name}, {dtype}")
        for case in self._cases[:1] if name == "authors" else self._cases:
            work(case)  # warms up kernels, and shows the words to those that keep them
        times = []
        with self._probe.counting() as count:
            for case in list(self._cases) * rounds:
                begun = time.perf_counter()
                work(case)
                times.append(time.perf_counter() - begun)
        tokens, passes = count.tokens / len(times), count.passes / len(times)
        operations = 2 * self.matrices * tokens + count.attention / len(times)
        read = passes * self.matrices * (4 if dtype == "float32" else 2)
        floor = max(operations / self._machine.flops[dtype], read / self._machine.bandwidth)
        self.ways.append(Way(name, dtype, median(times), tokens, passes, operations, read, floor))


def agreement(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> Agreement:
    """Compare two ways' scores of the same negatives, a row a prompt."""
    apart, ranking, best, pairs = 0.0, [], [], []
    for a, b in zip(first, second, strict=True):
        apart = max(apart, *(abs(x - y) for x, y in zip(a, b, strict=True)))
        order_a = sorted(range(len(a)), key=lambda i: -a[i])
        order_b = sorted(range(len(b)), key=lambda i: -b[i])
        ranking.append(order_a == order_b)
        best.append(order_a[0] == order_b[0])
        pairs += [
            (a[i] > a[j]) == (b[i] > b[j]) for i in range(len(a)) for j in range(i + 1, len(a))
        ]
    return Agreement(apart, fmean(ranking), fmean(best), fmean(pairs))


class _Authors:
    """The released code's way, written anew: one text a call, each sentence padded to 512."""

    def __init__(self, model: Any) -> None:
        self._model, self._tokenizer = model, PieceTokenizer()

    def __call__(self, case: Case) -> list[float]:
        from torch.nn.functional import cosine_similarity

        def cosine(a: Tensor, b: Tensor) -> float:
            return float(cosine_similarity(a, b, dim=0))

        tokens = salient_tokens(case.prompt, "released")
        quantities = [self._word(t.text) for t in tokens if t.kind == "number"]
        objects = [self._word(t.text) for t in tokens if t.kind == "thing"]
        prompt = self._sentence(case.prompt)
        scores = []
        for negative in case.negatives:
            direction = prompt - self._sentence(negative)
            scores.append(
                fmean(cosine(direction, vector) for vector in quantities)
                + fmean(cosine(direction, vector) for vector in objects)
                - cosine(direction, self._word(negative))
            )
        return scores

    def _sentence(self, text: str) -> Tensor:
        import torch

        ids = self._tokenizer(text).input_ids
        padded = torch.tensor([ids + [0] * (_SENTENCE - len(ids))], device=self._model.device)
        mask = (torch.arange(_SENTENCE, device=self._model.device) < len(ids)).long()[None]
        with torch.inference_mode():
            states = self._model(input_ids=padded, attention_mask=mask).last_hidden_state[0]
        mean: Tensor = (states * mask[0][:, None]).sum(dim=0) / len(ids)
        return mean.cpu()

    def _word(self, text: str) -> Tensor:
        import torch

        ids = self._tokenizer(text, add_special_tokens=False).input_ids
        with torch.inference_mode():
            inputs = torch.tensor([ids], device=self._model.device)
            mean: Tensor = self._model(input_ids=inputs).last_hidden_state[0].mean(dim=0)
        return mean.cpu()


class _Ours:
    """The project's scorer on the same model, which has seen no word before, or all of them."""

    def __init__(self, model: Any) -> None:
        self._encoder = TextEncoder(PieceTokenizer(), model)
        self._seasoned: dict[str, SalienceScorer] = {}

    def cold(self, formula: str, case: Case) -> list[float]:
        return self._scorer(formula).score(case.prompt, case.negatives)

    def warm(self, formula: str, case: Case) -> list[float]:
        """Score with the vectors of all words and phrases that earlier calls have seen."""
        if formula not in self._seasoned:
            self._seasoned[formula] = self._scorer(formula)
        return self._seasoned[formula].score(case.prompt, case.negatives)

    def batch(self, cases: Sequence[Case]) -> tuple[list[list[float]], float]:
        """Score all prompts in one call, no word seen before; also return prompts a minute."""
        pairs = [(case.prompt, case.negatives) for case in cases]
        begun = time.perf_counter()
        rankings = self._scorer("released").rank(pairs)
        minute = 60 * len(cases) / (time.perf_counter() - begun)
        return [[score.score for score in ranking.scores] for ranking in rankings], minute

    def _scorer(self, formula: Any) -> SalienceScorer:
        source = Source(lambda: self._encoder, lambda: "random")
        return SalienceScorer(source, Scoring(formula, "released"))


@dataclass
class _Count:
    tokens: int = 0
    passes: int = 0
    attention: float = 0.0


class _Probe:
    """Counts what a model is given, padding included."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @contextmanager
    def counting(self) -> Iterator[_Count]:
        config, count = self._model.config, _Count()
        inner = config.num_layers * config.num_heads * config.d_kv

        def seen(_module: object, _args: object, inputs: dict[str, Any]) -> None:
            rows, length = inputs["input_ids"].shape
            count.tokens += rows * length
            count.passes += 1
            count.attention += 4 * rows * length * length * inner

        handle = self._model.register_forward_pre_hook(seen, with_kwargs=True)
        try:
            yield count
        finally:
            handle.remove()


def _machine(device: Any) -> Machine:
    """Measure what the device can do."""
    return _speeds(device, side=8192, length=2**28) if device.type == "cuda" else _speeds(device)


def _speeds(device: Any, side: int = 2048, length: int = 2**26) -> Machine:
    """Time the product of two matrices of `side` rows, and reading `length` numbers."""
    import torch

    flops = {}
    for dtype in ("float32", "bfloat16"):
        square = torch.randn(side, side, device=device).to(getattr(torch, dtype))
        flops[dtype] = 2 * side**3 / _quickest(partial(torch.matmul, square, square), device)
    long = torch.ones(length, device=device)
    return Machine(flops, long.numel() * 4 / _quickest(lambda: long.sum(), device))


def _quickest(work: Callable[[], Tensor], device: Any) -> float:
    """Return the shortest of several times of some work, in seconds."""
    import torch

    times = []
    for _ in range(8):
        begun = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return min(times)
