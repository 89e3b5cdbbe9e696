"""`python -m npc_local.shapes.train`: remakes the embedded generator, stage by stage."""

from __future__ import annotations

import os
from pathlib import Path

import click
import torch
from diffusers import AutoencoderTiny

from npc_local.shapes.train.autoencoder import latents, train_autoencoder
from npc_local.shapes.train.data import Corpus, make_corpus
from npc_local.shapes.train.denoiser import Flow, Latents, distil_guidance, pack, train_flow
from npc_local.shapes.train.export import export
from npc_local.shapes.train.samples import sheet
from npc_local.shapes.train.text import Tokenizers, spoken, train_text
from npc_local.shapes.train.tokens import clip_tokenizer, sentences, t5_tokenizer

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
@click.option("--steps", default=7_000, help="Of the denoiser.")
@click.option("--guidance-steps", default=1_000, help="Of guidance distillation.")
def main(
    work: Path,
    out: Path,
    seed: int,
    scenes: int,
    autoencoder_steps: int,
    text_steps: int,
    steps: int,
    guidance_steps: int,
) -> None:
    """Train the embedded generator of the shapes world from scratch, on the CPU.

    Takes about an hour and three quarters on two cores with the default settings.
    """
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    print("drawing scenes", flush=True)
    corpus = make_corpus(scenes, CAPTIONS, seed)
    lines = sentences(5_000, seed)
    tokenizers = Tokenizers(
        t5_tokenizer(lines, work / "tokenizer_2"), clip_tokenizer(lines, work / "tokenizer")
    )
    autoencoder = train_autoencoder(corpus, work, autoencoder_steps)
    text = train_text(corpus, tokenizers, work, text_steps)
    data = _latents(corpus, tokenizers, autoencoder, work)

    def show(flow: Flow, name: str, *, embedded: bool) -> float:
        return sheet(flow, autoencoder, work / f"{name}.png", scale=3.0, embedded=embedded)

    flow = train_flow(Flow(text), data, work, steps, lambda f, n: show(f, n, embedded=False))
    student = distil_guidance(flow, data, work, guidance_steps)
    print(f"right samples: {show(student, 'final', embedded=True):.3f}", flush=True)
    export(student, autoencoder, out)
    print(f"wrote {out}", flush=True)


def _latents(
    corpus: Corpus, tokenizers: Tokenizers, autoencoder: AutoencoderTiny, work: Path
) -> Latents:
    """Encode every scene and caption once; kept on disk for a run that goes on."""
    kept = work / "latents.pt"
    if not kept.exists():
        print("encoding scenes", flush=True)
        scaled = latents(autoencoder, corpus.images) * autoencoder.config.scaling_factor
        torch.save(pack(scaled).half(), kept.with_suffix(".tmp"))
        os.replace(kept.with_suffix(".tmp"), kept)
    t5, clip = tokenizers(spoken(corpus.captions))
    return Latents(torch.load(kept, weights_only=True), corpus.labels, t5, clip, CAPTIONS)


if __name__ == "__main__":
    main()
