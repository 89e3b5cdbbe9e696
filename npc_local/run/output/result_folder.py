"""The output directory: every image on disk as soon as it is made, the record last.

A `ResultFolder` watches the loop for one prompt. Names are fixed, or made of a number and a hash; a
prompt never becomes part of a path. What the sheet looks like is left to `report`, what the
terminal shows to `display`, and resuming to whoever keeps a journal.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL.Image import DecompressionBombError, Image
from PIL.Image import open as open_png
from pydantic import TypeAdapter

from npc_local.core.config.load import ResolvedProfile
from npc_local.core.errors import StorageError
from npc_local.core.files import paths
from npc_local.core.files.atomic import cannot_write, write_durably
from npc_local.core.offline import egress
from npc_local.core.records import (
    Attempt,
    Candidate,
    Caption,
    Checklist,
    Correction,
    Proposal,
    Render,
    Shot,
    Verdict,
)
from npc_local.core.versions import __version__
from npc_local.loop import StageFinished, StageStarted
from npc_local.run.output.sheet import sheet

ANSWER = "image.png"
SHEET = "sheet.png"
RECORD = "correction.json"
_LOGS = "logs"  # all that a command leaves that was killed before its first step


@contextmanager
def output_directory(wanted: Path | None) -> Iterator[Path]:
    """Give a directory that is empty, logs apart, and can be written to, as an absolute path.

    None makes a fresh one under ./npc-local-runs. One that was made here is removed again at the
    end if nothing came to be in it.

    Raises:
        StorageError: it holds something, is a file or a symbolic link, or cannot be written to.
    """
    if wanted is None:
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
        wanted = Path("npc-local-runs", name)
    path = paths.absolute(wanted)
    try:
        if paths.is_symlink(path, StorageError):
            raise StorageError(f"{path}: a symbolic link; name the directory that it points to")
        made = not paths.exists(path, StorageError)
        if not made and not paths.is_dir(path, StorageError):
            raise StorageError(f"{path}: a file; name a directory")
        path.mkdir(parents=True, exist_ok=True)
        if any(entry.name != _LOGS for entry in paths.children(path, StorageError)):
            raise StorageError(f"{path}: not empty; name a new directory, or empty this one")
        with tempfile.TemporaryFile(dir=path):
            pass  # only a write tells whether one can write
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield path
    finally:
        if made:
            with suppress(OSError):  # not empty: there are results
                path.rmdir()


def _attempts(folder: Path) -> list[Path]:
    """Return the images of attempts that a folder has, if there is one."""
    if not paths.is_dir(folder, StorageError):
        return []
    return paths.children(folder, StorageError, "attempt-*.png")


def folder_name(index: int, prompt: str, digits: int = 2) -> str:
    """Name the directory of one prompt of several; `digits` is the least its number takes."""
    return f"{index:0{digits}d}-{hashlib.sha256(prompt.encode()).hexdigest()[:8]}"


class ResultFolder:
    """The output of one prompt; a `loop.Watch` that keeps each image and remembers the rest."""

    def __init__(self, path: Path, prompt: str, seed: int, profile: ResolvedProfile) -> None:
        """Take the directory, made with the first write if need be, and what the run is about."""
        self.path = path
        self._prompt = prompt
        self._seed = seed
        self._profile = profile
        self._begun = time.perf_counter()
        self._cleared = False
        self._renders: dict[int, Render] = {}
        self._verdicts: dict[int, Verdict] = {}
        self._caption: Caption | None = None
        self._checklist: Checklist | None = None
        self._proposal = Proposal(())
        self._candidates: tuple[Candidate, ...] = ()

    def __call__(self, event: StageStarted | StageFinished) -> None:
        """Take in what a step made.

        Raises:
            StorageError: its image cannot be written.
        """
        self._clear()
        match event:
            case StageFinished(index=index, value=Render() as render):
                self._renders[index] = render
                write_durably(self.path / _image_name(index), _png(render.image))
            case StageFinished(index=index, value=Verdict() as verdict):
                self._verdicts[index] = verdict
            case StageFinished(value=Caption() as caption):
                self._caption = caption
            case StageFinished(value=Checklist() as checklist):
                self._checklist = checklist
            case StageFinished(value=Proposal() as proposal):
                self._proposal = proposal
            case StageFinished(value=tuple() as candidates):
                self._candidates = candidates

    def broken_off(self, error: str, exit_code: int) -> Correction:
        """Return what there is of a run that the loop itself could not finish."""
        judged = self._judged()
        return Correction(
            prompt=self._prompt,
            seed=self._seed,
            status="error",
            original=judged[0] if judged else None,
            attempts=tuple(judged[1:]),
            candidates=self._candidates,
            caption=self._caption,
            answer=None,
            forwards=sum(render.forwards for render in self._renders.values()),
            seconds=time.perf_counter() - self._begun,
            error=error,
            exit_code=exit_code,
            checklist=self._checklist,
            rejected=self._proposal.rejected,
        )

    def finish(self, correction: Correction) -> Correction:
        """Write the answer, the sheet and the record; return the correction as it now stands.

        What cannot be written turns it into an error, unless it is one already.
        """
        try:
            self._clear()
            if correction.answer is not None:
                write_durably(self.path / ANSWER, _png(correction.answer.render.image))
            if correction.original is not None:
                write_durably(self.path / SHEET, _png(sheet(correction)))
        except StorageError as error:
            correction = _failed(correction, error)
        try:
            self._write_record(correction)
        except StorageError as error:
            correction = _failed(correction, error)
        return correction

    def _clear(self) -> None:
        """Remove, once, the attempts of an earlier result: this one may have fewer.

        Raises:
            StorageError: one cannot be removed.
        """
        if self._cleared:
            return
        for path in _attempts(self.path):
            try:
                path.unlink()
            except OSError as error:
                raise cannot_write(path, error) from error
        self._cleared = True

    def _write_record(self, correction: Correction) -> None:
        content = self.record(correction) | {
            "profile": TypeAdapter(ResolvedProfile).dump_python(self._profile, mode="json"),
            "versions": {
                "npc-local": __version__,
                "torch": importlib.metadata.version("torch"),
                "diffusers": importlib.metadata.version("diffusers"),
                "transformers": importlib.metadata.version("transformers"),
            },
            "network": egress.report(),
        }
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        # What of a path is no UTF-8 (a lone surrogate in Python) becomes a JSON escape.
        write_durably(self.path / RECORD, text.encode("utf-8", "backslashreplace"))

    def record(self, correction: Correction) -> dict[str, Any]:
        """Return a correction as plain data, its images as absolute paths."""
        answer = correction.answer
        verdict = None if answer is None else answer.verdict
        original = self.path / _image_name(0)
        record = {
            "prompt": correction.prompt,
            "seed": correction.seed,
            "status": correction.status,
            "correct": None if verdict is None else verdict.correct,
            "score": None if verdict is None else verdict.score,
            "reason": None if verdict is None else verdict.reason,
            "negative": None if answer is None else _negative(answer),
            "image": None if answer is None else str(self.path / ANSWER),
            # There even when it could not be judged.
            "original": str(original) if paths.exists(original, StorageError) else None,
            "checklist": [
                {"claim": demand.text, "kind": demand.kind}
                for demand in (() if correction.checklist is None else correction.checklist.demands)
            ],
            "original_verdict": (
                None if correction.original is None else verdict_data(correction.original.verdict)
            ),
            "original_fallbacks": (
                [] if correction.original is None else list(correction.original.render.fallbacks)
            ),
            "caption": None if correction.caption is None else correction.caption.text,
            "flags": [] if correction.caption is None else list(correction.caption.flags),
            "rejected": [
                {"negative": refusal.text, "reason": refusal.reason}
                for refusal in correction.rejected
            ],
            "candidates": [
                {
                    "negative": candidate.negative.text,
                    "kind": candidate.negative.kind,
                    "score": candidate.score,
                    "fallback": candidate.negative.fallback,
                }
                for candidate in correction.candidates
            ],
            "attempts": [
                {
                    "negative": _negative(attempt),
                    "image": str(self.path / _image_name(index)),
                    **verdict_data(attempt.verdict),
                    "fallbacks": list(attempt.render.fallbacks),
                }
                for index, attempt in enumerate(correction.attempts, start=1)
            ],
            "forwards": correction.forwards,
            "seconds": round(correction.seconds, 3),
        }
        if correction.error is not None:
            record["error"] = correction.error
        return record

    def _judged(self) -> list[Attempt]:
        """Return the images that have a verdict, the original first."""
        return [
            Attempt(
                Shot(self._prompt, None, self._seed),
                self._candidates[index - 1] if index else None,
                self._renders[index],
                verdict,
            )
            for index, verdict in sorted(self._verdicts.items())
        ]


def is_whole(folder: Path, record: Mapping[str, Any]) -> bool:
    """Whether all images of a result without an error are in its folder, undamaged.

    Their checksums are looked at, not their pixels. A folder that has been moved since is not
    whole: its record names the images elsewhere.
    """
    names = [ANSWER, SHEET, *map(_image_name, range(1 + len(record["attempts"])))]
    named = [record["image"], record["original"], *(one["image"] for one in record["attempts"])]
    return set(named) == {str(folder / name) for name in names if name != SHEET} and all(
        _is_png(folder / name) for name in names
    )


def _is_png(path: Path) -> bool:
    try:
        with open_png(path, formats=["PNG"]) as image:
            image.verify()
    except (OSError, SyntaxError, ValueError, DecompressionBombError):
        return False  # Pillow raises each of these for files that are missing, cut off or damaged
    return True


def verdict_data(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as plain data, with the answer to each claim."""
    return {
        "correct": verdict.correct,
        "score": verdict.score,
        "model_score": verdict.model_score,
        "reason": verdict.reason,
        "claims": [
            {"claim": claim.text, "kind": claim.kind, "holds": claim.holds}
            for claim in verdict.claims
        ],
    }


def _failed(correction: Correction, error: StorageError) -> Correction:
    """Return the correction as an error, unless it is one already."""
    if correction.status == "error":
        return correction
    return replace(
        correction, status="error", answer=None, error=str(error), exit_code=error.exit_code
    )


def _image_name(index: int) -> str:
    """Name the image of an attempt; 0 is the original."""
    return f"attempt-{index}.png" if index else "original.png"


def _negative(attempt: Attempt) -> str | None:
    return None if attempt.candidate is None else attempt.candidate.negative.text


def _png(image: Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
