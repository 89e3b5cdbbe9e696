"""The command line: parse, call, print. Exit codes are those of `errors`; Ctrl-C gives 130.

Only click is imported here at once, so that help comes without waiting for a model library; what
a command needs, it imports. Prompts given as arguments go to `run_prompts`, a file of them to
`run.batch`; what surrounds a command that is a process of its own is in `process`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from npc_local.cli import options
from npc_local.cli.notes import tell_markup, tell_unquoted
from npc_local.cli.process import INTERRUPTED, run_as_process
from npc_local.core.errors import NpcError
from npc_local.core.files import paths
from npc_local.core.versions import __version__

if TYPE_CHECKING:
    from npc_local.core.config.load import ResolvedProfile

# Commands with a module of their own, which names them as the key does and imports little.
_ELSEWHERE = {
    "bench": "npc_local.cli.bench.group",
    "caption": "npc_local.cli.agent_commands",
    "config": "npc_local.cli.config",
    "doctor": "npc_local.cli.doctor.command",
    "models": "npc_local.cli.models",
    "profiles": "npc_local.cli.config",
    "propose": "npc_local.cli.agent_commands",
    "rank": "npc_local.cli.rank",
    "verify": "npc_local.cli.agent_commands",
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

    def main(self, args: Sequence[str] | None = None, *more: Any, **extra: Any) -> Any:
        """Run this process's own command line, or, inside a program of its own, the one given."""
        run: Callable[..., Any] = super().main
        if args is not None:
            return run(args, *more, **extra)
        return run_as_process(lambda: run(*more, standalone_mode=False, **extra))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the arguments as they came, for whoever runs this command line once more."""
        ctx.meta[options.ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command inside the egress guard; its errors become a message and an exit code.

        With --json, they also become an object on standard output.
        """
        from npc_local.core.offline.switches import guard

        try:
            with guard():
                try:
                    paths.working_directory()  # deleted: libraries trip over it in their own ways
                    return super().invoke(ctx)
                finally:
                    _tell_blocked()
        except NpcError as error:
            from npc_local.core.terminal import plain

            message = "\n".join(plain(line) for line in str(error).splitlines())
            click.echo(f"error: {message}", err=True)
            _print_refusal(ctx, str(error), error.exit_code)
            ctx.exit(error.exit_code)
        except click.UsageError as error:
            _print_refusal(ctx, error.format_message(), error.exit_code)
            raise
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


def _print_refusal(ctx: click.Context, error: str, exit_code: int) -> None:
    """Print an error as an object, if objects were asked for."""
    arguments = ctx.meta[options.ARGUMENTS]
    if "--" in arguments:
        arguments = arguments[: arguments.index("--")]
    if "--json" in arguments:
        line = json.dumps({"status": "error", "error": error, "exit_code": exit_code})
        ctx.meta.get(options.PRINT, click.echo)(line)


def _tell_blocked() -> None:
    """Name on standard error what the egress guard refused, each attempt once."""
    from npc_local.core.offline.egress import report

    blocked = report()["blocked"]
    if blocked:
        from npc_local.core.terminal import plain

        lines = [
            f"blocked: {call['what']} {call['to']}, from {call['from'][0]}" for call in blocked
        ]
        for line in dict.fromkeys(lines):
            click.echo(plain(line), err=True)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="npc-local")
def main() -> None:
    """Make images that match their prompts, with negative prompts, on this machine alone."""


_EXAMPLES = """\b
Examples:
  npc-local run "one red square on the left and two blue stars on the right"
  npc-local run --seed random --candidates 3 --out stars "three yellow stars"
  npc-local run --json "a red circle" "a blue circle" | jq .status
  npc-local run --steps 28 "four green triangles"
  npc-local run --prompts prompts.txt --out runs/mine
"""


