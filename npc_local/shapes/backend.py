"""Serves the three agent roles for the shapes world from the exact detector, deterministically.

The verifier checks the prompt's claims against the picture, the captioner describes the picture,
and the proposer turns reason and caption, both words only, into negative prompts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from PIL.Image import Image

from npc_local.backends.base import Reply, Request
from npc_local.errors import BackendError, PromptError
from npc_local.shapes.scene import BACKGROUNDS, COLORS, SHAPES

_VERSION = "3"


class ShapesBackend:
    """An exact verifier, captioner and proposer; knows only the shapes world's words."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def complete(self, request: Request) -> Reply:
        """Answer a request from its fields and images.

        Raises:
            PromptError: the prompt has a word outside the shapes world.
            BackendError: the request lacks the image it is about, or its caption is not ours.
        """
        data = {"verify": self._verify, "caption": self._caption, "propose": self._propose}[
            request.role
        ](request)
        return Reply(data=data, raw=json.dumps(data))

    def accepts(self, prompt: str) -> None:
        """Raise `PromptError` if the prompt has a word outside the shapes world."""
        from npc_local.shapes.wording import read_prompt

        read_prompt(prompt)

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

        findings = check(read(request.fields["prompt"]), detect(self._image(request)))
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

        return {"caption": describe(detect(self._image(request)))}

    def _propose(self, request: Request) -> Mapping[str, Any]:
        from npc_local.shapes.caption import read_caption
        from npc_local.shapes.propose import propose
        from npc_local.shapes.wording import read

        wanted = read(request.fields["prompt"])
        try:
            seen = read_caption(request.fields["caption"])
        except PromptError as error:
            raise BackendError(
                f"backend {self.name}: propose: reads only captions of a shapes captioner; "
                "in models.toml, give captioner and proposer the same backend"
            ) from error
        negatives = propose(wanted, seen, request.fields["reason"])
        return {"negatives": [{"text": text, "kind": kind} for text, kind in negatives]}

    def _image(self, request: Request) -> Image:
        if not request.images:
            raise BackendError(f"backend {self.name}: {request.role}: needs an image")
        return request.images[0]
