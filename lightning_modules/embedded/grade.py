"""What a backbone can compose: the judge's figures for each skill of the embedded world.

    python -m lightning_modules.grade                       # prints the table of `embedded`
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
from conf.files import read_json, write_atomically
from conf.pipes import ends_with_reader
from conf.values import option, path_option
from lightning_modules.metrics.correction import CorrectedShare, correct_share

if TYPE_CHECKING:
    from lightning_modules.backbone.backbone import Backbone

# Row of the table -> split of the prompts
GROUPS = {
    "one object": "one",
    "two objects": "two",
    "two objects, held-out combinations": "heldout",
    "three objects": "three",
    "three objects, held-out combinations": "three_heldout",
    "four objects": "four",
    "five objects": "five",
    "equal objects": "counting",
    "related objects": "relation",
    "small and large objects": "size",
    "striped and dotted objects": "pattern",
    "objects of one shape": "similar",
}
SCENE_SEED = 77
GRADES = "grades"  # Rows of the table that are known, in the working folder


def draw_prompts(split: str, count: int, seed: int) -> list[str]:
    """The prompts of ``count`` fresh scenes."""
    from datamodules.shapes.captions import draw_prompt
    from datamodules.shapes.scenes import sample_scene

    scenes = [sample_scene(split, i, seed) for i in range(count)]
    return [draw_prompt(split, i, scene, seed).text for i, scene in enumerate(scenes)]


def grade(
    backbone: Backbone,
    images: int,
    steps: int,
    guidance: float,
    kept: Path | None = None,
    weights: str | None = None,
) -> dict[str, dict[str, float]]:
    """Group -> the judge's composition metrics with the graded ``score``, each on ``images``
    images; and, where the judge's errors are known, success corrected for them:
    ``corrected_share`` from ``corrected_low`` to ``corrected_high``.

    Each row is written into the file ``kept`` as soon as it is known, and one that lies there, of
    the same ``weights`` (their digest), images, steps and guidance, is taken from it.
    """
    from datamodules.shapes.rendering import SIZE
    from lightning_modules.backbone.sampling import sample
    from lightning_modules.embedded.judge import Judge
    from lightning_modules.embedded.judge_labels import read_error_rates
    from lightning_modules.embedded.targets import read_target
    from lightning_modules.metrics.detection import composition_rates, judge_image

    judge, errors = Judge.load(), read_error_rates()
    of = {"images": images, "steps": steps, "guidance": guidance, "weights": weights}
    known = (read_json(kept) if kept and kept.is_file() else None) or {}
    table: dict[str, dict[str, float]] = known["rows"] if known.get("of") == of else {}
    for k, (group, split) in enumerate(GROUPS.items()):
        if group in table:
            continue
        began = time.monotonic()
        prompts = draw_prompts(split, images, SCENE_SEED)
        targets = [read_target(prompt) for prompt in prompts]
        noises = [(k + 1) * 10_000_000 + i for i in range(images)]
        pictures = sample(backbone, prompts, noises, steps, guidance, SIZE)
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
        if kept:
            write_atomically(kept, json.dumps({"of": of, "rows": table}, indent=1) + "\n")
    # Errors of the judge may have been measured since
    for group, row in table.items():
        if errors is not None:
            corrected = correct_share((round(row["success"] * images), images), errors)
            table[group] = row | {f"corrected_{k}": v for k, v in corrected._asdict().items()}
    return {group: table[group] for group in GROUPS}


CARD = """# Backbone of the embedded world: {backbone}

SDXL's wiring at a size that trains on two CPU cores: two text encoders, pooled embedding and time
ids, `AutoencoderKL` (64 px to 16x16x8), UNet with cross-attention at 16x16 and 8x8, v-prediction.
Weights are float16 safetensors, averaged over training. Trained on {rendered} rendered images
alone, with captions as careless as these rates say; 12 of the 48 colour-shape combinations never
occurred.

{rates}

Made by

    python -m lightning_modules.pretrain{arguments}
    python -m lightning_modules.grade --backbone {backbone} --images {images} --card runs/pretrain

on {hardware}, {date}: autoencoder {vae_steps} steps in {vae_time}, text encoders
and UNet {denoiser_steps} steps in {denoiser_time}.

The judge's figures on {images} images a row ({steps} sampler steps, guidance {guidance}). Success:
every object that the prompt names is there in its colour and shape. Corrected: success, corrected
for how often the judge is wrong by the labels of its card, with its 95 % interval. Score: the
judge's probability of the least sure wanted object, averaged over images. Relation: both objects
are there and stand as the prompt says. Placed: the same among images with success; at random it
would be 0.25. Size, pattern: every object with a word for it is there in it. Number: of equal
objects there are so many, no more. Extra: objects an image that nobody asked for.

{table}

Denoising loss (mean over the 100 steps before each point):

