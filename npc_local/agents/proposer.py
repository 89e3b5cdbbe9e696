"""The proposer: from prompt, caption and reason to clean negative prompts, K of them if it can.

What `clean` refuses is kept with why. Too few left: one more request that names it, then
the fallback list below. If that request fails, what the first one gave is still used.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Literal, TypeVar, get_args

from npc_local.agents.clean_negatives import clean
from npc_local.agents.structured_output import ask, request
from npc_local.backends.base import Backend
from npc_local.backends.schemas import ReplyData
from npc_local.core.errors import BackendError, PromptError
from npc_local.core.prompt_markup import words
from npc_local.core.records import Caption, Kind, Negative, Proposal, Proposals, Rejected

log = logging.getLogger(__name__)

MAX_COUNT = 50  # the most that one request asks for
_TOKENS = 64, 32  # of an answer: its frame, and each negative prompt in it
_MIN_TOKENS = 512

# What goes wrong in many images, for when a proposer has nothing better to say.
FALLBACKS = (
    Negative("extra objects", "targeted", fallback=True),
    Negative("wrong colors", "targeted", fallback=True),
    Negative("duplicate subjects", "targeted", fallback=True),
    Negative("cluttered background", "untargeted", fallback=True),
    Negative("cropped objects", "targeted", fallback=True),
    Negative("busy patterns", "untargeted", fallback=True),
    Negative("merged objects", "targeted", fallback=True),
    Negative("random text", "untargeted", fallback=True),
    Negative("picture frame", "untargeted", fallback=True),
    Negative("blurry foreground", "untargeted", fallback=True),
)
_KINDS: dict[Proposals, tuple[Kind, ...]] = {
    "caption": get_args(Kind),
    "prompt-only": get_args(Kind),
    "targeted-only": ("targeted",),
    "untargeted-only": ("untargeted",),
}


KindT = TypeVar("KindT")


class _NegativeData(ReplyData, Generic[KindT]):
    text: str
    kind: KindT


class _ProposalData(ReplyData, Generic[KindT]):
    negatives: list[_NegativeData[KindT]]


_SHAPES: Mapping[Proposals, type[_ProposalData[Any]]] = {
    "caption": _ProposalData[Kind],
    "prompt-only": _ProposalData[Kind],
    "targeted-only": _ProposalData[Literal["targeted"]],
    "untargeted-only": _ProposalData[Literal["untargeted"]],
}


async def propose(
    backend: Backend,
    prompt: str,
    caption: Caption | None,
    reason: str,
    count: int,
    proposals: Proposals = "caption",
) -> Proposal:
    """Propose at most `count` clean negative prompts for an image that failed for `reason`.

    In the mode prompt-only, caption and reason stay out of the request, and the caption may be
    None. Fallbacks fill up what is missing, those that the backend accepts: one for a closed world
    takes no words from outside it. So fewer than `count` may be left, or none.

    Raises:
        BackendError: no valid proposal came back; or none that could be used, and the request for
            others failed.
        PromptError: the backend cannot work from such a prompt.
        ValueError: there is no caption, and the mode needs one.
    """
    kinds = _KINDS[proposals]
    fields: dict[str, Any] = {"prompt": words(prompt), "kinds": list(kinds)}
    template = "propose_blind" if proposals == "prompt-only" else "propose"
    if proposals != "prompt-only":
        if caption is None:
            raise ValueError(f"proposals {proposals!r} need a caption")
        fields |= {"caption": caption.text, "reason": reason}

    async def proposed(count: int, again: dict[str, Any] | None, seed: int) -> list[Negative]:
        count = min(count, MAX_COUNT)
        frame, each = _TOKENS
        question = request(
            "propose",
            fields | {"count": count},
            _SHAPES[proposals],
            template=template,
            again=again,
            seed=seed,
            max_tokens=max(_MIN_TOKENS, frame + each * count),
        )
        data = await ask(backend, question)
        return [Negative(negative.text, negative.kind) for negative in data.negatives]

    usable, rejected = clean(await proposed(count, None, 0), prompt)
    if len(usable) < count:
        again = _again(usable, rejected)
        try:
            more = await proposed(count - len(usable), again, 1)
        except BackendError as error:
            if not usable:
                raise
            log.warning("asking for more negative prompts failed: %s", error)
            rejected += (Rejected("", f"asking for more failed: {error}"),)
        else:
            usable, refused = clean([*usable, *more], prompt)
            rejected += refused
    if len(usable) < count:
        usable, _ = clean([*usable, *_fallbacks(backend, kinds)], prompt)
    for refusal in rejected:
        log.info("negative prompt %r rejected: %s", refusal.text, refusal.reason)
    return Proposal(usable[:count], rejected)


def _again(usable: Sequence[Negative], rejected: Sequence[Rejected]) -> dict[str, Any]:
    """Return what a second request says of the first one's outcome."""
    return {
        "kept": [negative.text for negative in usable],
        "rejected": [{"text": refusal.text, "why": refusal.reason} for refusal in rejected],
    }


def _fallbacks(backend: Backend, kinds: Sequence[Kind]) -> list[Negative]:
    """Return the fallbacks of these kinds that the backend accepts."""
    return [
        fallback
        for fallback in FALLBACKS
        if fallback.kind in kinds and _accepts(backend, fallback.text)
    ]


def _accepts(backend: Backend, text: str) -> bool:
    try:
        backend.accepts(text)
    except PromptError:
        return False
    return True
