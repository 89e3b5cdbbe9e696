"""The loop in the terminal: each step as it ends, then what was fixed and where things are.

Everything goes to standard error, so that standard output stays free for data. Texts of prompts
and models are shown literally: no markup, no control characters. Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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
from npc_local.core.terminal import plain
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
_STATUS_STYLE = {
    "already-correct": "bold green",
    "corrected": "bold green",
    "best-effort": "bold yellow",
    "error": "bold red",
}


class LiveView:
    """Shows one prompt after the other; a `loop.Watch`.

    Terse, it shows only the spinner, and at the end errors: for when the output is data.
    """

    def __init__(self, console: Console, *, terse: bool = False) -> None:
        """Take where to show and how much."""
        self._console = console
        self._terse = terse
        self._status: Status | None = None
        self._doing = ""
        self._candidates: tuple[Candidate, ...] = ()

    def begin(self, prompt: str, seed: int, *, number: int, total: int) -> None:
        """Show which prompt comes now."""
        self._candidates = ()
        count = f"[{number}/{total}] " if total > 1 else ""
        self._say(Text.assemble("\n", (count, "dim"), (plain(prompt), "bold")))
        self._say(Text(f"seed {seed}", style="dim"))

    def waiting(self, what: str) -> None:
        """Show what is waited for, until `stop` or the first step."""
        self._say(Text(what, style="dim"))
        self._spin(what)

    def __call__(self, event: StageStarted | StageFinished) -> None:
        """Show that a step begins, or what it made."""
        if isinstance(event, StageStarted):
            if event.name == "generate":
                self._say(self._heading(event.index))
            image = f"attempt {event.index}" if event.index else "the original"
            self._spin(_DOING[event.name].format(image=image))
            return
        self.stop()
        line = Table.grid(padding=(0, 2), expand=False)
        line.add_column(width=9)
        line.add_column(width=8, justify="right")
        line.add_column(overflow="fold")
        line.add_row(event.name, Text(f"{event.seconds:.2f} s", style="dim"), _said(event))
        self._say(Padding(line, (0, 0, 0, 2)))
        match event.value:
            case Verdict() as verdict:
                self._say(Padding(_claims(verdict), (0, 0, 0, 23)))
            case tuple() as candidates:
                self._candidates = candidates
                self._say(Padding(_ranking(self._candidates), (0, 0, 0, 4)))

    def progress(self, done: int, total: int) -> None:
        """Show how far the image in the making is; called from the generator's thread."""
        if (status := self._status) is not None:
            status.update(Text(f"{self._doing}: denoising step {done} of {total}"))

    def end(self, correction: Correction, folder: Path) -> None:
        """Show how it ended, what was fixed, and where things are."""
        self.stop()
        failed = correction.status == "error"
        if self._terse and not failed:
            return
        style = _STATUS_STYLE[correction.status]
        self._print(Text.assemble("" if self._terse else "\n", (_outcome(correction), style)))
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
        if self._status is not None:
            self._status.stop()
            self._status = None

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
            self._status = self._console.status(Text(doing))
            self._status.start()

    def _say(self, what: Text | Padding) -> None:
        """Print what a terse display leaves out."""
        if not self._terse:
            self._console.print(what)

    def _print(self, text: Text) -> None:
        """Print a line that is not to be broken, so that a path in it can be copied."""
        self._console.print(text, soft_wrap=True)


def _said(step: StageFinished) -> Text:
    """Return what a step made, in a line."""
    match step.value:
        case Render() as render:
            said = Text(f"{render.forwards} forwards", style="dim")
            if render.fallbacks:
                said.append(f"  out of memory: {', '.join(render.fallbacks)}", style="yellow")
            return said
        case Verdict() as verdict:
            return Text.assemble(
                ("✓ " if verdict.correct else "✗ ", "green" if verdict.correct else "red"),
                (f"{verdict.score:.2f}", "bold"),
                f"  {plain(verdict.reason)}",
            )
        case Caption() as caption:
            said = Text(plain(caption.text), style="dim")
            for flag in caption.flags:
                said.append(f"\n! {plain(flag)}", style="yellow")
            return said
        case Checklist(demands=demands):
            return Text(_counted(len(demands), "claim"), style="dim")
        case Proposal() as proposal:
            made = _counted(len(proposal.negatives), "negative prompt")
            stopgaps = sum(negative.fallback for negative in proposal.negatives)
            notes = [f"{stopgaps} from the fallback list"] if stopgaps else []
            notes += [f"{len(proposal.rejected)} rejected"] if proposal.rejected else []
            return Text(", ".join([made, *notes]), style="dim")
        case _:
            return Text("by salience", style="dim")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _claims(verdict: Verdict) -> Text:
    """List the claims that fail."""
    failing = [f"✗ {plain(claim.text)}" for claim in verdict.claims if not claim.holds]
    return Text("\n".join(failing), style="red", end="\n" if failing else "")


def _ranking(candidates: Sequence[Candidate]) -> Table:
    """List candidates by rank, each with a bar: full for the highest score, least for the last."""
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right")
    table.add_column(width=_BAR)
    table.add_column(justify="right")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    scores = [candidate.score for candidate in candidates]
    for rank, candidate in enumerate(candidates, start=1):
        spread = max(scores) - min(scores)
        share = (candidate.score - min(scores)) / spread if spread else 1.0
        style = "magenta" if candidate.negative.kind == "targeted" else "blue"
        table.add_row(
            f"{rank}",
            Text("█" * (1 + round(share * (_BAR - 1))), style=style),
            f"{candidate.score:.3f}",
            Text(candidate.negative.kind, style=style),
            plain(candidate.negative.text),
        )
    return table


def _outcome(correction: Correction) -> str:
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
