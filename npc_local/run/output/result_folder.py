"""The result folder of one prompt: every image on disk as soon as it is made, the record last.

Names in it are fixed. What the sheet looks like is left to `sheet`, what the terminal shows to
`live_view`, and resuming to whoever keeps a journal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL.Image import DecompressionBombError
from PIL.Image import open as open_png
from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from npc_local.core.config.load import ResolvedProfile
from npc_local.core.errors import StorageError
from npc_local.core.files import paths
from npc_local.core.files.atomic import TEMPORARY, cannot_write, write_durably
from npc_local.core.files.images import encoded
from npc_local.core.offline import egress
from npc_local.core.records import Attempt, Correction, Render, Verdict
from npc_local.core.versions import __version__, libraries
from npc_local.loop import StageFinished, StageStarted
from npc_local.run.output.sheet import sheet

ANSWER = "image.png"
SHEET = "sheet.png"
RECORD = "correction.json"


def _files(folder: Path, pattern: str) -> list[Path]:
    """Return what of a folder, if it is there, has such a name."""
    if not paths.is_dir(folder, StorageError):
        return []
    return paths.children(folder, StorageError, pattern)


class ResultFolder:
    """The output of one prompt; a `loop.Watch` that keeps each image as soon as it is made."""

    def __init__(
        self, path: Path, profile: ResolvedProfile, instead: Mapping[str, Any] | None = None
    ) -> None:
        """Take where it is and what the record says of how the images were made.

        Args:
            path: the directory, made with the first write if need be.
            profile: the settings.
            instead: what stood in for parts of the profile, by their names in it.
        """
        self.path = path
        self._profile = profile
        self._instead = instead or {}
        self._cleared = False

    def __call__(self, event: StageStarted | StageFinished) -> None:
        """Keep an image that was made.

        Raises:
            StorageError: it cannot be written.
        """
        self._clear()
        if isinstance(event, StageFinished) and isinstance(event.value, Render):
            self._keep(event.index, event.value)

    def finish(self, correction: Correction) -> Correction:
        """Write the answer, the sheet and the record; return the correction as it now stands.

        What cannot be written turns it into an error, unless it is one already. Where the folder
        has this very result already, its `seconds` stay: those of looking it up say nothing.
        """
        correction = self._with_earlier_seconds(correction)
        try:
            self._clear()
            self._write_pictures(correction)
        except StorageError as error:
            correction = _failed(correction, error)
        try:
            self._write_record(correction)
        except StorageError as error:
            correction = _failed(correction, error)
        return correction

    def save(self, correction: Correction) -> None:
        """Write everything of a correction whose making was not watched.

        Raises:
            StorageError: something cannot be written.
        """
        judged = [correction.original, *correction.attempts]
        for index, attempt in enumerate(judged):
            if attempt is not None:
                self._keep(index, attempt.render)
        self._write_pictures(correction)
        self._write_record(correction)

    def _keep(self, index: int, render: Render) -> None:
        """Write an image as the journal has it, or encode it.

        It is a copy, and no link: whoever retouches a result in place must not change the journal.
        """
        data = None
        if render.file is not None:
            with suppress(StorageError):
                data = paths.read(render.file, StorageError)
        write_durably(self.path / _image_name(index), data or encoded(render.image))

    def _write_pictures(self, correction: Correction) -> None:
        """Write the answer, which is one of the images that are there, and the sheet."""
        if correction.answer is not None:
            judged = [correction.original, *correction.attempts]
            [index] = [n for n, attempt in enumerate(judged) if attempt is correction.answer]
            image = paths.read(self.path / _image_name(index), StorageError)
            write_durably(self.path / ANSWER, image)
        if correction.original is not None:
            write_durably(self.path / SHEET, encoded(sheet(correction)))

    def _with_earlier_seconds(self, correction: Correction) -> Correction:
        earlier = read_record(self.path)
        if correction.status == "error" or not _same_result(earlier, self.record(correction)):
            return correction
        return replace(correction, seconds=earlier["seconds"])

    def _clear(self) -> None:
        """Remove, once, the attempts of an earlier result, and files that were left unfinished.

        Raises:
            StorageError: one cannot be removed.
        """
        if self._cleared:
            return
        for path in [*_files(self.path, "attempt-*.png"), *_files(self.path, f".*{TEMPORARY}")]:
            try:
                path.unlink()
            except OSError as error:
                raise cannot_write(path, error) from error
        self._cleared = True

    def _write_record(self, correction: Correction) -> None:
        content = self.record(correction) | {
            "profile": TypeAdapter(ResolvedProfile).dump_python(self._profile, mode="json")
            | to_jsonable_python(self._instead, fallback=repr),
            "versions": {"npc-local": __version__, **libraries()},
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


def read_record(folder: Path) -> dict[str, Any]:
    """Return the record in a prompt's folder, empty if there is none that can be read."""
    try:
        record = json.loads(paths.read(folder / RECORD, StorageError))
    except (StorageError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _same_result(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether two records tell the same, wherever its images are and however long it took."""
    try:
        return earlier["seconds"] > 0 and _told(earlier, now) == _told(now, now)
    except (AttributeError, KeyError, TypeError):
        return False  # written by hand, or by another version


def _told(record: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    told = {key: record[key] for key in like if key not in ("seconds", "image", "original")}
    attempts = [{**attempt, "image": None} for attempt in record["attempts"]]
    return told | {"attempts": attempts}


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
