"""What a backbone can compose: the judge's figures for one, two and three objects and for held-out
combinations.

    python -m lightning_modules.grade                       # prints the shipped backbone's table
    python -m lightning_modules.grade --card runs/pretrain  # writes it into the card

Prompts are captions of fresh scenes (a seed that no dataset uses); every image has a noise seed of
its own.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf.describe import show_count
from conf.pipes import ends_with_reader
from conf.values import option

if TYPE_CHECKING:
    from lightning_modules.backbone.backbone import Backbone

GROUPS = {
    "one object": ("val", 1),
    "two objects": ("val", 2),
    "three objects": ("val", 3),
    "two objects, held-out combinations": ("heldout", None),
}
SCENE_SEED = 77


def grade(
    backbone: Backbone, images: int, steps: int, guidance: float
) -> dict[str, dict[str, float]]:
    """Group -> the judge's composition metrics with the graded ``score``, each on ``images``
    images."""
    from datamodules.shapes.world import SIZE, sample_scene
    from lightning_modules.backbone.sampling import sample
    from lightning_modules.embedded.judge import Judge
    from lightning_modules.metrics.detection import Target, composition_rates, judge_image

    judge, table = Judge.load(), {}
    for k, (group, (split, count)) in enumerate(GROUPS.items()):
        began = time.monotonic()
        scenes = [sample_scene(split, i, SCENE_SEED, count) for i in range(images)]
        captions = [scene.captions()[0] for scene in scenes]
        targets = [
            Target([(t.color, t.shape) for t in s.things], c[1])
            for s, c in zip(scenes, captions, strict=True)
        ]
        noises = [(k + 1) * 10_000_000 + i for i in range(images)]
        pictures = sample(backbone, [text for text, _ in captions], noises, steps, guidance, SIZE)
        detections = judge.detect(pictures)
        verdicts = [judge_image(*pair) for pair in zip(detections, targets, strict=True)]
        table[group] = {
            **composition_rates(verdicts),
            "score": float(judge.target_scores(pictures, targets).mean()),
        }
        print(
            (
                f"{group}: success {table[group]['success']:.3f} on {show_count(images, 'image')}, "
                f"{time.monotonic() - began:.0f} s"
            ),
            flush=True,
        )
    return table


CARD = """# The embedded backbone

SDXL's wiring at a size that trains on two CPU cores: two text encoders, pooled embedding and time
ids, `AutoencoderKL` (64 px to 16x16x4), UNet with cross-attention at 16x16 and 8x8, v-prediction.
Weights are float16 safetensors, averaged over training. Trained on rendered shapes alone; 12 of the
48 colour-shape combinations never occurred. Made by

    python -m lightning_modules.pretrain {arguments}
    python -m lightning_modules.grade --card runs/pretrain

on {hardware}, {date}, beside other work on the machine: autoencoder {vae_steps} steps in
{vae_minutes:.0f} min, text encoders and UNet {denoiser_steps} steps in {denoiser_minutes:.0f} min.

The judge's figures on {images} images a row ({steps} sampler steps, guidance {guidance}). Success:
every object that the prompt names is there in its colour and shape. Score: the judge's probability
of the least sure wanted object, averaged over images. Relation: both objects are there and stand as
the prompt says.

| prompts | success | score | objects | colours | shapes | relation | extra objects an image |
|---|---|---|---|---|---|---|---|
{table}

Denoising loss (mean over the 100 steps before each point):

| step | loss |
|---|---|
{curve}
"""
COLUMNS = ("success", "score", "object_rate", "color_rate", "shape_rate", "relation_rate")


def write_card(
    folder: Path, work: Path, table: dict[str, dict[str, float]], facts: dict[str, Any]
) -> None:
    """``README.md`` of the asset folder: how it was trained (from the working folder) and what it
    can do (from ``table``)."""
    curves, numbers = {}, {}
    for stage in ("vae", "denoiser"):
        curve = json.loads((work / f"{stage}_training" / "loss.json").read_text())
        curves[stage] = curve
        numbers[f"{stage}_steps"] = curve[-1]["step"]
        numbers[f"{stage}_minutes"] = sum(point["seconds"] for point in curve) / 60
    rows = []
    for group, row in table.items():
        cells = [f"{row[key]:.3f}" if key in row else "-" for key in COLUMNS]
        rows.append(f"| {group} | {' | '.join(cells)} | {row['extra_objects']:.2f} |")
    points = curves["denoiser"][:: max(len(curves["denoiser"]) // 12, 1)]
    if points[-1] is not curves["denoiser"][-1]:
        points.append(curves["denoiser"][-1])
    losses = [f"| {point['step']} | {point['loss']:.4f} |" for point in points]
    text = CARD.format(**facts, **numbers, table="\n".join(rows), curve="\n".join(losses))
    (folder / "README.md").write_text(text)


@ends_with_reader
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--backbone",
        default="embedded",
        help="'embedded' or a diffusers folder (default: embedded)",
    )
    parser.add_argument(
        "--images",
        type=option(int, 1, 10_000_000),
        default=512,
        help="images in each row (default: 512)",
    )
    parser.add_argument(
        "--steps", type=option(int, 1, 100_000_000), default=8, help="sampler steps (default: 8)"
    )
    parser.add_argument(
        "--guidance",
        type=option(float, 0, 1000),
        default=3.0,
        help="classifier-free guidance (default: 3)",
    )
    parser.add_argument(
        "--card",
        type=Path,
        help="working folder of the pretraining; writes README.md into the assets",
    )
    parser.add_argument(
        "--arguments", default="", help="arguments that pretrain was called with, for the card"
    )
    args = parser.parse_args(argv)

    from lightning_modules.backbone.backbone import Backbone
    from lightning_modules.backbone.weights import EMBEDDED
    from lightning_modules.tracking.mlflow import provenance

    table = grade(Backbone.load(args.backbone), args.images, args.steps, args.guidance)
    if args.card:
        facts = {
            **vars(args),
            "hardware": provenance()["hardware"],
            "date": time.strftime("%Y-%m-%d"),
        }
        write_card(EMBEDDED, args.card, table, facts)
        print(EMBEDDED / "README.md")


if __name__ == "__main__":
    main()
