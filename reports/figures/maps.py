"""What trials drew of their insides: gate maps and attention maps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from reports import prose
from reports.figures.images import LINE, open_picture
from reports.figures.style import WIDTH, new_canvas, save, wrap
from reports.results import CellResults, SweepResults, Trial
from reports.typeset import Picture

BETWEEN = 0.2  # Inches between the maps before and after


def copy_gate_maps(results: SweepResults, folder: Path) -> Picture | None:
    """The gate maps of the control's first finished seed; None where the method has no gates."""
    for cell, trial in _trials_to_show(results):
        path = results.fetch(trial, "gates.png")
        drawn = results.read(trial, "gates.png", open_picture)
        prompts = results.read(trial, "gates.json", _quote_prompts)
        if path is None or drawn is None or prompts is None:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / "gates.png")
        which = "the control " if cell.control else ""
        where = f"{which}{results.noun} {prose.name_cell(results, cell)}"
        caption = (
            f"Gates at {where}, seed {trial.seed}. A map shows for one token, pixel by pixel, at "
            "how many of the sampler's steps and gated layers of one resolution its gate was open: "
            f"bright always, dark never. N = {prose.count(len(prompts), 'prompt')}, the first of "
            f"each split: {'; '.join(prompts)}."
        )
        return Picture("gates.png", caption, "Gate maps by prompt, resolution and token")
    return None


def draw_attention_maps(results: SweepResults, folder: Path) -> Picture | None:
    """Maps of the prompts' objects before and after training; None where they were not drawn.

    Before: of the untouched backbone; after: of the control at its first finished seed.
    """
    for cell, trial in _trials_to_show(results):
        before = results.untouched or results.control_of(cell)
        if before is None or trial.seed not in before.trials:
            continue
        pair = before.trials[trial.seed], trial
        both = [results.read(one, "maps.png", open_picture) for one in pair]
        prompts = results.read(trial, "maps.json", _quote_prompts)
        maps = [np.asarray(drawn.convert("RGB")) for drawn in both if drawn is not None]
        if prompts is None or len(maps) < 2:
            continue
        name = prose.name_cell(results, cell)
        titles = [wrap(title, 48) for title in ("untouched backbone", name)]
        lines = max(title.count("\n") for title in titles)
        top, side = LINE * (2 + lines), (WIDTH - BETWEEN) / 2
        heights = [side * picture.shape[0] / picture.shape[1] for picture in maps]
        with new_canvas(top + max(heights)) as (figure, axes):
            for k, title in enumerate(titles):
                left = k * (side + BETWEEN)
                extent = (left, left + side, top + heights[k], top)
                axes.imshow(maps[k], extent=extent, aspect="auto")
                bold: dict[str, Any] = {
                    "fontsize": 7.5,
                    "fontweight": "bold",
                    "ha": "left",
                    "va": "bottom",
                }
                axes.text(left, top - 0.06, title, **bold)
            save(figure, folder, "maps", dpi=300)
        caption = (
            "Attention maps of the prompts' objects before (left) and after training (right, "
            f"{name}), seed {trial.seed}, on the same noised images: mean over heads and layers, "
            "each from zero (dark) to its own maximum (bright). "
            f"N = {len(prompts)}: {'; '.join(prompts)}."
        )
        alt = "Attention maps by prompt and object, before and after training"
        return Picture("maps.png", caption, alt)
    return None


def _trials_to_show(results: SweepResults) -> list[tuple[CellResults, Trial]]:
    """Trials of the controls, and the others' too where the control is an untouched backbone."""
    cells = list(results.controls)
    if not results.untouched:
        cells += [cell for cell in results.levels if not cell.control]
    return [(cell, trial) for cell in cells for _, trial in sorted(cell.trials.items())]


def _quote_prompts(note: Path) -> list[str]:
    return [f"“{entry['prompt']}”" for entry in json.loads(note.read_text(encoding="utf-8"))]
