"""The loop in the terminal: each stage as it ends, then what was fixed and where things are.

Everything goes to standard error, so that standard output stays free for data. Texts of prompts
and models are shown literally: no markup, no control characters. Nothing is decided here.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from rich.console import Console
from rich.padding import Padding
from rich.status import Status
from rich.table import Table
from rich.text import Text

from npc_local.core.errors import StorageError
from npc_local.core.files import paths
from npc_local.core.records import (
    Candidate,
    Caption,
    Checklist,
    Correction,
    Proposal,
    Render,
    Verdict,
)
from npc_local.core.terminal import LOG_EVERY, plain
from npc_local.loop import StageFinished, StageName, StageStarted

_DOING: dict[StageName, str] = {
    "checklist": "reading what the prompt claims",
    "generate": "making {image}",
    "verify": "judging {image}",
    "caption": "describing {image}",
    "propose": "proposing negative prompts",
    "rank": "ranking the negative prompts",
}
_BAR = 16
_NARROW = 64  # columns: below, what is no number or text is left out
_STATUS_STYLE = {
    "already-correct": "bold green",
    "corrected": "bold green",
    "best-effort": "bold yellow",
    "error": "bold red",
}


class LiveView:
    """Shows one prompt after the other; a `loop.Watch`.

    Terse, it shows only the spinner, what goes wrong, and what is waited for: for when the output
    is data.
    """

    def __init__(self, console: Console, *, terse: bool = False) -> None:
        """Take where to show and how much."""
        self._console = console
        self._terse = terse
        self._spinner: Status | None = None
        self._doing = ""
        self._logged = time.monotonic()  # when a line was last written to what is no terminal
        self._candidates: tuple[Candidate, ...] = ()

    def begin(self, prompt: str, seed: int, *, number: int, total: int) -> None:
        """Show which prompt comes now."""
        self._candidates = ()
        count = f"[{number}/{total}] " if total > 1 else ""
        self._show(Text.assemble("\n", (count, "dim"), (plain(prompt), "bold")))
        self._show(Text(f"seed {seed}", style="dim"))

    def on_status(self, status: str) -> None:
        """Show a line about what is waited for, or tried again; called from any thread."""
        line = plain(status)
        self._print(Text(line, style="dim"))
        if self._spinner is None:
            self._spin(line)

    def __call__(self, event: StageStarted | StageFinished) -> None:
        """Show that a stage begins, or what it made."""
        if isinstance(event, StageStarted):
            if event.name == "generate":
                self._show(self._heading(event.index))
            image = f"attempt {event.index}" if event.index else "the original"
            self._spin(_DOING[event.name].format(image=image))
            return
        self.stop()
        self._show_stage(event)
        if event.name == "verify":
            indent = 2 if self._narrow else 23
            self._show(Padding(_claims(cast(Verdict, event.value)), (0, 0, 0, indent)))
        elif event.name == "rank":
            self._candidates = cast(tuple[Candidate, ...], event.value)
            ranking = _ranking(self._candidates, bare=self._narrow)
            self._show(Padding(ranking, (0, 0, 0, 2 if self._narrow else 4)))

    def _show_stage(self, stage: StageFinished) -> None:
        seconds = Text(f"{stage.seconds:.2f} s", style="dim")
        row = Table.grid(padding=(0, 2))
        row.add_column(width=9, no_wrap=True)
        row.add_column(width=8, justify="right", no_wrap=True)
        if self._narrow:
            row.add_row(stage.name, seconds)
            self._show(row)
            self._show(Padding(_outcome_of(stage), (0, 0, 0, 2)))
        else:
            row.add_column(overflow="fold")
            row.add_row(stage.name, seconds, _outcome_of(stage))
            self._show(Padding(row, (0, 0, 0, 2)))

    def progress(self, done: int, total: int) -> None:
        """Show how far the image in the making is; called from the generator's thread."""
        doing = f"{self._doing}: denoising step {done} of {total}"
        if (spinner := self._spinner) is not None:
            spinner.update(Text(doing))
        elif not self._console.is_terminal and time.monotonic() - self._logged >= LOG_EVERY:
            self._show(Text(doing, style="dim"))

    def end(self, correction: Correction, folder: Path) -> None:
        """Show how it ended, what was fixed, and where things are."""
        self.stop()
        failed = correction.status == "error"
        if self._terse and not failed:
            return
        style = _STATUS_STYLE[correction.status]
        self._print(Text.assemble("" if self._terse else "\n", (_ending(correction), style)))
        rows = [("fixed", text) for text in _fixed(correction)]
        there = paths.is_dir(folder, StorageError)
        names = [path.name for path in paths.children(folder, StorageError)] if there else []
        if failed:
            rows.append(("kept", ", ".join(names) or "nothing"))
            rows.append(("in", str(folder)))
        else:
            rows.append(("answer", str(folder / "image.png")))
            rows.append(("sheet", str(folder / "sheet.png")))
            rows.append(("all", f"{folder} ({len(names)} files)"))
        for label, text in rows:
            self._print(Text.assemble((f"  {label:<8}", "dim"), text))

    def stop(self) -> None:
        """Take the spinner away."""
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None

    @property
    def _narrow(self) -> bool:
        return self._console.width < _NARROW

    def _heading(self, index: int) -> Text:
        """Say which image comes now."""
        if not index:
            return Text("\nOriginal", style="bold cyan")
        negative = plain(self._candidates[index - 1].negative.text)
        return Text.assemble(
            (f"\nAttempt {index} of {len(self._candidates)}", "bold cyan"), f"  without {negative}"
        )

    def _spin(self, doing: str) -> None:
        self.stop()
        self._doing = doing
        if self._console.is_terminal:
            self._spinner = self._console.status(Text(doing))
            self._spinner.start()

    def _show(self, what: Text | Padding | Table) -> None:
        """Print what a terse display leaves out."""
        if not self._terse:
            self._logged = time.monotonic()
            self._console.print(what)

    def _print(self, text: Text) -> None:
        """Print a line that is not to be broken, so that a path in it can be copied."""
        self._logged = time.monotonic()
        self._console.print(text, soft_wrap=True)


