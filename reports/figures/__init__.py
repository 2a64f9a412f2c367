"""The figures of a sweep's report; words and tables about the same numbers belong one folder up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reports.figures.cases import Cases, draw_cases
from reports.figures.curves import draw_curves
from reports.figures.effects import draw_effects
from reports.figures.forest import draw_forest
from reports.figures.groups import draw_groups
from reports.figures.heatmap import draw_heatmap
from reports.figures.images import draw_image_grid
from reports.figures.maps import copy_gate_maps, draw_attention_maps
from reports.figures.precision_recall import draw_precision_recall
from reports.figures.response import draw_response
from reports.figures.rewards import draw_rewards
from reports.figures.variance import draw_variance
from reports.results import SweepResults
from reports.rewards import find_gains
from reports.tables import CellMetric, verdicts_of
from reports.typeset import Picture
from reports.variances import explain_variance

__all__ = ["draw_figures"]


def draw_figures(
    results: SweepResults, entries: Sequence[CellMetric], cases: Cases | None, folder: Path
) -> dict[str, Picture]:
    """Draw into ``folder`` what can be drawn of a sweep."""
    verdicts = verdicts_of(entries, results.headline)
    pictures = {
        "forest": draw_forest(results, entries, folder),
        "response": draw_response(results, entries, folder),
        "heatmap": draw_heatmap(results, entries, folder),
        "effects": draw_effects(results, entries, folder),
        "groups": draw_groups(results, verdicts.table, folder),
        "variance": draw_variance(explain_variance(results, verdicts), folder),
        "precision_recall": draw_precision_recall(results, folder),
        "rewards": draw_rewards(find_gains(results, entries), results, folder),
        "images": draw_image_grid(results, folder),
        "cases": draw_cases(results, cases, folder),
        "gates": copy_gate_maps(results, folder),
        "maps": draw_attention_maps(results, folder),
        "curves": draw_curves(results, entries, folder),
    }
    return {name: picture for name, picture in pictures.items() if picture}
