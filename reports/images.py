"""The figures made of pictures: generated images side by side, and gate maps."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reports.collect import Study
from reports.figures import GREEN, GREY, ORANGE, WIDTH, Picture, canvas, factor_words, save
from reports.fonts import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["choose_prompts", "gate_maps", "image_grid"]

LABEL, HEAD, GAP = 1.55, 0.42, 0.02  # inches in the image grid: column of prompts, row of names, around an image
PIXELS = 256


def choose_prompts(outcomes: np.ndarray, splits: Sequence[str], rows: int) -> list[int]:
    """Which prompts to show, by rule. `outcomes` [cells, prompts] is 1 where the judge says right, 0 where wrong.

    Half of the rows: prompts on which the cells disagree most (outcomes nearest to half right, half wrong), earlier ones first. The other half: the
    first prompts of the plan, taken from the splits in turn. Returned in the order of the plan.
    """
    share = outcomes.mean(axis=0)
    disagreement = np.minimum(share, 1 - share)
    by_disagreement = [int(i) for i in np.argsort(-disagreement, kind="stable") if disagreement[i] > 0]
    queues = [[i for i, s in enumerate(splits) if s == split] for split in dict.fromkeys(splits)]
    in_turn = [queue[i] for i in range(max(map(len, queues), default=0)) for queue in queues if i < len(queue)]
    chosen = by_disagreement[: rows // 2]
    chosen += [i for i in in_turn if i not in chosen][: rows - len(chosen)]
    return sorted(chosen)


def image_grid(study: Study, folder: Path, rows: int = 6) -> Picture | None:
    """Same prompt, same seed: the untouched backbone and every level side by side; None where no image was kept.

    The seed is the first that most cells have; a cell without it stays empty.
    """
    having = {seed: [c for c in study.cells if seed in c.trials and c.trials[seed].samples] for seed in study.seeds}
    seed = max(having, key=lambda s: len(having[s]))  # the first of equals
    judged = {cell.name: cell.trials[seed].samples for cell in having[seed]}
    samples = {name: s for name, s in judged.items() if s is not None}
    if not samples:
        return None
    places = {name: {key: i for i, key in enumerate(s.ids)} for name, s in samples.items()}
    first = next(iter(samples.values()))
    kept = [key for key in first.ids if all(key in places[name] and s.images[places[name][key]] for name, s in samples.items())]
    if not kept:
        return None
    outcomes = np.array([[s.success[places[name][key]] for key in kept] for name, s in samples.items()], dtype=float)
    chosen = [kept[i] for i in choose_prompts(outcomes, [key.partition("/")[0] for key in kept], rows)]
    side = min(0.95, (WIDTH - LABEL) / len(study.cells))
    height = len(chosen) * side + HEAD
    with canvas(WIDTH, height) as figure:
        figure.set_layout_engine("none")
        for c, cell in enumerate(study.cells):
            name = "untouched\nbackbone" if cell.reference else printable(cell.label) + ("\n(baseline)" if cell.baseline else "")
            figure.text(
                (LABEL + (c + 0.5) * side) / WIDTH,
                1 - (HEAD - 0.06) / height,
                name,
                ha="center",
                va="bottom",
                fontsize=7.5,
                fontweight="bold",
            )
        for r, key in enumerate(chosen):
            low = 1 - (HEAD + (r + 1) * side) / height
            place = first.ids.index(key)
            text = f"{textwrap.fill(printable(first.prompts[place]), 24)}\n({first.splits[place]})"
            figure.text(0.0, low + side / 2 / height, text, va="center", ha="left", fontsize=7.5)
            for c, cell in enumerate(study.cells):
                axes = figure.add_axes(
                    ((LABEL + c * side + GAP) / WIDTH, low + GAP / height, (side - 2 * GAP) / WIDTH, (side - 2 * GAP) / height)
                )
                axes.set_axis_off()
                if cell.name not in samples:
                    axes.text(0.5, 0.5, f"seed {seed}\nmissing", ha="center", va="center", fontsize=7.5, color=GREY)
                    continue
                index = places[cell.name][key]
                _image(
                    axes, study.fetch(cell.trials[seed].run_id, str(samples[cell.name].images[index])), samples[cell.name].success[index]
                )
        save(figure, folder, "images", dpi=300)
    most = min(rows // 2, int((np.minimum(outcomes.mean(axis=0), 1 - outcomes.mean(axis=0)) > 0).sum()))
    caption = (
        f"Same prompts, same noise (seed {seed}), columns: untouched backbone and the levels of {factor_words(study)}. ✓ and ✗: the judge's verdict on that image. "
        f"Chosen by rule among the {len(kept)} prompts whose images were kept: {most} on which the cells disagree most, the others the first of each split."
    )
    return Picture("images.png", caption, "Generated images, one row per prompt and one column per cell")


def _image(axes: Axes, path: Path | None, right: bool) -> None:
    from PIL import Image

    if path is not None:
        image = Image.open(path).convert("RGB")
        how = (
            Image.Resampling.NEAREST if image.width < PIXELS else Image.Resampling.LANCZOS
        )  # small images keep their pixels, large ones shrink
        axes.imshow(np.asarray(image.resize((PIXELS, PIXELS), how)))
    axes.text(
        0.97, 0.97, "✓" if right else "✗", transform=axes.transAxes, ha="right", va="top", fontsize=8.5, color="white", fontweight="bold",
        bbox={"boxstyle": "round,pad=0.12", "facecolor": GREEN if right else ORANGE, "edgecolor": "white", "linewidth": 0.7},
    )  # fmt: skip


def gate_maps(study: Study, folder: Path) -> Picture | None:
    """The gate maps that the baseline level's first finished seed logged; None where the method has no gates."""
    for seed, trial in sorted(study.baseline.trials.items()):
        path, note = study.fetch(trial.run_id, "gates.png"), study.fetch(trial.run_id, "gates.json")
        if path is None or note is None:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / "gates.png")
        told = json.loads(note.read_text(encoding="utf-8"))
        caption = f"Gate maps at the baseline level ({study.baseline.label}), seed {seed}, prompt “{told['prompt']}”: {len(told['sites'])} gated layers × tokens."
        return Picture("gates.png", caption, "Gate maps by layer and token")
    return None
