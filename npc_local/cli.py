"""The command line: parse, call, print. Exit codes are those of `errors`; Ctrl-C gives 130.

Only click is imported here at once, so that help comes without waiting for a model library; what
a command needs, it imports. The method itself is `loop`, files are `rundir`, the terminal is
`display`.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from npc_local import __version__, options
from npc_local.errors import ConfigError, NpcError

if TYPE_CHECKING:
    from npc_local.config import ResolvedProfile
    from npc_local.display import Display
    from npc_local.loop import Cast
    from npc_local.records import Correction
    from npc_local.rundir import RunDir

INTERRUPTED = 130

# Commands with a module of their own, which names them as the key does and imports little.
_ELSEWHERE = {
    "bench": "npc_local.bench.command",
    "caption": "npc_local.single",
    "doctor": "npc_local.doctor.command",
    "models": "npc_local.report.models_page",
    "propose": "npc_local.single",
    "rank": "npc_local.salience.command",
    "verify": "npc_local.single",
}


class _Commands(click.Group):
    """A group that imports some commands when they are asked for, and shows errors as text."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name all commands, without importing any."""
        return sorted([*super().list_commands(ctx), *_ELSEWHERE])

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Return a command, importing its module if it has one of its own."""
        if name in _ELSEWHERE:
            command: click.Command = getattr(import_module(_ELSEWHERE[name]), name)
            return command
        return super().get_command(ctx, name)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command inside the egress guard; its errors become a message and an exit code."""
        from npc_local.offline import guard

        try:
            with guard(), _termination_as_interrupt():
                try:
                    return super().invoke(ctx)
                finally:
                    _tell_blocked()
        except NpcError as error:
            from npc_local.display import plain

            message = "\n".join(plain(line) for line in str(error).splitlines())
            click.echo(f"error: {message}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """End on SIGTERM as on Ctrl-C, with everything kept: schedulers and `kill` send it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _tell_blocked() -> None:
    """Name on standard error what the egress guard refused, each attempt once."""
    from npc_local.egress import report

    blocked = report()["blocked"]
    if blocked:
        from npc_local.display import plain

        lines = [f"blocked: {one['what']} {one['to']}, from {one['from'][0]}" for one in blocked]
        for line in dict.fromkeys(lines):
            click.echo(plain(line), err=True)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="npc-local")
def main() -> None:
    """Make images that match their prompts, with negative prompts, on this machine alone."""


_EXAMPLES = """\b
Examples:
  npc-local run "one red square on the left and two blue stars on the right"
  npc-local run --seed 7 --candidates 3 --out stars "three yellow stars"
  npc-local run --json "a red circle" "a blue circle" | jq .status
  npc-local run --set generators.shapes.steps=28 "four green triangles"
"""


