"""The figures of a sweep's report; words and tables about the same numbers belong one folder up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reports.figures.cases import Cases, draw_cases
from reports.figures.curves import draw_curves
from reports.figures.heatmap import draw_heatmap
from reports.figures.images import draw_image_grid
from reports.figures.maps import copy_gate_maps, draw_attention_maps
from reports.figures.precision_recall import draw_precision_recall
from reports.figures.response import draw_response
from reports.results import SweepResults
from reports.tables import CellMetric
from reports.typeset import Picture

__all__ = ["draw_figures"]


def draw_figures(
    results: SweepResults, entries: Sequence[CellMetric], cases: Cases | None, folder: Path
) -> dict[str, Picture]:
    """Draw into ``folder`` what can be drawn of a sweep."""
    pictures = {
        "response": draw_response(results, entries, folder),
        "heatmap": draw_heatmap(results, entries, folder),
        "precision_recall": draw_precision_recall(results, folder),
        "images": draw_image_grid(results, folder),
        "cases": draw_cases(results, cases, folder),
        "gates": copy_gate_maps(results, folder),
        "maps": draw_attention_maps(results, folder),
        "curves": draw_curves(results, entries, folder),
    }
    return {name: picture for name, picture in pictures.items() if picture}
