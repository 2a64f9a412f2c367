"""Training curves: what was logged while the adapters were trained, over the optimiser's steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reports.figures import WIDTH, Picture, canvas, save, wrapped
from reports.study import PARTED, Cell, Study, Trial
from reports.tables import Entry, in_sentence, listed, of_metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Adapter", "adapters", "chosen", "curves"]

PANELS = 4  # the loss and the first others
CURVES = 6  # lines in one panel; of more adapters the baseline's and the extremes' are drawn
SHADES = ("black", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B")
STROKES = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1.2)), (0, (8, 2, 1, 2, 1, 2)))
NAMES = {
    "loss": "Training loss",
    "signal": "Loss of the gates' signal",
    "gate_closed": "Gates closed (share)",
    "attention": "Attention loss",
    "mask_attention": "Mask-attention loss",
    "prior": "Prior-preservation loss",
    "drift": "Drift from the start (loss)",
    "separate": "Separate loss",
    "enhance": "Enhance loss",
}


@dataclass(frozen=True)
class Adapter:
    """What cells share that differ in the evaluation alone: one training a seed. `trials` are the seeds that logged one."""

    label: str
    cells: tuple[Cell, ...]
    trials: dict[int, Trial]

    @property
    def baseline(self) -> bool:
        return any(cell.baseline for cell in self.cells)


def adapters(study: Study) -> list[Adapter]:
    """In the order of the plan, also those of which nothing was logged; the untouched backbone trains nothing."""
    early = [factor.key for factor in study.factors if factor.when == "train"]
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in study.levels:
        groups.setdefault(tuple(cell.values.get(key, "") for key in early), []).append(cell)
    found = []
    for levels, cells in groups.items():
        label = PARTED.join(levels) or "all levels"
        trained = [(seed, trial) for cell in cells for seed, trial in cell.trials.items() if trial.training]
        if len({seed for seed, _ in trained}) < len(trained):  # some settings of the plan made them differ in training after all
            found += [Adapter(cell.label, (cell,), {s: t for s, t in sorted(cell.trials.items()) if t.training}) for cell in cells]
        else:
            found.append(Adapter(label, tuple(cells), dict(sorted(trained))))
    return found


def chosen(study: Study, found: Sequence[Entry], trained: Sequence[Adapter]) -> list[Adapter]:
    """Of too many adapters the baseline's, then those whose cells have the lowest and the highest mean of the headline metric, in turn.

    Returned in the order of the plan.
    """
    if len(trained) <= CURVES:
        return list(trained)
    means = {e.cell.name: e.summary.mean for e in of_metric(found, study.headline) if e.summary}
    ends = [[means[cell.name] for cell in adapter.cells if cell.name in means] for adapter in trained]
    measured = [i for i, values in enumerate(ends) if values]
    upwards = sorted(measured, key=lambda i: (float(np.mean(ends[i])), i))
    in_turn = [i for pair in zip(upwards, upwards[::-1], strict=True) for i in pair]
    first = [i for i, adapter in enumerate(trained) if adapter.baseline]
    kept = list(dict.fromkeys([*first, *in_turn]))[:CURVES]
    return [trained[i] for i in sorted(kept)]


def curves(study: Study, found: Sequence[Entry], folder: Path) -> Picture | None:
    """A panel a metric, a line an adapter: its mean over seeds, with single seeds faint; None where nothing was trained here."""
    everyone = adapters(study)
    trained = [adapter for adapter in everyone if adapter.trials]
    if not trained:
        return None
    drawn = chosen(study, found, trained)
    logged = set().union(*(trial.training for adapter in drawn for trial in adapter.trials.values()))
    names = sorted(logged, key=lambda name: (name != "loss", list(NAMES).index(name) if name in NAMES else len(NAMES), name))
    metrics = names[:PANELS]
    columns = min(2, len(metrics))
    rows = -(-len(metrics) // columns)
    free = len(metrics) < rows * columns  # a panel without curves has room for the legend
    lines = 0 if free else -(-len(drawn) // 3)
    # the baseline's is the black line
    order = sorted(drawn, key=lambda adapter: not adapter.baseline)
    styles = [(SHADES[order.index(adapter)], STROKES[order.index(adapter)]) for adapter in drawn]
    with canvas(WIDTH if columns == 2 else 4.6, 1.95 * rows + 0.2 + 0.17 * lines) as figure:
        panels = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
        for axes, metric in zip(panels, metrics, strict=False):
            for adapter, style in zip(drawn, styles, strict=True):
                _line(axes, [study.history(t, metric) for t in adapter.trials.values() if metric in t.training], *style)
            axes.set_title(NAMES.get(metric, metric.replace("_", " ").capitalize()))
            axes.set_xlabel("Optimiser step")
            axes.grid(axis="y")
        for axes in panels[len(metrics) :]:
            axes.set_axis_off()
        handles = [panels[0].plot([], [], color=color, linestyle=stroke, linewidth=1.5)[0] for color, stroke in styles]
        labels = [_named(adapter, len(study.seeds)) for adapter in drawn]
        how: dict[str, Any] = {"fontsize": 7.5, "handlelength": 3.2}
        if free:
            panels[-1].legend(handles, labels, loc="center left", **how)
        else:
            figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(drawn)), **how)
        save(figure, folder, "curves")
    return Picture("curves.svg", _caption(study, everyone, trained, drawn, names), "What was logged in training, over its steps")


def _named(adapter: Adapter, planned: int) -> str:
    count = len(adapter.trials)
    notes = [*(["baseline"] if adapter.baseline else []), *([f"n = {count}"] if count < planned else [])]
    return wrapped(adapter.label + (f" ({', '.join(notes)})" if notes else ""), 40)


def _line(axes: Axes, histories: Sequence[dict[int, float]], color: str, stroke: object) -> None:
    """Faint single seeds, and their mean over the steps that all of them logged."""
    histories = [history for history in histories if history]
    if not histories:
        return
    if len(histories) > 1:
        for history in histories:
            axes.plot(list(history), list(history.values()), color=color, linewidth=0.6, alpha=0.35, zorder=2)
    steps = sorted(set.intersection(*(set(history) for history in histories)))
    mean = [float(np.mean([history[step] for history in histories])) for step in steps]
    axes.plot(steps, mean, color=color, linestyle=stroke, linewidth=1.5, zorder=3, marker="o" if len(steps) == 1 else "", markersize=3)


def _caption(study: Study, everyone: Sequence[Adapter], trained: Sequence[Adapter], drawn: Sequence[Adapter], names: Sequence[str]) -> str:
    counts = sorted({len(adapter.trials) for adapter in drawn})
    n = f"N = {counts[0]}" + (f" to {counts[-1]}" if len(counts) > 1 else "") + f" seed{'s' if counts[-1] > 1 else ''} a line"
    noun = study.noun if all(len(adapter.cells) == 1 for adapter in everyone) else "trained adapter"
    texts = [
        f"Training, as logged every few steps, one batch a point; line: mean over the seeds of a {noun} at the steps that all of them "
        "logged, faint lines: single seeds. A loss of one batch depends on the timesteps drawn for it, which are the same for all cells of "
        "a seed: compare lines at the same step, not steps with each other, and only lines that minimise the same loss."
    ]
    if any(len(adapter.cells) > 1 for adapter in drawn):
        late = [factor.label for factor in study.factors if factor.when == "evaluate"]
        texts.append(f"Cells that differ in {listed(late)} alone share one adapter a seed, and so one line.")
    if len(drawn) < len(trained):
        texts.append(
            f"Of {len(trained)} {noun}s {sum(a.baseline for a in drawn)} with a baseline cell are drawn, and the "
            f"{sum(not a.baseline for a in drawn)} with the lowest and the highest mean of {in_sentence(study.headline.label)}, in turn."
        )
    lacking = [adapter.label for adapter in everyone if not adapter.trials and any(cell.trials for cell in adapter.cells)]
    if lacking:
        texts.append(f"No line: {_few(lacking)}, which took an adapter that was there already, or train nothing.")
    if len(names) > PANELS:
        texts.append(f"Not drawn: {listed([NAMES.get(name, name) for name in names[PANELS:]])}.")
    return " ".join([*texts, f"{n}."])


def _few(labels: Sequence[str], most: int = 6) -> str:
    return listed(list(labels)) if len(labels) <= most else f"{', '.join(labels[:most])} and {len(labels) - most} more"
