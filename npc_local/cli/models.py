"""`npc-local models`, and the page of the reference: which models take a negative, and how.

Everything comes from the registry that the gate itself reads (`generator.families`).
"""

from __future__ import annotations

import json
from typing import Any

import click

from npc_local.cli import options
from npc_local.generator.families import FAMILIES, REFUSED
from npc_local.generator.family import Family

_INTRODUCTION = """\
# Models

Made by `npc-local models --markdown`, from the registry that the code itself reads
([families.py](../../npc_local/generator/families.py)); a test keeps this page equal to it.

The negative prompt acts in the first denoising steps. Afterwards there is either no
classifier-free guidance (CFG) at all, `after = "off"`, or guidance against the model's own null
prompt, `after = "null"`. The default is what the model's makers sample with: "off" where their
images are made without CFG, "null" where they use it throughout.

`true_cfg_scale = 1.8` means the same for every family: s in n + s (p - n), with p the conditional
prediction and n the one that the negative (or null) prompt gives. Where a pipeline writes
p + s (p - n) instead, its own scale is one lower, and a generator gives it 0.8.

## Supported

"Two calls": a guided step asks the denoiser twice, and with "off" the second forward is really not
computed: steps + N forwards for N steps. "One batch": both at once, and with "off" the late
batches are half as large. The last column lists what not every family has: regional compilation,
diffusers' caches (in the late steps), LoRA. Offload, VAE tiling and quantisation are for all; an
attention backend, or anything else that diffusers would ignore for a model, is refused when the
model is loaded.
"""

_TESTED = """\
Tested for every family above (tests/generator/test_families.py), on a tiny random pipeline of the
real classes, for one image and for two with different prompts: the latents are bit-equal to the
family's sampling loop written out plainly in the test, for "off" and "null"; the denoiser forwards
are counted; no early step is the baseline, all early steps are the stock pipeline; CPU offload
hooks and, where listed, regional compilation change nothing; the generator makes the same image
from memory and from a saved directory (LongCat-Image and Qwen-Image-2.1 from memory only: their
processors need torchvision), alone or in company. **No real weights have been run**: whether
negatives help these models is unmeasured here.

Subclasses of these pipelines count as the same family. Others of a family (image to image,
inpainting, ControlNet) are not in the registry and are refused.
"""

_DISTILLED = """\
Distilled checkpoints of a supported family are refused too, because they are made to be sampled
without CFG. They are known by their configuration (`is_distilled`, `use_meanflow`,
`time_cond_proj_dim`, FLUX.1 with neither guidance embedding nor dynamic shifting, an LCM or TCD
scheduler) or by their name (turbo, schnell, lightning, lcm, hyper, distilled, sprint, dmd; for
HiDream-I1 dev and fast), LoRAs by their name. `allow_distilled = true` goes on all the same.

Every other pipeline class is refused as unknown. A family of your own needs a `Family` in
families.py and a case in tests/generator/families.
"""


@click.command(epilog="\b\nExamples:\n  npc-local models\n  npc-local models --json | jq .refused")
@click.option("--markdown", is_flag=True, help="Print the page docs/reference/models.md.")
@options.as_json()
def models(markdown: bool, as_json: bool) -> None:
    """List the models that can take a negative prompt, and those refused, with the reason."""
    if as_json:
        click.echo(json.dumps(as_data(), indent=2))
    elif markdown:
        click.echo(page(), nl=False)
    else:
        _show()


def page() -> str:
    """Return docs/reference/models.md."""
    supported = [_row(family) for family in FAMILIES]
    refused = [[f"`{name}`", why, instead] for name, (why, instead) in sorted(REFUSED.items())]
    notes = [f"- **{family.name}**: {family.notes}" for family in FAMILIES if family.notes]
    parts = [
        _INTRODUCTION,
        _table(["Model", "diffusers class", "Guides in", "Default", "Scale", "Null prompt", "Has"])
        + _lines(supported),
        "\n".join(notes) + "\n",
        _TESTED,
        "## Refused, and why\n",
        _table(["diffusers class", "Why", "Use instead"]) + _lines(refused),
        _DISTILLED,
    ]
    return "\n".join(parts)


def as_data() -> dict[str, Any]:
    """Return the registry as plain data."""
    return {
        "supported": [
            {
                "model": family.name,
                "pipeline": family.pipeline,
                "guides": family.guides,
                "after": family.after,
                "scale": family.scale,
                "scale_off": family.scale_off,
                "null": family.null,
                "compiles": family.compiles,
                "caches": family.caches,
                "loras": family.loras,
                "notes": family.notes,
            }
            for family in FAMILIES
        ],
        "refused": [
            {"pipeline": name, "why": why, "instead": instead}
            for name, (why, instead) in sorted(REFUSED.items())
        ],
    }


def _show() -> None:
    """Print both lists for a terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    for title, header, rows in (
        (
            "Can take a negative prompt",
            ("Model", "diffusers class", "Default"),
            [(family.name, family.pipeline, family.after) for family in FAMILIES],
        ),
        (
            "Refused",
            ("diffusers class", "Why", "Use instead"),
            [(name, *reasons) for name, reasons in sorted(REFUSED.items())],
        ),
    ):
        table = Table(*header, title=title, title_justify="left", box=None, pad_edge=False)
        for row in rows:
            table.add_row(*row)
        console.print(table)
        console.print()


def _row(family: Family) -> list[str]:
    """Return one family's cells."""
    scale = "`pipe.guider.guidance_scale`" if family.scale == "guider" else f"`{family.scale}`"
    if family.scale_off == 0:
        scale += ", one lower"
    null = "its own (no text given)" if family.null is None else f'`"{family.null}"`'
    has = {"compile": family.compiles, "cache": family.caches, "LoRA": family.loras}
    return [
        family.name,
        f"`{family.pipeline}`",
        family.guides,
        f"`{family.after}`",
        scale,
        null,
        ", ".join(name for name, there in has.items() if there),
    ]


def _table(header: list[str]) -> str:
    return _lines([header, ["-"] * len(header)])


def _lines(rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
