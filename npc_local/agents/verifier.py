"""The verifier: a closed checklist first, without the image; then one answer a claim.

The verdict is computed here, from the answers. The model's own score is kept beside it, and what
an image says in painted letters can at most change an answer, never stand in for the verdict.
Markup of other tools in a prompt is nothing that an image is checked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean
from typing import Annotated, Any

from PIL.Image import Image
from pydantic import Field, create_model

from npc_local.agents.rules import Rules
from npc_local.agents.structured_output import ask, request
from npc_local.backends.base import Backend, Request
from npc_local.backends.schemas import NonEmpty, ReplyData, Text
from npc_local.core.prompt_markup import words
from npc_local.core.records import Checklist, Claim, ClaimKind, Demand, Verdict

MAX_CLAIMS = 32  # the template asks for at most 20; far more is a model that ran away
STRICT_SCORE = 0.9
_Share = Annotated[float, Field(ge=0, le=1)]


class _DemandData(ReplyData):
    text: NonEmpty
    kind: ClaimKind


class _ChecklistData(ReplyData):
    claims: list[_DemandData] = Field(min_length=1, max_length=MAX_CLAIMS)


def _keys(count: int) -> tuple[str, ...]:
    """Return the names of claims in a question and its answer: c1, c2, ..."""
    return tuple(f"c{number}" for number in range(1, count + 1))


@cache
def _verdict_shape(count: int) -> type[ReplyData]:
    """Return the shape of a verdict on so many claims: the answers first, then what follows."""
    answers: dict[str, Any] = dict.fromkeys(_keys(count), (bool, ...))
    return create_model(
        "_VerdictData", __base__=ReplyData, **answers, reason=(Text, ...), score=(_Share, ...)
    )


async def checklist(backend: Backend, prompt: str) -> Checklist:
    """Derive from `prompt` alone what its images are to be checked for.

    Raises:
        BackendError: no valid checklist came back; an empty one, or one beyond `MAX_CLAIMS`, is
            not valid.
        PromptError: the backend cannot judge such a prompt.
    """
    question = request("checklist", {"prompt": words(prompt)}, _ChecklistData, max_tokens=1024)
    data = await ask(backend, question)
    return Checklist(tuple(Demand(claim.text, claim.kind) for claim in data.claims))


async def verify(
    backend: Backend, prompt: str, claims: Checklist, image: Image, rules: Rules | None = None
) -> Verdict:
    """Judge whether `image` shows what `prompt` asks for, by the claims of its checklist.

    A claim holds if more than half of the votes say so. `rules.strictness` decides whether the
    image is correct; the score is the share of claims that hold under every strictness.

    Raises:
        BackendError: a vote is no valid reply: an answer is missing, or is to no claim.
        PromptError: the backend cannot judge such a prompt.
        ValueError: the checklist is empty.
    """
    if not claims.demands:
        raise ValueError("an empty checklist judges nothing")
    rules = rules or Rules()
    count = len(claims.demands)
    texts = [demand.text for demand in claims.demands]
    fields = {"prompt": words(prompt), "claims": dict(zip(_keys(count), texts, strict=True))}
    shape = _verdict_shape(count)
    questions = [
        request("verify", fields, shape, (image,), seed=seed, max_tokens=1024)
        for seed in range(rules.votes)
    ]
    return _verdict(claims, await _votes(backend, questions), rules)


@dataclass(frozen=True, slots=True)
class _Vote:
    """One reply: an answer a claim, in the checklist's order."""

    holds: tuple[bool, ...]
    reason: str
    score: float


async def _votes(backend: Backend, questions: Sequence[Request[ReplyData]]) -> list[_Vote]:
    """Ask all questions at once; the first failure cancels the others."""
    tasks = [asyncio.ensure_future(ask(backend, question)) for question in questions]
    try:
        replies = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    return [_vote(reply) for reply in replies]


def _vote(reply: ReplyData) -> _Vote:
    *holds, reason, score = reply.model_dump().values()
    return _Vote(tuple(holds), reason, score)


def _verdict(checklist: Checklist, votes: Sequence[_Vote], rules: Rules) -> Verdict:
    """Count the votes and apply the rules."""
    counts = [sum(answers) for answers in zip(*(vote.holds for vote in votes), strict=True)]
    claims = tuple(
        Claim(demand.text, 2 * count > len(votes), demand.kind)
        for demand, count in zip(checklist.demands, counts, strict=True)
    )
    model_score = fmean(vote.score for vote in votes)
    correct = _correct(claims, model_score, rules)
    return Verdict(
        correct=correct,
        score=sum(claim.holds for claim in claims) / len(claims),
        reason="" if correct else _reason(claims, votes, model_score),
        claims=claims,
        model_score=model_score,
    )


def _correct(claims: Sequence[Claim], model_score: float, rules: Rules) -> bool:
    if rules.strictness == "lenient":
        weighty = [claim for claim in claims if claim.kind in ("object", "count")]
        return all(claim.holds for claim in weighty or claims)
    strict = rules.strictness == "strict"
    return all(claim.holds for claim in claims) and (not strict or model_score >= STRICT_SCORE)


def _reason(claims: Sequence[Claim], votes: Sequence[_Vote], model_score: float) -> str:
    """Say why an image is rejected.

    In the words of the vote that agrees most with the outcome, if it gives a reason; else by the
    claims that fail, else (under strict) by the score.
    """
    outcome = [claim.holds for claim in claims]
    failing = [claim.text for claim in claims if not claim.holds]
    fitting = [vote for vote in votes if vote.reason and (all(vote.holds) is not bool(failing))]
    if fitting:
        closest = max(fitting, key=lambda vote: sum(map(bool.__eq__, vote.holds, outcome)))
        return closest.reason
    if failing:
        return f"the image does not show: {'; '.join(failing)}"
    return f"every claim holds, but the verifier scores the image only {model_score:.2f}"
