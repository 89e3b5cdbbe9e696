"""`python -m benchmarks salience`: what ranking costs, the authors' way and ours."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from benchmarks.options import as_json as as_json_option
from benchmarks.options import choice, count

if TYPE_CHECKING:
    from benchmarks.salience.measure import Results

_EXAMPLES = """\b
Examples:
  python -m benchmarks salience
  python -m benchmarks salience --size tiny --json
  python -m benchmarks salience --size xxl --device cuda --many 500
"""


@click.command(epilog=_EXAMPLES)
@choice(
    "--size",
    ["tiny", "large", "xxl"],
    "large",
    "T5-large's size, T5-XXL's (FLUX's and SD 3's, for a GPU), or one for a quick look.",
)
@count("--prompts", 3, "Prompts scored one after the other, by all ways.")
@count("--many", 100, "Prompts scored in one go, and compared in float32 and bfloat16.", least=2)
@count("--repeats", 5, "Timed rounds over the prompts; the authors' way gets one.")
@choice("--device", ["auto", "cpu", "cuda"], "auto", "Where to measure; auto: a GPU if any.")
@as_json_option
def salience(size: str, prompts: int, many: int, repeats: int, device: str, as_json: bool) -> None:
    """Time of the salience score, the authors' way and this project's, on the same weights.

    The authors' way encodes one text at a time and pads sentences to 512 tokens. T5 encoders with
    random weights, so no model files are needed; prompts with five negatives each, of about as many
    tokens as real ones. "cold" has seen no word before, "warm" all of them.
    """
    from benchmarks.salience.measure import measure
    from benchmarks.salience.random_t5 import cases, random_t5
    from npc_local.bench.gate.random_flux import choose_device
    from npc_local.core.offline.switches import go_offline
    from npc_local.core.terminal import error_console, libraries_quiet

    go_offline()
    with libraries_quiet() as stdout:
        place = choose_device(device)
        with error_console().status("making a model") as status:
            model = random_t5(size, place)
            results = measure(model, cases(prompts), cases(many), repeats, status.update)
    where = _machine(place)
    if as_json:
        print(json.dumps({"machine": where, "size": size} | asdict(results)), file=stdout)
    else:
        print(_report(size, results, where, prompts, repeats), end="", file=stdout)


def _machine(device: str) -> dict[str, Any]:
    import torch
    import transformers

    return {
        "name": torch.cuda.get_device_name() if device == "cuda" else "CPU",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _report(size: str, results: Results, where: dict[str, Any], prompts: int, repeats: int) -> str:
    """Return a table of the ways, and how far they agree."""
    from npc_local.bench.analysis.tables import table

    authors = results.ways[0].seconds
    rows = [
        [
            way.name,
            way.dtype,
            f"{way.tokens:.0f}",
            f"{way.passes:.1f}",
            f"{1000 * way.seconds:.1f}",
            f"{authors / way.seconds:.1f}",
            f"{way.operations / 1e9:.1f}",
            f"{way.read / 1e9:.2f}",
            f"{1000 * way.floor:.1f}",
            f"{way.seconds / way.floor:.1f}",
        ]
        for way in results.ways
    ]
    head = ["way", "dtype", "tokens", "passes", "ms a prompt", "faster"]
    head += ["GFLOP", "GB read", "floor, ms", "of floor"]
    exact, half = results.exact, results.bfloat16
    lines = [
        f"{where['name']}, threads: {where['threads']}, torch {where['torch']}, transformers "
        f"{where['transformers']}; T5 encoder of size {size}, {results.parameters / 1e6:.0f} M "
        f"parameters; {prompts} prompts, five negatives each, rounds: {repeats}.",
        "",
        *table(head, rows),
        "",
        "Released formula, ours against the authors' way in float32, "
        f"{results.exact_prompts} prompts: scores at most {exact.apart:.1e} apart, same ranking "
        f"{exact.same_ranking:.0%}.",
        f"bfloat16 against float32, {results.bfloat16_prompts} prompts: scores at most "
        f"{half.apart:.1e} apart, same ranking {half.same_ranking:.0%}, same first "
        f"{half.same_first:.0%}, pairs in the same order {half.pairs:.1%}.",
        *(
            f"All {results.bfloat16_prompts} prompts at once, {dtype}, no word seen before: "
            f"{minute:,.0f} prompts a minute."
            for dtype, minute in results.batched.items()
        ),
    ]
    return "\n".join(lines) + "\n"
