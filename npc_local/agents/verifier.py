"""The verifier: a closed checklist first, without the image; then one answer a claim.

The verdict is computed here, from the answers. The model's own score is kept beside it, and what
an image says in painted letters can at most change an answer, never stand in for the verdict.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, get_args

from PIL.Image import Image
from pydantic import Field, create_model

from npc_local.agents.rules import Rules
from npc_local.agents.structured_output import (
    BOOLEAN,
    SHARE,
    STRING,
    Data,
    NonEmpty,
    Text,
    ask,
    closed,
    list_of,
    one_of,
    request,
)
from npc_local.backends.base import Backend, Request
from npc_local.core.records import Checklist, Claim, ClaimKind, Demand, Verdict

MAX_CLAIMS = 32  # the template asks for at most 20; far more is a model that ran away
STRICT_SCORE = 0.9
_CHECKLIST_SCHEMA = closed(
    claims=list_of(closed(text=STRING, kind=one_of(*get_args(ClaimKind)))),
)


class _DemandData(Data):
    text: NonEmpty
    kind: ClaimKind


class _ChecklistData(Data):
    claims: list[_DemandData] = Field(min_length=1, max_length=MAX_CLAIMS)


class _VerdictData(Data):
    """The part of a verdict that is the same for every checklist; answers come as c1, c2, ..."""

    reason: Text
    score: float = Field(ge=0, le=1)


async def checklist(backend: Backend, prompt: str) -> Checklist:
    """Derive from `prompt` alone what its images are to be checked for.

    Raises:
        BackendError: no valid checklist came back; an empty one, or one beyond `MAX_CLAIMS`, is
            not valid.
        PromptError: the backend cannot judge such a prompt.
    """
    question = request("checklist", {"prompt": prompt}, _CHECKLIST_SCHEMA, max_tokens=1024)
    data = await ask(backend, question, _ChecklistData)
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
    keys = tuple(f"c{number}" for number in range(1, len(claims.demands) + 1))
    texts = [demand.text for demand in claims.demands]
    fields = {"prompt": prompt, "claims": dict(zip(keys, texts, strict=True))}
    schema = closed(**dict.fromkeys(keys, BOOLEAN), reason=STRING, score=SHARE)
    questions = [
        request("verify", fields, schema, (image,), seed=seed, max_tokens=1024)
        for seed in range(rules.votes)
    ]
    return _verdict(claims, await _vote(backend, keys, questions), rules)


@dataclass(frozen=True, slots=True)
class _Vote:
    """One reply: an answer a claim, in the checklist's order."""

    holds: tuple[bool, ...]
    reason: str
    score: float


async def _vote(backend: Backend, keys: Sequence[str], questions: Sequence[Request]) -> list[_Vote]:
    """Ask all questions at once; the first failure cancels the others."""
    answers: dict[str, Any] = dict.fromkeys(keys, (bool, ...))
    shape = create_model("_AnswersData", __base__=_VerdictData, **answers)
    tasks = [asyncio.ensure_future(ask(backend, question, shape)) for question in questions]
    try:
        replies = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    return [
        _Vote(tuple(getattr(reply, key) for key in keys), reply.reason, reply.score)
        for reply in replies
    ]


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