def _outcome_of(stage: StageFinished) -> Text:
    """Return what a stage made, in a line."""
    match stage.name:
        case "generate":
            render = cast(Render, stage.value)
            line = Text(f"{render.forwards} forwards", style="dim")
            if render.fallbacks:
                line.append(f"  out of memory: {', '.join(render.fallbacks)}", style="yellow")
            return line
        case "verify":
            verdict = cast(Verdict, stage.value)
            return Text.assemble(
                ("✓ " if verdict.correct else "✗ ", "green" if verdict.correct else "red"),
                (f"{verdict.score:.2f}", "bold"),
                f"  {plain(verdict.reason)}",
            )
        case "caption":
            caption = cast(Caption, stage.value)
            line = Text(plain(caption.text), style="dim")
            for flag in caption.flags:
                line.append(f"\n! {plain(flag)}", style="yellow")
            return line
        case "checklist":
            demands = cast(Checklist, stage.value).demands
            return Text(_counted(len(demands), "claim"), style="dim")
        case "propose":
            proposal = cast(Proposal, stage.value)
            stopgaps = sum(negative.fallback for negative in proposal.negatives)
            notes = [_counted(len(proposal.negatives), "negative prompt")]
            notes += [f"{stopgaps} from the fallback list"] if stopgaps else []
            notes += [f"{len(proposal.rejected)} rejected"] if proposal.rejected else []
            return Text(", ".join(notes), style="dim")
        case "rank":
            return Text("by salience", style="dim")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _claims(verdict: Verdict) -> Text:
    """List the claims that fail."""
    failing = [f"✗ {plain(claim.text)}" for claim in verdict.claims if not claim.holds]
    return Text("\n".join(failing), style="red", end="\n" if failing else "")


def _ranking(candidates: Sequence[Candidate], *, bare: bool) -> Table:
    """List candidates by rank, each with a bar: full for the highest score, least for the last.

    Bare, a row has its numbers and its text alone.
    """
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", no_wrap=True)
    if not bare:
        table.add_column(width=_BAR)
    table.add_column(justify="right", no_wrap=True)
    if not bare:
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    scores = [candidate.score for candidate in candidates]
    spread = max(scores, default=0.0) - min(scores, default=0.0)
    for rank, candidate in enumerate(candidates, start=1):
        share = (candidate.score - min(scores)) / spread if spread else 1.0
        negative = candidate.negative
        style = "magenta" if negative.kind == "targeted" else "blue"
        score, text = f"{candidate.score:.3f}", plain(negative.text)
        if bare:
            table.add_row(f"{rank}", score, Text(text, style=style))
            continue
        bar = Text("█" * (1 + round(share * (_BAR - 1))), style=style)
        table.add_row(f"{rank}", bar, score, Text(negative.kind, style=style), text)
    return table


def _ending(correction: Correction) -> str:
    """Say in a sentence how it ended."""
    images = 1 + len(correction.attempts)
    cost = f"{images} image{'s' if images > 1 else ''} in {correction.seconds:.1f} s"
    match correction.status:
        case "already-correct":
            return f"Correct at once: {cost}"
        case "corrected":
            return f"Corrected: {_name(correction)} is right, {cost}"
        case "best-effort":
            best = _name(correction)
            return f"Best effort: no image is right, {best} comes closest, {cost}"
        case "error":
            lines = (correction.error or "").splitlines()
            return "error: " + "\n".join(plain(line) for line in lines)


def _name(correction: Correction) -> str:
    """Name the answer."""
    for index, attempt in enumerate(correction.attempts, start=1):
        if attempt is correction.answer:
            return f"attempt {index}"
    return "the original"


def _fixed(correction: Correction) -> list[str]:
    """Return what was wrong in the original and is right in the answer."""
    original, answer = correction.original, correction.answer
    if original is None or answer is None or answer is original:
        return []
    now = {claim.text for claim in answer.verdict.claims if claim.holds}
    repaired = [claim.text for claim in original.verdict.claims if not claim.holds]
    fixed = [plain(text) for text in repaired if text in now]
    # A verifier need not list claims; its reason then says what was wrong.
    return fixed or ([plain(original.verdict.reason)] if answer.verdict.correct else [])
