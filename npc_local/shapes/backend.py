"""Serves the three agent roles for the shapes world from the exact detector, deterministically.

The verifier checks the prompt's claims against the picture, the captioner describes the picture,
and the proposer turns reason and caption, both words only, into negative prompts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from npc_local.backends.base import Reply, Request
from npc_local.errors import BackendError
from npc_local.shapes.scene import BACKGROUNDS, COLORS, SHAPES


class ShapesBackend:
    """An exact verifier, captioner and proposer; knows only the shapes world's words."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def complete(self, request: Request) -> Reply:
        """Answer a request from its fields and images.

        Raises:
            PromptError: the prompt has a word outside the shapes world.
            BackendError: the request lacks the image it is about.
        """
        data = {"verify": self._verify, "caption": self._caption, "propose": self._propose}[
            request.role
        ](request)
        return Reply(data=data, raw=json.dumps(data))

    async def check(self) -> None:
        """Nothing to reach: always ready."""

    def fingerprint(self) -> str:
        """Changes with the vocabulary and with `_VERSION`, which rises when answers change."""
        words = [_VERSION, *SHAPES, *COLORS, *BACKGROUNDS]
        return "shapes-" + hashlib.sha256("|".join(words).encode()).hexdigest()[:16]

    async def aclose(self) -> None:
        """Nothing to release."""

    def _verify(self, request: Request) -> Mapping[str, Any]:
        from npc_local.shapes.claims import check
        from npc_local.shapes.detect import detect
        from npc_local.shapes.wording import read

        findings = check(read(request.fields["prompt"]), detect(_image(request)))
        kept = sum(finding.holds for finding in findings)
        return {
            "claims": [{"text": finding.claim, "holds": finding.holds} for finding in findings],
            "reason": "; ".join(finding.wrong for finding in findings if not finding.holds),
            "correct": kept == len(findings),
            "score": kept / len(findings),
        }

    def _caption(self, request: Request) -> Mapping[str, Any]:
        from npc_local.shapes.caption import describe
        from npc_local.shapes.detect import detect

        return {"caption": describe(detect(_image(request)))}

    def _propose(self, request: Request) -> Mapping[str, Any]:
        from npc_local.shapes.caption import read_caption
        from npc_local.shapes.propose import propose
        from npc_local.shapes.wording import read

        fields = request.fields
        negatives = propose(read(fields["prompt"]), read_caption(fields["caption"]), fields["reason"])
        return {"negatives": [{"text": text, "kind": kind} for text, kind in negatives]}


_VERSION = "1"


def _image(request: Request) -> Any:
    if not request.images:
        raise BackendError(f"the shapes backend needs an image to {request.role}")
    return request.images[0]
