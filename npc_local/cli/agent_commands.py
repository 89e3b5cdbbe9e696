"""`npc-local verify`, `caption` and `propose`: one agent on its own, for trying things out.

No generator is opened. Results go to standard output: text for people, or one JSON object. The
exit code is 0 whenever the agent answered, whatever it said: a rejected image is a result.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

import click

from npc_local.cli import options
from npc_local.cli.notes import tell_markup

if TYPE_CHECKING:
    from PIL.Image import Image

    from npc_local.backends.base import Backend
    from npc_local.core.config.load import ResolvedProfile
    from npc_local.core.records import Caption, Proposal, Verdict

_UNNAMED_REASON = "it does not show what the prompt asks for"

_VERIFY_EXAMPLES = """\b
Examples:
  npc-local verify image.png "two red circles"
  npc-local verify --json image.png "two red circles" | jq .correct
  npc-local verify --set profiles.shapes.strictness=lenient image.png "two red circles"
"""


@click.command(epilog=_VERIFY_EXAMPLES)
@click.argument("image", metavar="IMAGE")
@click.argument("prompt", metavar="PROMPT")
@options.profile
@options.config
@options.overrides
@options.as_json()
def verify(
    image: str,
    prompt: str,
    profile: str | None,
    config: Path | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Judge whether IMAGE shows what PROMPT asks for, claim by claim.

    The profile's verifier answers, under the profile's strictness and votes. The exit code is 0
    once there is a verdict, whichever it is.
    """
    from npc_local.core.prompts import check_prompt
    from npc_local.core.terminal import libraries_quiet
    from npc_local.core.threads import run_interruptibly

    chosen, checked = _profile(profile, config, overrides), check_prompt(prompt)
    tell_markup([checked])
    picture = _open_image(image)
    with libraries_quiet() as stdout:
        verdict = run_interruptibly(_verify(chosen, checked, picture))
        if as_json:
            from npc_local.run.output.result_folder import verdict_data

            _print_json({"image": image, "prompt": checked} | verdict_data(verdict), stdout)
        else:
            _print_verdict(verdict, stdout)


_CAPTION_EXAMPLES = """\b
Examples:
  npc-local caption image.png
  npc-local caption --json image.png | jq -r .caption
  npc-local caption --profile shapes image.png
"""


