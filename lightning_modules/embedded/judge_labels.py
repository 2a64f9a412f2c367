"""How often the judges are wrong about generated images, by labels made by looking.

    python -m lightning_modules.embedded.judge_labels draw runs/labels   # images, and a table
    python -m lightning_modules.embedded.judge_labels read runs/labels   # once that is filled in

``draw`` writes sheets of numbered images with their prompts, and ``labels.csv`` with an empty
column ``label``. Look at the sheets and write there ``right`` where every object that
the prompt names is there in its colour and shape, else ``wrong``; size, pattern and place do not
count. What the judges say lies apart, in ``verdicts.csv``, and is not to be looked at before.
``read`` puts both together into the asset's ``labels.csv`` and the error rates into the judges'
cards.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from conf.describe import show_count
from conf.files import write_atomically
from conf.pipes import ends_with_reader
from conf.values import path_option
from lightning_modules.embedded.grade import add_options
from lightning_modules.metrics.correction import ErrorRates

if TYPE_CHECKING:
    from lightning_modules.backbone.backbone import Backbone

SCENE_SEED = 78  # No data set and no card has its prompts
NOISES = 900_000_000
COLUMNS, SHEET = 6, 24  # Images beside each other, and on a sheet
RIGHT, WRONG = "right", "wrong"
FIELDS = ("number", "prompt", "seed", "label")
SECTION = "## Errors on generated images"
LEAST = 200  # Labels that rates are taken from

Row = Mapping[str, str]


def draw(backbone: Backbone, folder: Path, images: int, steps: int, guidance: float) -> None:
    """``images`` for each group of prompts of `grade`: sheets, the table to fill in, and what each
    judge says."""
    from datamodules import contact_sheet
    from datamodules.shapes.rendering import SIZE
    from lightning_modules.backbone.sampling import sample
    from lightning_modules.embedded.grade import GROUPS, draw_prompts
    from lightning_modules.embedded.judge import MEASURES, REWARDS, Judge
    from lightning_modules.embedded.targets import read_target
    from lightning_modules.metrics.detection import judge_image

    folder.mkdir(parents=True, exist_ok=True)
    prompts = [p for split in GROUPS.values() for p in draw_prompts(split, images, SCENE_SEED)]
    # Neighbours on a sheet are of different groups
    prompts = [p for start in range(images) for p in prompts[start::images]]
    noises = [NOISES + i for i in range(len(prompts))]
    pictures = sample(backbone, prompts, noises, steps, guidance, SIZE)
    targets = [read_target(prompt) for prompt in prompts]
    said = {
        name: [
            RIGHT if judge_image(seen, target).success else WRONG
            for seen, target in zip(Judge.load(name).detect(pictures), targets, strict=True)
        ]
        for name in (MEASURES, REWARDS)
    }
    numbers = range(1, len(prompts) + 1)
    tiles = [
        contact_sheet.Tile(str(number), picture, prompt)
        for number, picture, prompt in zip(numbers, pictures, prompts, strict=True)
    ]
    for start in range(0, len(tiles), SHEET):
        sheet = contact_sheet.draw(tiles[start : start + SHEET], COLUMNS)
        sheet.save(folder / f"sheet-{start // SHEET + 1:02d}.png")
    _write(
        folder / "labels.csv",
        FIELDS,
        [
            {"number": str(number), "prompt": prompt, "seed": str(seed), "label": ""}
            for number, prompt, seed in zip(numbers, prompts, noises, strict=True)
        ],
    )
    _write(
        folder / "verdicts.csv",
        ("number", *said),
        [
            {"number": str(number), **dict(zip(said, each, strict=True))}
            for number, *each in zip(numbers, *said.values(), strict=True)
        ],
    )


def join_labels(folder: Path) -> list[dict[str, str]]:
    """The filled table with the judges' verdicts beside it. Raises ValueError where a label is
    missing or is neither right nor wrong, or where the tables are not of the same images."""
    labels, verdicts = (_read(folder / name) for name in ("labels.csv", "verdicts.csv"))
    if [row["number"] for row in labels] != [row["number"] for row in verdicts]:
        raise ValueError(
            f"{folder}: labels.csv and verdicts.csv are of different images; expected the same "
            "numbers in the same order, as draw wrote them"
        )
    bad = {row["number"]: row["label"] for row in labels if row["label"] not in (RIGHT, WRONG)}
    if bad:
        number, said = next(iter(bad.items()))
        raise ValueError(
            f"{folder / 'labels.csv'}: {show_count(len(bad), 'image')} without a label, the first "
            f"is number {number} with {said!r}; expected {RIGHT} or {WRONG} in column label"
        )
    return [
        {key: value for key, value in {**label, **verdict}.items() if key != "number"}
        for label, verdict in zip(labels, verdicts, strict=True)
    ]


def count_errors(rows: Sequence[Row], judge: str) -> ErrorRates:
    """How often the column ``judge`` says what the label says. Raises ValueError where no image is
    right, or none is wrong."""
    said = {
        truth: [row[judge] for row in rows if row["label"] == truth] for truth in (RIGHT, WRONG)
    }
    for truth, column in said.items():
        if not column:
            raise ValueError(
                f"no image of {len(rows)} is {truth}: expected some of both, label more"
            )
    return ErrorRates(*((column.count(truth), len(column)) for truth, column in said.items()))


def read_error_rates(judge: str | None = None) -> ErrorRates | None:
    """Those of a shipped judge, the one that measures unless another is named; None where no labels
    are shipped."""
    from lightning_modules.embedded.judge import ASSET, MEASURES

    table = ASSET / "labels.csv"
    return count_errors(_read(table), judge or MEASURES) if table.is_file() else None


def put_into_card(card: Path, rates: ErrorRates) -> None:
    """The section of the card that says them, in place of an older one."""
    from scipy.stats import binomtest

    lines = []
    for name, (count, total) in rates._asdict().items():
        low, high = binomtest(count, total).proportion_ci(method="wilson")
        lines.append(
            f"| {name} | {count} of {total} | {count / total:.3f} | {low:.3f} to {high:.3f} |"
        )
    labels = rates.sensitivity[1] + rates.specificity[1]
    section = f"""{SECTION}

