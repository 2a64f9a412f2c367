"""Generated images side by side: one row a prompt, one column a cell."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reports import prose
from reports.figures.style import GREEN, GREY, ORANGE, WIDTH, new_canvas, save, wrap
from reports.results import CellResults, Samples, SweepResults, Trial
from reports.seeds import describe_noise
from reports.typeset import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

# Inches: the column of prompts, the line of a name, the gap around an image, an image at most
LABEL, LINE, GAP, LARGEST = 1.55, 0.13, 0.02, 0.95
BAND = 7  # Cells side by side; more are shown in bands below each other
PIXELS = 256

Extent = tuple[float, float, float, float]  # Left, right, bottom, top


def select_prompts(outcomes: np.ndarray, splits: Sequence[str], rows: int) -> list[int]:
    """Which prompts to show; ``outcomes`` [cells, prompts] is 1 where the image is right, else 0.

    Half of the rows: prompts on which the cells disagree most (outcomes nearest to half right,
    half wrong), earlier ones first. The other half: the first prompts of the plan, taken from the
    splits in turn. Returned in the order of the plan.
    """
    disagreement = _disagreement(outcomes)
    ranked = [int(i) for i in np.argsort(-disagreement, kind="stable") if disagreement[i] > 0]
    queues = [[i for i, s in enumerate(splits) if s == split] for split in dict.fromkeys(splits)]
    longest = max(map(len, queues), default=0)
    in_turn = [queue[i] for i in range(longest) for queue in queues if i < len(queue)]
    return sorted(list(dict.fromkeys([*ranked[: rows // 2], *in_turn]))[:rows])


def _disagreement(outcomes: np.ndarray) -> np.ndarray:
    share = outcomes.mean(axis=0)
    return np.minimum(share, 1 - share)


def draw_image_grid(results: SweepResults, folder: Path, rows: int = 6) -> Picture | None:
    """Same prompt, same seed: every cell side by side; None where no image was kept.

    The seed is the first that most cells have; a cell without it stays empty. Many cells take
    several bands, each with the same prompts, of which there are then fewer than ``rows``.
    """
    samples: dict[str, Samples] = {}
    seed = results.seeds[0]
    for one in results.seeds:
        trials = {cell.name: cell.trials[one] for cell in results.cells if one in cell.trials}
        having = {name: trial.samples for name, trial in trials.items() if trial.samples}
        if len(having) > len(samples):
            seed, samples = one, having
    if not samples:
        return None
    index = {name: {key: i for i, key in enumerate(s.ids)} for name, s in samples.items()}
    first = next(iter(samples.values()))
    kept = [
        key
        for key in first.ids
        if all(key in index[name] and s.images[index[name][key]] for name, s in samples.items())
    ]
    if not kept:
        return None
    verdicts = [[s.success[index[name][key]] for key in kept] for name, s in samples.items()]
    outcomes = np.array([[bool(right) for right in row] for row in verdicts], dtype=float)
    bands = -(-len(results.cells) // BAND)
    columns = -(-len(results.cells) // bands)
    rows = max(2, rows // bands)
    shown = select_prompts(outcomes, [key.partition("/")[0] for key in kept], rows)
    names = [_column_name(cell) for cell in results.cells]
    head = LINE * (2 + max(name.count("\n") for name in names))
    side = min(LARGEST, (WIDTH - LABEL) / columns)
    band_height = head + len(shown) * side
    with new_canvas(bands * band_height) as (figure, axes):
        for c, (cell, name) in enumerate(zip(results.cells, names, strict=True)):
            band, column = divmod(c, columns)
            start, left = band * band_height + head, LABEL + column * side
            size = 7.5 if bands == 1 else 6.5
            write_centered(axes, left + side / 2, start - 0.06, name, size, bold=True)
            for r, key in enumerate(kept[i] for i in shown):
                top = start + r * side
                if column == 0:
                    i = first.ids.index(key)
                    write_prompt(axes, top + side / 2, first.prompts[i], first.splits[i])
                if cell.name not in samples:
                    middle: dict[str, Any] = {
                        "ha": "center",
                        "va": "center",
                        "fontsize": 7.5,
                        "color": GREY,
                    }
                    missing = f"seed {seed}\nmissing"
                    axes.text(left + side / 2, top + side / 2, missing, **middle)
                    continue
                draw_sample(axes, results, cell.trials[seed], key, left, top, side)
        save(figure, folder, "images", dpi=300)

    most = min(rows // 2, int((_disagreement(outcomes) > 0).sum()))
    judged = any(right is not None for row in verdicts for right in row)
    outlined = any(mask is not None for s in samples.values() for mask in s.masks)
    chosen = "the first of each split, since the cells disagree on none"
    if most:
        chosen = f"{most} on which the cells disagree most, the others the first of each split"
    caption = (
        f"Same prompts, {describe_noise(results)} (seed {seed}), columns: untouched backbone and "
        f"the {results.noun}s of {prose.name_factors(results)}. "
        f"{'✓ and ✗: whether that image is right. ' if judged else ''}"
        f"Selected by rule among the {prose.count(len(kept), 'prompt')} whose images were kept: "
        f"{chosen}."
        f"{' Outlines: where the objects should be.' if outlined else ''}"
    )
    alt = "Generated images, one row per prompt and one column per cell"
    return Picture("images.png", caption, alt)


def _column_name(cell: CellResults) -> str:
    levels = [wrap(level, 11) for level in prose.stack_levels(cell).split("\n")]
    name = "untouched\nbackbone" if cell.untouched else "\n".join(levels)
    return name + ("\n(control)" if cell.control else "")


def write_centered(
    axes: Axes, x: float, y: float, text: str, size: float, *, bold: bool = False
) -> None:
    """A heading whose lines end above ``y``."""
    weight = "bold" if bold else "normal"
    axes.text(x, y, text, ha="center", va="bottom", fontsize=size, fontweight=weight)


def write_prompt(axes: Axes, y: float, prompt: str, split: str, above: str = "") -> None:
    """The name of a row, in the left column."""
    text = f"{above}{textwrap.fill(prompt, 24)}\n({split})"
    axes.text(0.0, y, text, va="center", ha="left", fontsize=7.5)


def draw_sample(
    axes: Axes,
    results: SweepResults,
    trial: Trial,
    key: str,
    left: float,
    top: float,
    side: float,
) -> None:
    """The image of id ``key`` in a square, a mark whether it is right, and its target masks."""
    from PIL import Image

    samples = trial.samples
    assert samples is not None
    i = samples.ids.index(key)
    extent = (left + GAP, left + side - GAP, top + side - GAP, top + GAP)
    image = results.read(trial, str(samples.images[i]), open_picture)
    if image is not None:
        image = image.convert("RGB")
        small = image.width < PIXELS  # Small images keep their pixels
        how = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
        pixels = np.asarray(image.resize((PIXELS, PIXELS), how))
        axes.imshow(pixels, extent=extent, aspect="auto")
    elif (trial.run_id, samples.images[i]) in results.damaged:
        middle = left + side / 2, top + side / 2
        axes.text(*middle, "damaged", ha="center", va="center", fontsize=7.5, color=GREY)
    right = samples.success[i]
    if right is not None:
        box = {"boxstyle": "round,pad=0.12", "edgecolor": "white", "linewidth": 0.7}
        axes.text(
            extent[1] - 0.03,
            extent[3] + 0.03,
            "✓" if right else "✗",
            ha="right",
            va="top",
            fontsize=8.5,
            color="white",
            fontweight="bold",
            bbox=box | {"facecolor": GREEN if right else ORANGE},
        )
    mask = samples.masks[i]
    target = None if mask is None else results.read(trial, mask, open_picture)
    if target is not None:
        draw_outline(axes, np.asarray(target), extent)


def open_picture(path: Path) -> Image.Image:
    """A picture that is whole: all its pixels are read."""
    from PIL import Image

    with Image.open(path) as picture:
        picture.load()
    return picture


def draw_outline(axes: Axes, numbered: np.ndarray, extent: Extent) -> None:
    """The rims of target masks [H, W], object i of value i, visible on any colour."""
    left, right, bottom, top = extent
    height, width = numbered.shape
    x = left + (np.arange(width) + 0.5) / width * (right - left)
    y = top + (np.arange(height) + 0.5) / height * (bottom - top)
    for number in range(1, int(numbered.max()) + 1):
        plane = (numbered == number).astype(float)
        for color, line in (("black", 1.3), ("white", 0.6)):
            axes.contour(x, y, plane, levels=[0.5], colors=color, linewidths=line)
