"""`python -m npc_local.shapes.train`: remakes the embedded generator, stage by stage."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path

import click
import torch

from npc_local.shapes.train.autoencoder import Autoencoder, latents, train_autoencoder
from npc_local.shapes.train.curves import draw_curves
from npc_local.shapes.train.data import Corpus, make_corpus
from npc_local.shapes.train.denoiser import BATCH, Flow, Latents, distil_guidance, pack, train_flow
from npc_local.shapes.train.export import export
from npc_local.shapes.train.samples import sheet
from npc_local.shapes.train.text import spoken, train_text
from npc_local.shapes.train.tokens import Tokenizers, make_tokenizers

CAPTIONS = 6  # a scene


@click.command(context_settings={"show_default": True})
@click.option(
    "--work",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs/train-shapes"),
    help="Checkpoints, logs and sample sheets. The same command goes on where it stopped.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs/train-shapes/pipeline"),
    help="Where the finished FLUX pipeline directory goes.",
)
@click.option("--seed", default=0, help="Of everything random.")
@click.option("--scenes", default=60_000, help="Training scenes.")
@click.option("--autoencoder-steps", default=3_600)
@click.option("--text-steps", default=700)
@click.option("--steps", default=5_000, help="Of the denoiser.")
@click.option("--guidance-steps", default=400, help="Of guidance distillation.")
@click.option("--batch", default=BATCH, help="Scenes a step of the denoiser.")
@click.option("--samples", default=10, help="Prompts of each kind on a sample sheet.")
@click.option(
    "--compile/--no-compile",
    "compiled",
    default=True,
    help="Compile the denoiser: a slow start, then a third faster.",
)
def main(
    work: Path,
    out: Path,
    seed: int,
    scenes: int,
    autoencoder_steps: int,
    text_steps: int,
    steps: int,
    guidance_steps: int,
    batch: int,
    samples: int,
    compiled: bool,
) -> None:
    """Train the embedded generator of the shapes world from scratch, on the CPU.

    Takes about an hour and three quarters on two cores with the default settings.
    """
    work.mkdir(parents=True, exist_ok=True)
    _same_data(work / "data.json", {"seed": seed, "scenes": scenes})
    torch.manual_seed(seed)
    print("drawing scenes", flush=True)
    corpus = make_corpus(scenes, CAPTIONS, seed)
    tokenizers = make_tokenizers(work, seed)
    autoencoder = train_autoencoder(corpus, work, autoencoder_steps)
    text = train_text(corpus, tokenizers, work, text_steps)
    data = _latents(corpus, tokenizers, autoencoder, work / f"latents-{autoencoder_steps}.pt")

    def show(flow: Flow, name: str, *, embedded: bool = False) -> float:
        page = work / f"{name}.png"
        return sheet(flow, autoencoder, page, per_tag=samples, scale=3.0, embedded=embedded)

    flow = train_flow(Flow(text), data, work, steps, show, batch=batch, compiled=compiled)
    student = distil_guidance(flow, data, work, guidance_steps, batch=batch, compiled=compiled)
    print(f"right samples: {show(student, 'final', embedded=True):.3f}", flush=True)
    export(student, autoencoder, out)
    print(f"wrote {out}", flush=True)
    if find_spec("matplotlib"):
        draw_curves(work, work / "curves.png")


def _same_data(file: Path, settings: dict[str, int]) -> None:
    """Refuse to go on with other data than a run began with."""
    if file.exists():
        before = json.loads(file.read_text())
        if before != settings:
            given = ", ".join(f"--{name} {value}" for name, value in before.items())
            raise click.UsageError(f"{file.parent} was begun with {given}; give another --work")
    file.write_text(json.dumps(settings) + "\n")


def _latents(
    corpus: Corpus, tokenizers: Tokenizers, autoencoder: Autoencoder, file: Path
) -> Latents:
    """Encode every scene and caption once; scenes are file on disk for a run that goes on."""
    if not file.exists():
        print("encoding scenes", flush=True)
        scaled = latents(autoencoder, corpus.images) * autoencoder.config.scaling_factor
        torch.save(pack(scaled).half(), file.with_suffix(".tmp"))
        os.replace(file.with_suffix(".tmp"), file)
    t5, clip = tokenizers(spoken(corpus.captions))
    return Latents(torch.load(file, weights_only=True), corpus.labels, t5, clip, CAPTIONS)


if __name__ == "__main__":
    main()
