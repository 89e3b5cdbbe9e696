"""Serves the three agent roles for the shapes world from the exact detector, deterministically.

The verifier reads claims from the prompt and checks them against the picture, the captioner
describes the picture, and the proposer turns reason and caption, both words only, into negative
prompts.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from PIL.Image import Image

from npc_local.backends.base import Reply, Request
from npc_local.core.errors import BackendError, PromptError
from npc_local.core.hashing import code_digest
from npc_local.core.records import Kind

# What answers come from; training and prompts are not among it.
_CODE = tuple(
    f"shapes/{name}.py"
    for name in (
        *("backend", "caption", "claims", "detect", "draw", "propose", "reading", "scene"),
        "wording",
    )
)


class ShapesBackend:
    """An exact verifier, captioner and proposer; knows only the shapes world's words."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def complete(self, request: Request[Any]) -> Reply:
        """Answer a request from its fields and images.

        Raises:
            PromptError: the prompt has a word outside the shapes world.
            BackendError: the request lacks the image it is about, or its claims or caption are
                not ours; or it is to a judge of photos.
        """
        data = {
            "checklist": self._checklist,
            "verify": self._verify,
            "caption": self._caption,
            "propose": self._propose,
            "judge": self._judge,
        }[request.role](request)
        return Reply(data=data, raw=json.dumps(data))

    def accepts(self, prompt: str) -> None:
        """Raise `PromptError` if the embedded generator can make no picture of the prompt.

        Its message says what is wrong with this prompt, its hint what the world knows. `complete`
        takes more: whatever `reading` reads.
        """
        from npc_local.shapes.reading import read_prompt

        read_prompt(prompt)

    async def check(self) -> None:
        """Nothing to reach: always ready."""

    def fingerprint(self) -> str:
        """Changes with the code of the shapes world, which is all that its answers depend on."""
        return f"shapes-{code_digest(*_CODE)[:16]}"

    async def aclose(self) -> None:
        """Nothing to release."""

    def _checklist(self, request: Request[Any]) -> Mapping[str, Any]:
        from npc_local.shapes.claims import demands
        from npc_local.shapes.reading import read

        claims = demands(read(request.fields["prompt"]))
        return {"claims": [{"text": text, "kind": kind} for text, kind in claims]}

    def _verify(self, request: Request[Any]) -> Mapping[str, Any]:
        from npc_local.shapes.claims import Finding, check
        from npc_local.shapes.detect import detect
        from npc_local.shapes.reading import read

        # Two claims may read alike ('larger circle', one on the left, one on the right): in order.
        findings: dict[str, list[Finding]] = defaultdict(list)
        for finding in check(read(request.fields["prompt"]), detect(self._image(request))):
            findings[finding.claim].append(finding)
        answers: dict[str, Finding] = {}
        for key, text in request.fields["claims"].items():
            if not (alike := findings[text]):
                raise BackendError(f"backend {self.name}: verify: cannot check the claim {text!r}")
            answers[key] = alike.pop(0) if len(alike) > 1 else alike[0]
        return {key: finding.holds for key, finding in answers.items()} | {
            "reason": "; ".join(f.wrong for f in answers.values() if not f.holds),
            "score": sum(finding.holds for finding in answers.values()) / len(answers),
        }

    def _caption(self, request: Request[Any]) -> Mapping[str, Any]:
        from npc_local.shapes.caption import describe
        from npc_local.shapes.detect import detect

        return {"caption": describe(detect(self._image(request)))}

    def _propose(self, request: Request[Any]) -> Mapping[str, Any]:
        from npc_local.shapes.caption import read_caption
        from npc_local.shapes.propose import foresee, propose
        from npc_local.shapes.reading import read

        fields = request.fields
        if "rejected" in fields:  # all that there is to say was said the first time
            return {"negatives": []}
        wanted = read(fields["prompt"])
        if "caption" not in fields:
            return self._negatives(foresee(wanted), fields)
        try:
            seen = read_caption(fields["caption"])
        except PromptError as error:
            raise BackendError(
                f"backend {self.name}: propose: reads only captions of a shapes captioner; "
                "in models.toml, give captioner and proposer the same backend"
            ) from error
        return self._negatives(propose(wanted, seen, fields["reason"]), fields)

    def _judge(self, request: Request[Any]) -> Mapping[str, Any]:
        raise BackendError(
            f"backend {self.name}: judge: sees only shapes, and the benchmark of shapes asks no "
            "backend; name another judge"
        )

    def _negatives(
        self, proposed: Iterable[tuple[str, Kind]], fields: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        return {
            "negatives": [
                {"text": text, "kind": kind} for text, kind in proposed if kind in fields["kinds"]
            ]
        }

    def _image(self, request: Request[Any]) -> Image:
        if not request.images:
            raise BackendError(f"backend {self.name}: {request.role}: needs an image")
        return request.images[0]
