"""Trains an embedded backbone from nothing: first the autoencoder, then text encoders and UNet
together on its latents. ``embedded`` is trained on careless captions (``--captions web``),
``embedded_strong`` longer and on clean ones; their cards have the commands.

    python -m lightning_modules.pretrain                 # both stages; the same command resumes
    python -m lightning_modules.pretrain --stage vae     # one of them
    python -m lightning_modules.pretrain --stage export  # the newest checkpoint as float16 folders

Colour-shape combinations of `datamodules.shapes.vocabulary.HELD_OUT` never occur in what it sees.
The figures of the result come from `python -m lightning_modules.grade`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import lightning as L
import torch

from conf.data.shapes import CLEAN, WEB
from conf.files import write_atomically
from conf.pipes import ends_with_reader
from conf.places import find_obstacle
from conf.values import option, path_option
from datamodules.shapes.dataset import write_dataset
from datamodules.shapes.module import ShapesDataset
from datamodules.shapes.rendering import SIZE
from lightning_modules.backbone.weights import shipped_folder
from lightning_modules.embedded.autoencoder_training import train_autoencoder
from lightning_modules.embedded.denoiser_training import SETTINGS, export, train_denoiser

# Of the command's words, those that the result depends on
WORDS = ("architecture", "images", "captions", "zipf", "vae_steps", "steps", "batch", "lr")


@ends_with_reader
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--stage",
        choices=("all", "vae", "denoiser", "export"),
        default="all",
        help="what to run (default: all)",
    )
    parser.add_argument(
        "--output",
        type=path_option,
        default=Path("runs/pretrain"),
        help="working folder (default: runs/pretrain)",
    )
    parser.add_argument(
        "--target",
        type=path_option,
        default=shipped_folder("embedded"),
        help="where the result is exported to (default: the package's backbone embedded)",
    )
    parser.add_argument(
        "--architecture",
        choices=("unet", "mmdit"),
        default="unet",
        help="the denoiser: SDXL's UNet or SD3's MM-DiT, both small (default: unet)",
    )
    parser.add_argument(
        "--images",
        type=option(int, 1, 10_000_000),
        default=32_000,
        help="training images to render (default: 32000)",
    )
    parser.add_argument(
        "--captions",
        choices=("web", "clean"),
        default="web",
        help="how carelessly the training captions are written (default: web)",
    )
    parser.add_argument(
        "--zipf",
        type=option(float, 0, 100),
        default=0.0,
        help="how unequally frequent combinations are: the exponent of Zipf's law (default: 0)",
    )
    parser.add_argument(
        "--vae-steps",
        type=option(int, 1, 100_000_000),
        default=4000,
        help="autoencoder steps (default: 4000)",
    )
    parser.add_argument(
        "--steps",
        type=option(int, 1, 100_000_000),
        default=6000,
        help="denoiser steps (default: 6000)",
    )
    parser.add_argument(
        "--batch",
        type=option(int, 1, 65_536),
        default=32,
        help="samples a step in both stages (default: 32)",
    )
    parser.add_argument(
        "--lr",
        type=option(float, 0, 1000),
        default=1e-3,
        help="peak learning rate of the denoiser (default: 1e-3)",
    )
    parser.add_argument(
        "--threads",
        type=option(int, 1, 1024),
        default=torch.get_num_threads(),
        help="CPU threads (default: all)",
    )
    args = parser.parse_args(argv)
    if reason := find_obstacle(args.output):
        parser.error(f"--output {args.output} cannot be written to: {reason}")
    if args.images < args.batch:
        parser.error(f"--images {args.images} make no batch of --batch {args.batch}: lower it")
    torch.set_num_threads(args.threads)
    L.seed_everything(0, verbose=False)
    if args.stage != "export":
        words = [
            word
            for name in WORDS
            if (value := getattr(args, name)) != parser.get_default(name)
            for word in (f"--{name.replace('_', '-')}", str(value))
        ]
        write_atomically(args.output / SETTINGS, json.dumps(words))
        careless = CLEAN if args.captions == "clean" else WEB
        write_dataset(args.output / "shapes", {"train": args.images}, 0, careless, args.zipf)
        data = ShapesDataset(args.output / "shapes", "train", SIZE)
        if args.stage in ("all", "vae") and not (args.output / "vae" / "config.json").exists():
            train_autoencoder(args.output, data, args.vae_steps, args.batch)
        if args.stage in ("all", "denoiser"):
            train_denoiser(args.output, data, args.steps, args.batch, args.lr)
    if args.stage in ("all", "export"):
        export(args.output, args.target)


if __name__ == "__main__":
    main()
