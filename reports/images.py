"""The figures made of pictures: generated images side by side, and gate maps."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reports.figures import GREEN, GREY, ORANGE, WIDTH, Picture, canvas, save, wrapped
from reports.study import Cell, Study, Trial
from reports.tables import factor_words, stacked

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["attention_maps", "choose_prompts", "draw_image", "draw_outline", "gate_maps", "image_grid"]

LABEL, LINE, GAP = 1.55, 0.13, 0.02  # inches in the image grid: column of prompts, line of a name, around an image
BAND = 7  # cells side by side; more are shown in bands below each other
PIXELS = 256


def choose_prompts(outcomes: np.ndarray, splits: Sequence[str], rows: int) -> list[int]:
    """Which prompts to show, by rule. `outcomes` [cells, prompts] is 1 where the judge says right, 0 where wrong.

    Half of the rows: prompts on which the cells disagree most (outcomes nearest to half right, half wrong), earlier ones first.
    The other half: the first prompts of the plan, taken from the splits in turn. Returned in the order of the plan.
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

    The seed is the first that most cells have; a cell without it stays empty. Many cells take several bands, each with the same prompts,
    of which there are then fewer than `rows`.
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
    verdicts = [[s.success[places[name][key]] for key in kept] for name, s in samples.items()]
    judged_at_all = any(right is not None for row in verdicts for right in row)
    outcomes = np.array([[bool(right) for right in row] for row in verdicts], dtype=float)
    bands = -(-len(study.cells) // BAND)
    wide = -(-len(study.cells) // bands)
    rows = max(2, rows // bands)
    chosen = [kept[i] for i in choose_prompts(outcomes, [key.partition("/")[0] for key in kept], rows)]
    names = [_heading(cell) for cell in study.cells]
    head = LINE * (2 + max(name.count("\n") for name in names))
    side = min(0.95, (WIDTH - LABEL) / wide)
    height = bands * (head + len(chosen) * side)
    with canvas(WIDTH, height) as figure:
        figure.set_layout_engine("none")
        axes = figure.add_axes((0, 0, 1, 1))  # one axes in inches, y downwards
        axes.set_axis_off()
        for c, (cell, name) in enumerate(zip(study.cells, names, strict=True)):
            band, column = divmod(c, wide)
            start = band * (head + len(chosen) * side) + head
            left = LABEL + column * side
            axes.text(left + side / 2, start - 0.06, name, ha="center", va="bottom", fontsize=7.5 if bands == 1 else 6.5, fontweight="bold")
            for r, key in enumerate(chosen):
                top = start + r * side
                if column == 0:
                    text = f"{textwrap.fill(first.prompts[first.ids.index(key)], 24)}\n({first.splits[first.ids.index(key)]})"
                    axes.text(0.0, top + side / 2, text, va="center", ha="left", fontsize=7.5)
                if cell.name not in samples:
                    axes.text(left + side / 2, top + side / 2, f"seed {seed}\nmissing", ha="center", va="center", fontsize=7.5, color=GREY)
                    continue
                index = places[cell.name][key]
                image = study.fetch(cell.trials[seed], str(samples[cell.name].images[index]))
                extent = (left + GAP, left + side - GAP, top + side - GAP, top + GAP)
                draw_image(axes, image, samples[cell.name].success[index], extent)
                target = samples[cell.name].masks[index]
                if target is not None:
                    draw_outline(axes, study.fetch(cell.trials[seed], target), extent)
        axes.set(xlim=(0, WIDTH), ylim=(height, 0), aspect="auto")
        save(figure, folder, "images", dpi=300)
    most = min(rows // 2, int((np.minimum(outcomes.mean(axis=0), 1 - outcomes.mean(axis=0)) > 0).sum()))
    caption = (
        f"Same prompts, same noise (seed {seed}), columns: untouched backbone and the {study.noun}s of {factor_words(study)}. "
        f"{'✓ and ✗: whether that image is right. ' if judged_at_all else ''}"
        f"Chosen by rule among the {len(kept)} prompts whose images were kept: {most} on which the cells disagree most, the others the "
        f"first of each split."
    )
    if any(name is not None for s in samples.values() for name in s.masks):
        caption += " Outlines: where the objects should be."
    return Picture("images.png", caption, "Generated images, one row per prompt and one column per cell")


def _heading(cell: Cell) -> str:
    """A cell's name over its column."""
    name = "untouched\nbackbone" if cell.reference else "\n".join(wrapped(level, 11) for level in stacked(cell).split("\n"))
    return name + ("\n(baseline)" if cell.baseline else "")


def draw_image(axes: Axes, path: Path | None, right: bool | None, extent: tuple[float, float, float, float]) -> None:
    """One image, in its corner whether it is right, where that was judged. `extent` is left, right, bottom, top."""
    from PIL import Image

    if path is not None:
        image = Image.open(path).convert("RGB")
        how = Image.Resampling.NEAREST if image.width < PIXELS else Image.Resampling.LANCZOS  # small images keep their pixels
        axes.imshow(np.asarray(image.resize((PIXELS, PIXELS), how)), extent=extent, aspect="auto")
    if right is None:
        return
    axes.text(
        extent[1] - 0.03, extent[3] + 0.03, "✓" if right else "✗", ha="right", va="top", fontsize=8.5, color="white", fontweight="bold",
        bbox={"boxstyle": "round,pad=0.12", "facecolor": GREEN if right else ORANGE, "edgecolor": "white", "linewidth": 0.7},
    )  # fmt: skip


def draw_outline(axes: Axes, path: Path | None, extent: tuple[float, float, float, float]) -> None:
    """The rims of the target masks over an image, white on black so that they show on any colour."""
    from PIL import Image

    if path is None:
        return
    numbered = np.asarray(Image.open(path))
    left, right, bottom, top = extent
    height, width = numbered.shape
    x = left + (np.arange(width) + 0.5) / width * (right - left)
    y = top + (np.arange(height) + 0.5) / height * (bottom - top)
    for number in range(1, int(numbered.max()) + 1):
        plane = (numbered == number).astype(float)
        for color, line in (("black", 1.3), ("white", 0.6)):
            axes.contour(x, y, plane, levels=[0.5], colors=color, linewidths=line)


def gate_maps(study: Study, folder: Path) -> Picture | None:
    """The gate maps that the baseline cell's first finished seed logged; None where the method has no gates."""
    for cell, seed, trial in _looked_into(study):
        path, note = study.fetch(trial, "gates.png"), study.fetch(trial, "gates.json")
        if path is None or note is None:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / "gates.png")
        prompts = [entry["prompt"] for entry in json.loads(note.read_text(encoding="utf-8"))]
        caption = (
            f"Gates at {'the baseline ' if cell.baseline else ''}{study.noun} {study.words(cell)}, seed {seed}. "
            "A map shows for one token, place by place, at how many of the sampler's steps and gated layers of one resolution its gate was "
            "open: bright always, dark never. "
            f"N = {len(prompts)} prompts, the first of each split: {'; '.join(f'“{prompt}”' for prompt in prompts)}."
        )
        return Picture("gates.png", caption, "Gate maps by prompt, resolution and token")
    return None


def _looked_into(study: Study) -> list[tuple[Cell, int, Trial]]:
    """Trials whose insides are shown: those of the baseline cells, and the others' where the baseline is an untouched backbone."""
    cells = [*study.baselines, *([] if study.reference else [cell for cell in study.levels if not cell.baseline])]
    return [(cell, seed, trial) for cell in cells for seed, trial in sorted(cell.trials.items())]


def attention_maps(study: Study, folder: Path) -> Picture | None:
    """The maps of the prompts' objects before and after: of the untouched backbone, and of the baseline cell at its first finished seed;
    None where they were not drawn."""
    from PIL import Image

    for cell, seed, trial in _looked_into(study):
        before = study.reference or study.base_of(cell)
        if before is None or seed not in before.trials:
            continue
        found = [study.fetch(one, "maps.png") for one in (before.trials[seed], trial)]
        note = study.fetch(trial, "maps.json")
        if note is None or any(path is None for path in found):
            continue
        pictures = [np.asarray(Image.open(path).convert("RGB")) for path in found if path is not None]
        side = (WIDTH - 0.2) / 2
        height = LINE * 2 + side * max(picture.shape[0] / picture.shape[1] for picture in pictures)
        with canvas(WIDTH, height) as figure:
            figure.set_layout_engine("none")
            axes = figure.add_axes((0, 0, 1, 1))
            axes.set_axis_off()
            for k, (name, picture) in enumerate(zip(("untouched backbone", study.words(cell)), pictures, strict=True)):
                left, top = k * (side + 0.2), LINE * 2
                bottom = top + side * picture.shape[0] / picture.shape[1]
                axes.imshow(picture, extent=(left, left + side, bottom, top), aspect="auto")
                axes.text(left, top - 0.06, wrapped(name, 48), ha="left", va="bottom", fontsize=7.5, fontweight="bold")
            axes.set(xlim=(0, WIDTH), ylim=(height, 0), aspect="auto")
            save(figure, folder, "maps", dpi=300)
        prompts = [f"“{entry['prompt']}”" for entry in json.loads(note.read_text(encoding="utf-8"))]
        caption = (
            f"Attention maps of the prompts' objects before (left) and after training (right, {study.words(cell)}), seed {seed}, "
            "on the same noised images: mean over heads and layers, each from zero (dark) to its own maximum (bright). "
            f"N = {len(prompts)}: {'; '.join(prompts)}."
        )
        return Picture("maps.png", caption, "Attention maps by prompt and object, before and after training")
    return None
