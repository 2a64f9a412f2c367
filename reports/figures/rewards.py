"""What cells gain by a reward against what they gain by the measure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports import prose
from reports.figures.forest import BAND
from reports.figures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    WIDTH,
    new_figure,
    plot_points,
    save,
    title_difference,
    wrap,
)
from reports.results import ReportedMetric, SweepResults
from reports.rewards import BOTH, HACKED, OPEN, UNMOVED, Gain
from reports.typeset import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHT, LINE = 2.7, 0.17  # Inches: a panel, and a line of the legend
# Told apart without colours, too
LOOKS: dict[str, dict[str, Any]] = {
    HACKED: {"color": ORANGE, "marker": "X"},
    OPEN: {"color": GREY, "marker": "o", "markerfacecolor": "white"},
    BOTH: {"color": GREEN, "marker": "s"},
    UNMOVED: {"color": BLUE, "marker": "D", "markerfacecolor": "white"},
}
LISTED = 12  # Cells that have a number


def draw_rewards(
    found: Mapping[ReportedMetric, Sequence[Gain]], results: SweepResults, folder: Path
) -> Picture | None:
    """A panel for each reward: to the right is better by it, upwards by the measure. None without a
    reward."""
    if not found:
        return None
    metric = results.headline
    names = list(dict.fromkeys(g.cell.label for own in found.values() for g in own))
    legend = 1 + -(-min(len(names), LISTED) // 3)
    with new_figure(WIDTH if len(found) > 1 else 5.2, HEIGHT + 0.3 + LINE * legend) as figure:
        panels = figure.subplots(1, len(found), squeeze=False, sharey=True)[0]
        for axes, (reward, own) in zip(panels, found.items(), strict=True):
            _draw_panel(axes, reward, metric, own, names)
        panels[0].set_ylabel(wrap(title_difference(metric), 34))
        readings = [r for r in LOOKS if any(g.reading == r for own in found.values() for g in own)]
        handles = [
            panels[0].plot([], [], linestyle="none", markersize=6, **LOOKS[r])[0] for r in readings
        ]
        handles += [panels[0].plot([], [], linestyle="none")[0] for _ in names[:LISTED]]
        labels = [*readings, *(f"{i + 1}: {wrap(n, 40)}" for i, n in enumerate(names[:LISTED]))]
        look: dict[str, Any] = {"fontsize": 7.5, "ncols": 3, "handlelength": 1.2}
        figure.legend(handles, labels, loc="outside lower center", **look)
        save(figure, folder, "rewards")
    measure = prose.lower(metric.label)
    caption = (
        f"Each cell less its control, by a reward (to the right) and by {measure} (upwards), with "
        "the intervals of the answer. In the shaded corner the reward rises and the measure does "
        "not."
    )
    said = "; ".join(f"{g.cell.label}: {g.reading}" for own in found.values() for g in own)
    return Picture("rewards.svg", caption, f"Gains by reward and by {measure}. {said}")


def _draw_panel(
    axes: Axes,
    reward: ReportedMetric,
    measure: ReportedMetric,
    gains: Sequence[Gain],
    names: Sequence[str],
) -> None:
    for gain in gains:
        x, y = gain.reward, gain.measure
        color = LOOKS[gain.reading]["color"]
        style: dict[str, Any] = {"color": color, "linewidth": 1.2, "zorder": 2}
        if math.isfinite(x.low):
            axes.plot([x.low, x.high], [y.mean, y.mean], **style)
        if math.isfinite(y.low):
            axes.plot([x.mean, x.mean], [y.low, y.high], **style)
        plot_points(axes, x.mean, y.mean, size=6, zorder=3, **LOOKS[gain.reading])
        if (number := names.index(gain.cell.label)) < LISTED:
            axes.annotate(
                str(number + 1),
                (x.mean, y.mean),
                xytext=(5, 4),
                textcoords="offset points",
                fontsize=7.5,
            )
    axes.axhline(0, color="black", linewidth=0.8, zorder=1)
    axes.axvline(0, color="black", linewidth=0.8, zorder=1)
    axes.margins(0.12)
    left, right = axes.get_xlim()
    low, high = axes.get_ylim()
    good = right if reward.better == "higher" else left
    down = low if measure.better == "higher" else high
    axes.fill_between([0, good], 0, down, color=BAND, linewidth=0, zorder=0)
    axes.set_xlim(min(left, 0), max(right, 0))
    axes.set_ylim(min(low, 0), max(high, 0))
    if reward.better == "lower":
        axes.invert_xaxis()
    if measure.better == "lower" and not axes.yaxis_inverted():
        axes.invert_yaxis()
    axes.set_xlabel(wrap(title_difference(reward), 48))