| step | loss |
|---|---|
{curve}
"""
COLUMNS = {
    "success": "success",
    "score": "score",
    "object_rate": "objects",
    "color_rate": "colours",
    "shape_rate": "shapes",
    "relation_rate": "relation",
    "relation_given_success": "placed",
    "size_rate": "size",
    "pattern_rate": "pattern",
    "count_rate": "number",
}


def read_curves(work: Path) -> dict[str, list[dict[str, Any]]]:
    """Stage -> points of its loss curve, in the working folder of a pretraining. Raises ValueError
    where there are none."""
    curves = {}
    for stage in ("vae", "denoiser"):
        file = work / f"{stage}_training" / "loss.json"
        if not file.is_file():
            raise ValueError(
                f"{work} has no {stage}_training/loss.json; expected the working folder of a "
                "pretraining, its --output"
            )
        curves[stage] = json.loads(file.read_text())
    return curves


def describe_time(curve: list[dict[str, Any]]) -> str:
    """How long a stage took: CPU minutes, or minutes where some points do not know them."""
    if not all("cpu_seconds" in point for point in curve):
        return show_count(round(sum(point["seconds"] for point in curve) / 60), "minute")
    return show_count(round(sum(point["cpu_seconds"] for point in curve) / 60), "CPU minute")


def write_card(
    folder: Path, work: Path, table: dict[str, dict[str, float]], facts: dict[str, Any]
) -> None:
    """``README.md`` of the asset folder: how it was trained (from the working folder) and what it
    can do (from ``table``). The sections behind that, of what people saw, are kept."""
    from lightning_modules.embedded.denoiser_training import SETTINGS

    curves = read_curves(work)
    numbers = {}
    for stage, curve in curves.items():
        numbers[f"{stage}_steps"] = curve[-1]["step"]
        numbers[f"{stage}_time"] = describe_time(curve)
    head = ["prompts", *COLUMNS.values(), "extra", "corrected"]
    rows = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for group, row in table.items():
        cells = [f"{row[key]:.3f}" if key in row else "-" for key in COLUMNS]
        corrected = "-"
        if "corrected_share" in row:
            share, low, high = (row[f"corrected_{key}"] for key in CorrectedShare._fields)
            corrected = f"{share:.3f} ({low:.3f} to {high:.3f})"
        rows.append(f"| {group} | {' | '.join(cells)} | {row['extra_objects']:.2f} | {corrected} |")
    points = curves["denoiser"][:: max(len(curves["denoiser"]) // 12, 1)]
    if points[-1] is not curves["denoiser"][-1]:
        points.append(curves["denoiser"][-1])
    losses = [f"| {point['step']} | {point['loss']:.4f} |" for point in points]
    made = json.loads((work / "shapes" / "annotations" / "made_train.json").read_text())
    rates = [f"{name.replace('_', ' ')} {rate:g}" for name, rate in made["careless"].items()]
    text = CARD.format(
        **facts,
        **numbers,
        arguments="".join(f" {word}" for word in read_json(work / SETTINGS) or []),
        rendered=made["count"],
        rates=", ".join([*rates, f"exponent of Zipf's law {made['zipf']:g}"]),
        table="\n".join(rows),
        curve="\n".join(losses),
    )
    card = folder / "README.md"
    _, heading, rest = card.read_text().partition("\n## ") if card.exists() else ("", "", "")
    write_atomically(card, text + heading + rest)


def add_options(parser: argparse.ArgumentParser, images: int, most: int, which: str) -> None:
    """What is drawn, and how: the backbone, by default ``images`` images and at ``most`` so many
    (``which`` says of what), sampler steps and guidance."""
    parser.add_argument(
        "--backbone",
        default="embedded",
        help="embedded, embedded_strong or a diffusers folder (default: embedded)",
    )
    parser.add_argument(
        "--images",
        type=option(int, 1, most),
        default=images,
        help=f"images {which} (default: {images})",
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


@ends_with_reader
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser, 512, 10_000_000, "in each row")
    parser.add_argument(
        "--card",
        type=path_option,
        help="working folder of the pretraining; writes README.md into the backbone's folder",
    )
    args = parser.parse_args(argv)

    from lightning_modules.backbone.backbone import Backbone
    from lightning_modules.backbone.weights import shipped_folder, weights_digest
    from lightning_modules.tracking.mlflow import provenance

    if args.card:
        try:
            read_curves(args.card)
        except ValueError as error:
            parser.error(str(error))
    backbone = Backbone.load(args.backbone)
    kept = args.card and args.card / f"{GRADES}_{args.backbone.strip('/').replace('/', '_')}.json"
    weights = weights_digest(args.backbone)
    table = grade(backbone, args.images, args.steps, args.guidance, kept, weights)
    if args.card:
        facts = {
            **vars(args),
            "hardware": provenance()["hardware"],
            "date": time.strftime("%Y-%m-%d"),
        }
        folder = shipped_folder(args.backbone) or Path(args.backbone)
        write_card(folder, args.card, table, facts)
        print(folder / "README.md")


if __name__ == "__main__":
    main()