{show_count(labels, "image")} of the embedded backbone were labelled by looking, before the judges'
verdicts were seen (`assets/judge/labels.csv`). Sensitivity: images that the judge calls right, of
those that are. Specificity: images that it calls wrong, of those that are. Success is corrected by
these (`lightning_modules.metrics.correction`).

| rate | images | share | 95 % interval (Wilson) |
|---|---|---|---|
{chr(10).join(lines)}
"""
    before, _, after = card.read_text().partition(SECTION)
    _, heading, rest = after.partition("\n## ")
    write_atomically(card, before.rstrip("\n") + "\n\n" + section + heading + rest)


def read(folder: Path) -> None:
    """Joins the tables into the asset's ``labels.csv`` and renews the judges' cards."""
    from lightning_modules.embedded.judge import ASSET, ASSETS, MEASURES, REWARDS

    rows = join_labels(folder)
    if len(rows) < LEAST:
        raise ValueError(
            f"{folder}: {show_count(len(rows), 'label')}; expected {LEAST} or more, draw more "
            "images"
        )
    rates = {name: count_errors(rows, name) for name in (MEASURES, REWARDS)}
    _write(ASSET / "labels.csv", tuple(rows[0]), rows)
    for name, each in rates.items():
        put_into_card(ASSETS / name / "README.md", each)
        print(f"{name}: sensitivity {each.sensitivity}, specificity {each.specificity}")


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _write(path: Path, fields: Sequence[str], rows: Sequence[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fields, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


@ends_with_reader
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m lightning_modules.embedded.judge_labels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=("draw", "read"))
    parser.add_argument("folder", type=path_option, help="of the sheets and both tables")
    add_options(parser, 20, 10_000, "for each group of prompts")
    args = parser.parse_args(argv)
    if args.action == "read":
        try:
            read(args.folder)
        except (OSError, ValueError) as error:
            parser.error(str(error))
        return

    from lightning_modules.backbone.backbone import Backbone

    draw(Backbone.load(args.backbone), args.folder, args.images, args.steps, args.guidance)
    print(args.folder)


if __name__ == "__main__":
    main()