@main.command(epilog=_EXAMPLES)
@click.argument("prompts", metavar="[PROMPT]...", nargs=-1)
@options.path(
    "--prompts",
    "Many prompts at once: a line each (.txt), or with seeds and ids (.jsonl, .csv).",
    metavar="FILE",
    parameter="file",
)
@options.profile
@options.config
@options.seed
@options.sampling
@options.path(
    "--out",
    "Keeps results; the same command goes on there.  [default: one in ./npc-local-runs]",
    metavar="DIR",
)
@click.option("--fresh", is_flag=True, help="With --prompts: do not go on in DIR; use DIR-2.")
@options.count("--agents", "With --prompts: agents' stages at once.  [default: 8]")
@options.count(
    "--in-flight",
    "With --prompts: prompts at once.  [default: as many as help, and fit in memory]",
)
@options.overrides
@options.as_json("Print one JSON object a prompt, and no more.")
@click.pass_context
def run(
    ctx: click.Context,
    /,
    prompts: tuple[str, ...],
    file: Path | None,
    profile: str | None,
    config: Path | None,
    seed: int,
    out: Path | None,
    fresh: bool,
    agents: int | None,
    in_flight: int | None,
    overrides: tuple[str, ...],
    as_json: bool,
    **numbers: int | None,
) -> None:
    """Make an image for each PROMPT and correct it until it matches.

    Each image that is made is kept, with a sheet that shows them all. Several prompts share the
    loaded models and get a directory each. The exit code is 0 unless a prompt ended in an error:
    an image that stays wrong is a result. A run that was cut off goes on with the same command, if
    it has an --out.

    FILE ends in .txt (a prompt a line; blank lines and lines that begin with # are passed over),
    .jsonl (an object a line), .csv or .tsv (with a header). Objects and rows have a prompt (or
    text, or caption) and, if wanted, a seed and an id. A pipe, and - for standard input, may be
    any of these.
    """
    from npc_local.core.config.load import load_config
    from npc_local.core.offline.switches import go_offline
    from npc_local.core.prompts import check_prompt

    if not prompts and file is None:
        raise click.UsageError("Missing argument 'PROMPT...', or --prompts FILE.")
    if prompts and file is not None:
        raise click.UsageError("Give either PROMPT... or --prompts FILE.")
    if file is None and (fresh or agents or in_flight):
        raise click.UsageError("--fresh, --agents and --in-flight go with --prompts FILE.")
    go_offline()
    tell_unquoted(prompts)
    checked = [check_prompt(prompt) for prompt in prompts]
    tell_markup(checked)
    chosen = options.adjusted(load_config(config, overrides).profile(profile), **numbers)
    if file is not None:
        ctx.exit(_run_file(ctx, file, chosen, seed, out, fresh, agents, in_flight, as_json))
    from npc_local.cli.live_view import LiveView
    from npc_local.cli.run_prompts import Job, correct_all, output
    from npc_local.core.terminal import error_console, libraries_quiet
    from npc_local.core.threads import run_interruptibly
    from npc_local.run.factory import open_components

    display = LiveView(error_console(), terse=as_json)
    with output(out) as (directory, journal), libraries_quiet() as stdout:
        job = Job(
            chosen,
            seed,
            directory,
            journal,
            display,
            stdout if as_json else None,
            ctx.obj or open_components,
        )
        ctx.exit(run_interruptibly(correct_all(checked, job)))


def _run_file(
    ctx: click.Context,
    file: Path,
    profile: ResolvedProfile,
    seed: int,
    out: Path | None,
    fresh: bool,
    agents: int | None,
    in_flight: int | None,
    as_json: bool,
) -> int:
    """Correct the prompts of a file, watched over by this process if it is a command's own."""
    from npc_local.core.terminal import libraries_quiet, plain
    from npc_local.run.output.directories import run_directory
    from npc_local.run.prompt_file import read_content, read_prompts
    from npc_local.run.supervisor import Link, can_supervise, supervise

    link = Link()
    content = read_content(file) if link.content is None else link.content
    orders = read_prompts(file, seed, content)
    if link.directory is None:  # not in a child, whose parent has said it
        tell_markup(order.prompt for order in orders)
    directory = link.directory or ctx.with_resource(run_directory(out, fresh=fresh))
    if link.directory is None and can_supervise(ctx.meta[options.ARGUMENTS]):
        os.environ[options.DRAWN_SEED] = str(seed)
        return supervise(directory, lambda what: click.echo(plain(what), err=True), content)
    from npc_local.run.batch import Batch, run_batch
    from npc_local.run.factory import open_components

    opening = ctx.obj or open_components
    batch = Batch(file, orders, profile, seed, directory, agents, in_flight, opening)
    with libraries_quiet() as stdout:
        link.stdout = stdout if as_json else None
        ctx.meta[options.PRINT] = link.print_end
        return run_batch(batch, link)
