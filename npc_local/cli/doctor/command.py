"""`npc-local doctor`: print what was found, by level; the exit code is the first error's."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from npc_local.cli import options

if TYPE_CHECKING:
    from npc_local.cli.doctor.findings import Finding

_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan", "ok": "green"}
_EXAMPLES = """\b
Examples:
  npc-local doctor
  npc-local doctor --profile flux-dev
  npc-local doctor models/FLUX.1-dev
  npc-local doctor --profile flux-dev --manifest models/flux-dev.sha256
  npc-local doctor --json | jq '.findings[] | select(.level == "error")'
"""


@click.command(epilog=_EXAMPLES)
@click.argument("model_dir", metavar="[MODEL_DIR]", required=False, type=options.PATH)
@options.profile
@options.config
@options.overrides
@options.path(
    "--manifest",
    "Check the files below it too: sizes, then SHA-256. Made by scripts/download_models.sh.",
    metavar="FILE",
)
@options.as_json()
@click.pass_context
def doctor(
    ctx: click.Context,
    model_dir: Path | None,
    profile: str | None,
    config: Path | None,
    overrides: tuple[str, ...],
    manifest: Path | None,
    as_json: bool,
) -> None:
    """Check that a profile has all it needs, or one MODEL_DIR alone, without loading a model.

    Each finding says what to do. The exit code is 0 unless there is an error, else what a run would
    end with: 2 settings, 4 agents, 5 model files, 7 storage.
    """
    from npc_local.cli.doctor.findings import exit_code

    if model_dir is not None and (profile or config or overrides):
        raise click.UsageError("give a MODEL_DIR, or a profile; not both")
    findings = _find(model_dir, profile, config, overrides, manifest)
    code = exit_code(findings)
    if as_json:
        report = {
            "ok": code == 0,
            "exit_code": code,
            "findings": [finding.as_data() for finding in findings],
        }
        click.echo(json.dumps(report, indent=2))
    else:
        _show(findings)
    ctx.exit(code)


def _find(
    model_dir: Path | None,
    profile: str | None,
    config: Path | None,
    overrides: Sequence[str],
    manifest: Path | None,
) -> list[Finding]:
    """Return all findings; settings that cannot be read are one."""
    from npc_local.cli.doctor.directories import inspect_directory
    from npc_local.cli.doctor.examine import examine_manifest, examine_profile
    from npc_local.cli.doctor.findings import error, guarded
    from npc_local.core.config.load import load_config
    from npc_local.core.errors import ConfigError

    if model_dir is not None:
        findings = list(guarded(inspect_directory(model_dir)))
    else:
        try:
            settings = load_config(config, overrides)
            findings = list(guarded(examine_profile(settings, profile)))
        except ConfigError as caught:
            findings = [error(str(caught), do="correct the settings", kind=ConfigError)]
    if manifest is not None:
        findings += examine_manifest(manifest, _Progress() if sys.stderr.isatty() else None)
    return findings


class _Progress:
    """Shows on a terminal how far the hashing of large files is; a `manifest.Progress`."""

    _LARGE = 100_000_000  # bytes: files below are hashed in a moment

    def __init__(self) -> None:
        self._shown = 0.0

    def __call__(self, path: str, done: int, size: int) -> None:
        """Write over the line of before, a few times a second."""
        from npc_local.core.terminal import plain

        if size < self._LARGE:
            return
        if done >= size:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - self._shown > 0.2:
            self._shown = time.monotonic()
            line = f"{done / size:4.0%} of {size / 1e9:.1f} GB  {plain(path)}"
            print(f"\r\033[K{line[:78]}", end="", file=sys.stderr, flush=True)


def _show(findings: Sequence[Finding]) -> None:
    """Print the findings, the worst first."""
    from rich.console import Console
    from rich.text import Text

    from npc_local.core.terminal import plain

    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    for level, style in _STYLES.items():
        for finding in findings:
            if finding.level == level:
                text = Text(f"{level:<8}", style)
                where = f"{plain(finding.where)}: " if finding.where else ""
                lines = finding.what.splitlines()
                text.append(where + plain(lines[0]), "default")
                console.print(text)
                for line in lines[1:]:
                    console.print(" " * 8 + plain(line))
                if finding.do:
                    console.print(" " * 8 + f"-> {plain(finding.do)}")
    counted = [
        f"{count} {level}{'s' * (count > 1)}"
        for level in ("error", "warning")
        if (count := sum(finding.level == level for finding in findings))
    ]
    console.print(" and ".join(counted) or "everything is there")