@click.command(epilog=_CAPTION_EXAMPLES)
@click.argument("image", metavar="IMAGE")
@options.profile
@options.config
@options.overrides
@options.as_json()
def caption(
    image: str,
    profile: str | None,
    config: Path | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Describe IMAGE, as the profile's captioner sees it."""
    from npc_local.core.terminal import libraries_quiet
    from npc_local.core.threads import run_interruptibly

    chosen, picture = _profile(profile, config, overrides), _open_image(image)
    with libraries_quiet() as stdout:
        description = run_interruptibly(_describe(chosen, picture))
        if as_json:
            _print_json({"image": image} | _caption_data(description), stdout)
        else:
            _print_caption(description, stdout)


_PROPOSE_EXAMPLES = """\b
Examples:
  npc-local propose "two red circles" --image image.png --reason "there are three circles"
  npc-local propose "two red circles" --image image.png --count 3 --json
  npc-local propose "two red circles" --set profiles.shapes.proposals=prompt-only
"""


@click.command(epilog=_PROPOSE_EXAMPLES)
@click.argument("prompt", metavar="PROMPT")
@click.option("--caption", "words", metavar="TEXT", help="What the image shows.")
@click.option(
    "--image",
    metavar="IMAGE",
    callback=options.local,
    help="An image for the captioner to describe first.",
)
@click.option("--reason", metavar="TEXT", help="Why the image fails.  [default: unnamed]")
@options.count(
    "--count",
    "Negative prompts to propose.  [default: the profile's candidates]",
    most=50,
    metavar="K",
    also="--candidates",
)
@options.profile
@options.config
@options.overrides
@options.as_json()
def propose(
    prompt: str,
    words: str | None,
    image: str | None,
    reason: str | None,
    count: int | None,
    profile: str | None,
    config: Path | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Propose negative prompts for an image of PROMPT that came out wrong.

    What the image shows comes from --caption, or from the captioner with --image. A profile with
    proposals = "prompt-only" takes neither.
    """
    from npc_local.core.errors import ConfigError
    from npc_local.core.prompts import check_prompt
    from npc_local.core.records import Caption
    from npc_local.core.terminal import libraries_quiet
    from npc_local.core.threads import run_interruptibly

    chosen, checked = _profile(profile, config, overrides), check_prompt(prompt)
    tell_markup([checked])
    given = [
        name
        for name, value in (("--caption", words), ("--image", image), ("--reason", reason))
        if value is not None
    ]
    if chosen.proposals == "prompt-only":
        if given:
            raise ConfigError(
                f"{', '.join(given)}: profile {chosen.name!r} proposes from the prompt alone "
                '(proposals = "prompt-only")'
            )
    elif (words is None) == (image is None):
        raise ConfigError("give either --caption TEXT or --image IMAGE")
    if words is not None and not words.strip():
        raise ConfigError("--caption: empty; say what the image shows")
    seen = None if words is None else Caption(words.strip())
    picture = None if image is None else _open_image(image)
    why = reason.strip() if reason and reason.strip() else _UNNAMED_REASON
    with libraries_quiet() as stdout:
        shown, proposal = run_interruptibly(
            _propose(chosen, checked, seen, picture, why, count or chosen.candidates)
        )
        if as_json:
            data = {
                "prompt": checked,
                "caption": None if shown is None else shown.text,
                "reason": None if shown is None else why,
            }
            _print_json(data | _proposal_data(proposal), stdout)
        else:
            if picture is not None and shown is not None:
                _print_caption(shown, stdout)
                print(file=stdout)
            _print_proposal(proposal, stdout)


# ---------------------------------------------------------------- the work


async def _verify(profile: ResolvedProfile, prompt: str, picture: Image) -> Verdict:
    from npc_local import agents as roles

    rules = roles.Rules(profile.strictness, profile.votes, profile.proposals)
    async with _agent(profile, "verifier") as agent:
        claims = await roles.checklist(agent, prompt)
        return await roles.verify(agent, prompt, claims, picture, rules)


async def _describe(profile: ResolvedProfile, picture: Image) -> Caption:
    from npc_local import agents as roles

    async with _agent(profile, "captioner") as agent:
        return await roles.describe(agent, picture)


async def _propose(
    profile: ResolvedProfile,
    prompt: str,
    seen: Caption | None,
    picture: Image | None,
    reason: str,
    count: int,
) -> tuple[Caption | None, Proposal]:
    from npc_local import agents as roles

    # One model for both is opened once; two are open one after the other, to share the memory.
    shared = picture is not None and profile.captioner == profile.proposer
    if picture is not None and not shared:
        seen = await _describe(profile, picture)
    async with _agent(profile, "captioner" if shared else "proposer") as agent:
        if picture is not None and shared:
            seen = await roles.describe(agent, picture)
        proposal = await roles.propose(agent, prompt, seen, reason, count, profile.proposals)
    return seen, proposal


@asynccontextmanager
async def _agent(
    profile: ResolvedProfile, role: Literal["verifier", "captioner", "proposer"]
) -> AsyncIterator[Backend]:
    """Open the backend of one role, and nothing else."""
    from npc_local.core.terminal import error_console, plain
    from npc_local.run.factory import open_agent

    name: str = getattr(profile, role)
    settings, sees = profile.backends[name], role != "proposer"

    def on_status(line: str) -> None:
        error_console().print(plain(line), soft_wrap=True)

    async with open_agent(name, settings, sees=sees, on_status=on_status) as backend:
        yield backend


def _profile(name: str | None, config: Path | None, overrides: tuple[str, ...]) -> ResolvedProfile:
    from npc_local.core.config.load import load_config
    from npc_local.core.offline.switches import go_offline

    go_offline()
    return load_config(config, overrides).profile(name)


def _open_image(name: str) -> Image:
    """Read an image file into RGB, upright, on white where it is transparent.

    Raises:
        ConfigError: it is no local file, or no image that can be read.
    """
    from npc_local.core.errors import ConfigError
    from npc_local.core.files.images import open_image

    if "://" in name:
        raise ConfigError(f"{name}: an address; name an image file on this machine")
    return open_image(Path(name))


# ---------------------------------------------------------------- the output


def _caption_data(caption: Caption) -> dict[str, Any]:
    return {
        "caption": caption.text,
        "words": len(caption.text.split()),
        "flags": list(caption.flags),
    }


def _proposal_data(proposal: Proposal) -> dict[str, Any]:
    return {
        "negatives": [
            {"negative": negative.text, "kind": negative.kind, "fallback": negative.fallback}
            for negative in proposal.negatives
        ],
        "rejected": [
            {"negative": refusal.text, "reason": refusal.reason} for refusal in proposal.rejected
        ],
    }


def _print_json(data: Mapping[str, Any], stdout: TextIO) -> None:
    print(json.dumps(data), file=stdout)


def _print_verdict(verdict: Verdict, stdout: TextIO) -> None:
    from npc_local.core.terminal import plain

    held = sum(claim.holds for claim in verdict.claims)
    outcome = "correct" if verdict.correct else "not correct"
    print(f"{outcome}: {held} of {len(verdict.claims)} claims hold", file=stdout)
    for claim in verdict.claims:
        sign = "yes" if claim.holds else "no"
        print(f"  {sign:<4}{claim.kind:<9} {plain(claim.text)}", file=stdout)
    if verdict.reason:
        print(f"reason: {plain(verdict.reason)}", file=stdout)


def _print_caption(caption: Caption, stdout: TextIO) -> None:
    from npc_local.core.terminal import plain

    print(plain(caption.text), file=stdout)
    for flag in caption.flags:
        print(f"! {plain(flag)}", file=stdout)


def _print_proposal(proposal: Proposal, stdout: TextIO) -> None:
    from npc_local.core.terminal import plain

    for negative in proposal.negatives:
        note = "  (from the fallback list)" if negative.fallback else ""
        print(f"{negative.kind:<11} {plain(negative.text)}{note}", file=stdout)
    if not proposal.negatives:
        print("nothing to propose", file=stdout)
    for refusal in proposal.rejected:
        said = f"{plain(refusal.text)}: " if refusal.text else ""
        print(f"rejected    {said}{plain(refusal.reason)}", file=stdout)
