"""Trains the judge of the embedded world on fresh renders, measures it, and writes weights, config
and card.

One core is enough:   OMP_NUM_THREADS=1 python -m lightning_modules.metrics.train_judge Another
place:        python -m lightning_modules.metrics.train_judge --output runs/judge --steps 3000 Card
of what is there: python -m lightning_modules.metrics.train_judge --measure-only

An interrupted training goes on from its last checkpoint (every hundred steps, below
<output>/.training) when the command is run again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from datamodules.shapes.world import Scene, Thing
    from lightning_modules.embedded.judge import Judge

SHIPPED = Path(__file__).resolve().parent / "assets" / "judge"
NEAR = 3.0  # pixels by which a found centre may be off
SEEN_WITH_EYES = "## Errors, looked at"  # this section of the card is written by hand and kept


def exact(judge: Judge, images: torch.Tensor, scenes: list[Scene]) -> list[bool]:
    """Per image: the detected (color, shape) are those of the scene, no more and no fewer, and
    every centre is within ``NEAR`` pixels."""
    result = []
    for detections, scene in zip(judge.detect(images), scenes, strict=True):
        free = list(detections)
        for thing in scene.things:
            hit = next(
                (
                    d
                    for d in free
                    if (d.color, d.label) == (thing.color, thing.shape) and _near(d.centre, thing)
                ),
                None,
            )
            if hit is None:
                break
            free.remove(hit)
        result.append(len(detections) == len(scene.things) and not free)
    return result


def _near(centre: tuple[float, float], thing: Thing) -> bool:
    return (centre[0] - thing.x) ** 2 + (centre[1] - thing.y) ** 2 <= NEAR**2


def measure(judge: Judge, count: int) -> dict[str, dict[str, float]]:
    """Share of exact answers on ``count`` fresh renders of each kind: {damage: {kind: share}}."""
    from lightning_modules.embedded.judge_data import damages, fresh_scenes, to_images

    table: dict[str, dict[str, float]] = {}
    for heldout in (False, True):
        for objects in (1, 2, 3):
            scenes = fresh_scenes(count, objects, heldout)
            images = to_images(scenes)
            kind = f"{objects} {'held-out' if heldout else 'seen'}"
            for name, damage in damages().items():
                table.setdefault(name, {})[kind] = sum(exact(judge, damage(images), scenes)) / count
    return table


def standardise(judge: Judge, count: int = 2000) -> None:
    """Measures mean and standard deviation of the features on clean renders of every kind."""
    import torch

    from lightning_modules.embedded.judge_data import TRAIN_SEED, fresh_scenes, to_images

    kinds = [(objects, heldout) for objects in (1, 2, 3) for heldout in (False, True)]
    scenes = [
        s
        for objects, heldout in kinds
        for s in fresh_scenes(count // len(kinds), objects, heldout, TRAIN_SEED)
    ]
    raw = torch.cat([judge.raw_features(part) for part in to_images(scenes).split(256)])
    judge.feature_mean.copy_(raw.mean(0))
    judge.feature_sd.copy_(raw.std(0).clamp(min=1e-3))


def write_card(folder: Path, facts: dict, table: dict[str, dict[str, float]], count: int) -> None:
    """README.md of the asset: what it is, how it was made, and how often it is right."""
    card = folder / "README.md"
    kept = ""
    if card.exists() and SEEN_WITH_EYES in card.read_text():
        kept = "\n" + SEEN_WITH_EYES + card.read_text().split(SEEN_WITH_EYES, 1)[1]
    lines = [
        "# Judge of the embedded world",
        "",
        (
            "A centre-point detector for 64-pixel scenes of coloured shapes: which shape, "
            "which colour, where. Its features serve FID and"
        ),
        "precision / recall of the embedded world; they say nothing about photographs.",
        "",
        f"- made by: `{facts['command']}`",
        f"- {facts['parameters']:,} parameters, stored as float16; {facts['steps']} steps of {facts['batch']} images, "
        f"{facts['seconds']:.0f} s on {facts['threads']} CPU thread{'s' * (facts['threads'] > 1)}",
        f"- trained on {facts['pool']} renders of all {facts['combinations']} combinations (half of them spoilt on purpose), "
        "freshly augmented at each step",
        f"- loss of the last batch {facts['loss']:.3f}",
        "",
        (
            "Share of exact answers (every colour-shape pair found, none too many, every "
            f"centre within {NEAR:g} pixels) on {count} fresh"
        ),
        (
            "renders per entry: scenes of 1 to 3 objects, all of seen combinations or with "
            "a held-out one. Rows: damage done to the image"
        ),
        (
            "(Gaussian blur and noise by their sigma in pixels and in grey levels of 255; "
            "lost resolution by the side in between, of 64)."
        ),
        "",
        "| damage | " + " | ".join(next(iter(table.values()))) + " |",
        "|---|" + "---|" * len(next(iter(table.values()))),
        *(
            "| " + damage + " | " + " | ".join(f"{share:.4f}" for share in row.values()) + " |"
            for damage, row in table.items()
        ),
        "",
    ]
    card.write_text("\n".join(lines) + kept)


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=("python -m lightning_modules.metrics.train_judge"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=SHIPPED,
        help=("folder for weights, config and card (default: the shipped asset)"),
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=2000,
        help=("optimiser steps, rounded up to hundreds (default: %(default)s)"),
    )
    parser.add_argument(
        "--batch", type=int, default=64, help="images per step (default: %(default)s)"
    )
    parser.add_argument(
        "--lr", type=float, default=4e-3, help="peak learning rate (default: %(default)s)"
    )
    parser.add_argument(
        "--pool",
        type=int,
        default=32000,
        help=("rendered images kept in memory, 12 kB each (default: %(default)s)"),
    )
    parser.add_argument(
        "--seed", type=int, default=0, help=("seed of weights and batches (default: %(default)s)")
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    parser.add_argument(
        "--measure",
        type=int,
        default=700,
        help=("fresh renders per line of the card (default: %(default)s)"),
    )
    parser.add_argument(
        "--measure-only",
        action="store_true",
        help=("train nothing, measure the judge in --output and renew its card"),
    )
    return parser.parse_args(argv)


def main(argv: list[str]) -> None:
    args = arguments(argv)
    import torch

    from lightning_modules.embedded.judge import Judge

    torch.set_num_threads(args.threads)
    facts_file = args.output / "training.json"
    if args.measure_only:
        facts = json.loads(facts_file.read_text())
    else:
        from lightning_modules.embedded.judge_training import train

        start = time.perf_counter()
        judge, loss = train(args)
        standardise(judge)
        judge.save(args.output)
        facts = {
            "command": " ".join(["python -m lightning_modules.metrics.train_judge", *argv]),
            "parameters": sum(p.numel() for p in judge.parameters()),
            **{
                key: getattr(args, key)
                for key in ("steps", "batch", "lr", "pool", "seed", "threads")
            },
            "combinations": 48,
            "seconds": round(time.perf_counter() - start, 1),
            "loss": loss,
        }
        facts_file.write_text(json.dumps(facts, indent=2) + "\n")
        shutil.rmtree(args.output / ".training", ignore_errors=True)
    table = measure(Judge.load(args.output), args.measure)
    write_card(args.output, facts, table, args.measure)
    print((args.output / "README.md").read_text())


if __name__ == "__main__":
    main(sys.argv[1:])
