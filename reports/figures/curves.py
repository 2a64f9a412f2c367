"""Training curves: what was logged while the adapters were trained, over the optimiser's steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reports import prose
from reports.collect import read_history
from reports.figures.style import WIDTH, new_figure, save, wrap
from reports.results import SEPARATOR, CellResults, SweepResults, Trial
from reports.tables import CellMetric, of_metric
from reports.typeset import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = 4  # The loss and the first others
CURVES = 6  # Lines in one panel; of more adapters the control's and the extremes' are drawn
COLORS = ("black", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B")
DASHES = ((), (5, 2), (1, 1.2), (6, 1.5, 1, 1.5), (3, 1.2), (8, 2, 1, 2, 1, 2))
NAMES = {
    "loss": "Training loss",
    "signal": "Loss of the gates' supervision",
    "gate_closed": "Gates closed (share)",
    "denoising": "Denoising loss",
    "attention": "Attention loss",
    "mask_attention": "Mask-attention loss",
    "prior": "Prior-preservation loss",
    "drift": "Drift from the start (loss)",
    "separate": "Separate loss",
    "enhance": "Enhance loss",
}


@dataclass(frozen=True)
class SharedAdapter:
    """What cells share that differ in the evaluation alone: one training a seed.

    ``trials`` are the seeds that logged one.
    """

    label: str
    cells: tuple[CellResults, ...]
    trials: dict[int, Trial]

    @property
    def is_control(self) -> bool:
        return any(cell.control for cell in self.cells)


def group_by_adapter(results: SweepResults) -> list[SharedAdapter]:
    """In the order of the plan, also those of which nothing was logged."""
    early = [factor.key for factor in results.factors if factor.when == "train"]
    groups: dict[tuple[str, ...], list[CellResults]] = {}
    for cell in results.levels:
        groups.setdefault(tuple(cell.values.get(key, "") for key in early), []).append(cell)
    adapters = []
    for levels, cells in groups.items():
        trained = [(s, t) for cell in cells for s, t in cell.trials.items() if t.training]
        if len(dict(trained)) == len(trained):
            label = SEPARATOR.join(levels) or "all levels"
            adapters.append(SharedAdapter(label, tuple(cells), dict(sorted(trained))))
            continue
        for cell in cells:  # Some settings of the plan made them differ in training after all
            own = {seed: t for seed, t in sorted(cell.trials.items()) if t.training}
            adapters.append(SharedAdapter(cell.label, (cell,), own))
    return adapters


def select_adapters(
    results: SweepResults, entries: Sequence[CellMetric], trained: Sequence[SharedAdapter]
) -> list[SharedAdapter]:
    """Of too many adapters the controls', then those with the lowest and the highest mean, in turn.

    The mean is that of the headline metric. Returned in the order of the plan.
    """
    if len(trained) <= CURVES:
        return list(trained)
    headline = of_metric(entries, results.headline)
    means = {e.cell.name: e.summary.mean for e in headline if e.summary}
    of_adapter = [[means[c.name] for c in a.cells if c.name in means] for a in trained]
    measured = [i for i, values in enumerate(of_adapter) if values]
    controls = [i for i, adapter in enumerate(trained) if adapter.is_control]
    kept = pick_extremes({i: float(np.mean(of_adapter[i])) for i in measured}, controls)
    return [trained[i] for i in kept]


def pick_extremes(
    means: Mapping[int, float], always: Sequence[int], most: int = CURVES
) -> list[int]:
    """At most so many: those of ``always``, then the lowest and the highest mean, in turn; in
    order."""
    upwards = sorted(means, key=lambda i: (means[i], i))
    in_turn = [i for pair in zip(upwards, upwards[::-1], strict=True) for i in pair]
    return sorted(list(dict.fromkeys([*always, *in_turn]))[:most])


def draw_curves(
    results: SweepResults, entries: Sequence[CellMetric], folder: Path
) -> Picture | None:
    """A panel a metric, a line an adapter: its mean over seeds, with single seeds faint.

    None where nothing was trained here.
    """
    adapters = group_by_adapter(results)
    trained = [adapter for adapter in adapters if adapter.trials]
    if not trained:
        return None
    drawn = select_adapters(results, entries, trained)
    logged = set().union(*(t.training for adapter in drawn for t in adapter.trials.values()))
    known = [name for name in NAMES if name in logged]
    names = known + sorted(logged - set(known))
    metrics = names[:PANELS]
    columns = min(2, len(metrics))
    rows = -(-len(metrics) // columns)
    is_panel_free = len(metrics) < rows * columns  # It has room for the legend
    legend_lines = 0 if is_panel_free else -(-len(drawn) // 3)
    styles: dict[str, dict[str, Any]] = {}
    for adapter in sorted(drawn, key=lambda a: not a.is_control):  # The control's is the black line
        styles[adapter.label] = {
            "color": COLORS[len(styles)],
            "linestyle": (0, DASHES[len(styles)]) if styles else "-",
            "linewidth": 1.5,
        }
    width, height = WIDTH if columns == 2 else 4.6, 1.95 * rows + 0.2 + 0.17 * legend_lines
    with new_figure(width, height) as figure:
        panels = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
        for axes, metric in zip(panels, metrics, strict=False):
            for adapter in drawn:
                trials = [t for t in adapter.trials.values() if metric in t.training]
                histories = [read_history(results, trial, metric) for trial in trials]
                draw_mean_line(axes, histories, styles[adapter.label])
            axes.set_title(NAMES.get(metric, metric.replace("_", " ").capitalize()))
            axes.set_xlabel("Optimiser step")
            axes.grid(axis="y")
        for axes in panels[len(metrics) :]:
            axes.set_axis_off()
        handles = [panels[0].plot([], [], **styles[adapter.label])[0] for adapter in drawn]
        labels = [_label(adapter, len(results.seeds)) for adapter in drawn]
        look: dict[str, Any] = {"fontsize": 7.5, "handlelength": 3.2}
        if is_panel_free:
            panels[-1].legend(handles, labels, loc="center left", **look)
        else:
            look["ncols"] = min(3, len(drawn))
            figure.legend(handles, labels, loc="outside lower center", **look)
        save(figure, folder, "curves")
    caption = _caption(results, adapters, drawn, names)
    return Picture("curves.svg", caption, "What was logged in training, over its steps")


def _label(adapter: SharedAdapter, planned: int) -> str:
    n = len(adapter.trials)
    notes = ["control"] * adapter.is_control + [f"n = {n}"] * (n < planned)
    return wrap(adapter.label + (f" ({', '.join(notes)})" if notes else ""), 40)


def draw_mean_line(
    axes: Axes, histories: Sequence[dict[int, float]], style: dict[str, Any]
) -> None:
    """Faint single seeds, and their mean over the steps that all of them logged."""
    histories = [history for history in histories if history]
    if not histories:
        return
    if len(histories) > 1:
        faint = {"color": style["color"], "linewidth": 0.6, "alpha": 0.35, "zorder": 2}
        for history in histories:
            axes.plot(list(history), list(history.values()), **faint)
    steps = sorted(set.intersection(*(set(history) for history in histories)))
    mean = [float(np.mean([history[step] for history in histories])) for step in steps]
    marker = "o" if len(steps) == 1 else ""
    axes.plot(steps, mean, zorder=3, marker=marker, markersize=3, **style)


def _caption(
    results: SweepResults,
    adapters: Sequence[SharedAdapter],
    drawn: Sequence[SharedAdapter],
    names: Sequence[str],
) -> str:
    shared = any(len(adapter.cells) > 1 for adapter in adapters)
    noun = "trained adapter" if shared else results.noun
    texts = [
        "Training, as logged every few steps, one batch a point; line: mean over the seeds of a "
        f"{noun} at the steps that all of them logged, faint lines: single seeds. A loss of one "
        "batch depends on the timesteps drawn for it, which are the same for all cells of a seed: "
        "compare lines at the same step, not steps with each other, and only lines that minimise "
        "the same loss."
    ]
    if any(len(adapter.cells) > 1 for adapter in drawn):
        late = prose.join([f.label for f in results.factors if f.when == "evaluate"])
        texts.append(
            f"Cells that differ in {late} alone share one adapter a seed, and so one line."
        )
    trained = [adapter for adapter in adapters if adapter.trials]
    if len(drawn) < len(trained):
        controls = sum(adapter.is_control for adapter in drawn)
        texts.append(
            f"Drawn are {len(drawn)} of {len(trained)} {noun}s: {controls} with a control cell, "
            f"and those with the lowest and the highest mean of "
            f"{prose.lower(results.headline.label)}, in turn."
        )
    without = [a for a in adapters if not a.trials and any(cell.trials for cell in a.cells)]
    if without:
        labels = prose.join_some([adapter.label for adapter in without], 6)
        why = "which took an adapter that was there already, or trained nothing"
        texts.append(f"No line: {labels}, {why}.")
    if len(names) > PANELS:
        rest = prose.join([NAMES.get(name, name) for name in names[PANELS:]])
        texts.append(f"Not drawn: {rest}.")
    counts = [len(adapter.trials) for adapter in drawn]
    plural = "s" if max(counts) > 1 else ""
    return " ".join([*texts, f"N = {prose.join_range(counts)} seed{plural} a line."])