@main.command(epilog=_EXAMPLES)
@click.argument("prompts", metavar="PROMPT...", nargs=-1, required=True)
@options.profile
@options.config
@click.option(
    "--seed",
    metavar="N",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    help="Fixes the noise of every image.",
)
@click.option(
    "--candidates",
    metavar="K",
    type=click.IntRange(min=1),
    help="Negative prompts to try at most.  [default: the profile's]",
)
@click.option(
    "--negative-steps",
    metavar="N",
    type=click.IntRange(min=1),
    help="First denoising steps that the negative acts in.  [default: the generator's]",
)
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="A new or empty directory.  [default: a fresh one in ./npc-local-runs]",
)
@options.overrides
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object a prompt, and no more."
)
@click.pass_context
def run(
    ctx: click.Context,
    prompts: tuple[str, ...],
    profile: str | None,
    config: Path | None,
    seed: int,
    candidates: int | None,
    negative_steps: int | None,
    out: Path | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make an image for each PROMPT and correct it until it matches.

    Each image that is made is kept, with a sheet that shows them all. Several prompts share the
    loaded models and get a directory each. The exit code is 0 unless a prompt ended in an error:
    an image that stays wrong is a result.
    """
    import asyncio

    from npc_local.config import load_config
    from npc_local.display import Display, error_console, libraries_quiet
    from npc_local.offline import go_offline
    from npc_local.prompts import check_prompt
    from npc_local.rundir import output_directory

    go_offline()
    checked = [check_prompt(prompt) for prompt in prompts]
    chosen = _adjust(load_config(config, overrides).profile(profile), candidates, negative_steps)
    display = Display(error_console(), terse=as_json)
    with output_directory(out) as directory, libraries_quiet() as stdout:
        job = _Job(chosen, seed, directory, display, stdout if as_json else None)
        code = asyncio.run(_correct_all(checked, job))
    ctx.exit(code)


def _adjust(
    profile: ResolvedProfile, candidates: int | None, negative_steps: int | None
) -> ResolvedProfile:
    """Return the profile with the numbers given on the command line.

    Raises:
        ConfigError: there are fewer denoising steps than the negative is to act in.
    """
    generator = profile.generator
    if negative_steps is not None:
        if negative_steps > generator.steps:
            raise ConfigError(
                f"--negative-steps: found {negative_steps}; must be at most {generator.steps}, "
                f"the steps of the generator of profile {profile.name!r}"
            )
        generator = generator.model_copy(update={"negative_steps": negative_steps})
    return replace(profile, generator=generator, candidates=candidates or profile.candidates)


@dataclass(frozen=True, slots=True)
class _Job:
    """What the prompts of one command share. `stdout` takes a JSON line a prompt; None: nothing."""

    profile: ResolvedProfile
    seed: int
    directory: Path
    display: Display
    stdout: TextIO | None


async def _correct_all(prompts: Sequence[str], job: _Job) -> int:
    """Correct one prompt after the other; return the exit code of the first that failed, or 0."""
    from contextlib import AsyncExitStack

    from npc_local.cast import open_cast
    from npc_local.diffusion.generator import DiffusersGenerator
    from npc_local.errors import GeneratorError
    from npc_local.rundir import RunDir, folder_name
    from npc_local.turns import TurnGenerator

    over = threading.Event()

    def on_step(done: int, total: int) -> None:
        # The generator's thread outlives a Ctrl-C: without this, leaving waits for its image.
        if over.is_set():
            raise GeneratorError("interrupted")
        job.display.progress(done, total)

    code = 0
    logs = job.directory / "logs"
    backends = job.profile.backends.items()
    servers = [name for name, entry in backends if getattr(entry, "server", None) is not None]
    if servers:
        job.display.waiting(f"getting the server of {', '.join(servers)} ready (log: {logs})")
    async with AsyncExitStack() as stack:
        stack.callback(job.display.stop)  # also when a server does not start
        cast = await stack.enter_async_context(open_cast(job.profile, logs=logs))
        job.display.stop()
        if isinstance(cast.generator, DiffusersGenerator | TurnGenerator):
            cast.generator.on_step = on_step
        try:
            for number, prompt in enumerate(prompts, start=1):
                alone = len(prompts) == 1
                folder = job.directory if alone else job.directory / folder_name(number, prompt)
                job.display.begin(prompt, job.seed, number=number, total=len(prompts))
                kept = RunDir(folder, prompt, job.seed, job.profile)
                correction = await _correct_one(prompt, cast, kept, job)
                code = code or correction.exit_code or 0
        finally:
            over.set()
    return code


async def _correct_one(prompt: str, cast: Cast, kept: RunDir, job: _Job) -> Correction:
    """Correct one prompt, keeping and showing what happens, whatever happens."""
    import asyncio
    import json

    from npc_local.loop import Begin, Step, correct

    def watch(event: Begin | Step) -> None:
        kept(event)
        job.display(event)

    def finish(correction: Correction) -> Correction:
        correction = kept.finish(correction)
        job.display.end(correction, kept.path)
        if job.stdout is not None:
            print(json.dumps(kept.record(correction)), file=job.stdout, flush=True)
        return correction

    try:
        correction = await correct(
            prompt, cast, seed=job.seed, candidates=job.profile.candidates, watch=watch
        )
    except (asyncio.CancelledError, KeyboardInterrupt):
        finish(kept.broken_off("interrupted", INTERRUPTED))
        raise
    except Exception as bug:
        finish(kept.broken_off(f"a bug in npc-local or a library: {bug!r}", NpcError.exit_code))
        raise
    return finish(correction)
