"""The headline by what prompts ask for: how many objects they name, of how many parts they are
made, and which skills they need.

Above the means of cells, below their differences from the control.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reports import prose
from reports.figures.curves import COLORS, CURVES, DASHES, pick_extremes
from reports.figures.forest import BAND
from reports.figures.style import WIDTH, new_figure, plot_points, save, title_difference, wrap
from reports.image_tables import ImageTable
from reports.results import CellResults, ReportedMetric, Samples, SweepResults
from reports.statistics import (
    DIFFERS,
    compare_cells,
    decision,
)
from reports.typeset import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEWEST = 8  # Prompts of a group
MOST = 12  # Groups of skills, those with the most prompts
MARKERS = "oDs^vP"
NAMED = 3  # Differences that the caption names


@dataclass(frozen=True)
class Group:
    """Prompts that ask for the same: ``places`` in the table."""

    label: str
    places: tuple[int, ...]


@dataclass(frozen=True)
class Panel:
    """``groups`` of a kind; ``ordered``: numbers, which a line may join. ``few``: groups with too
    few prompts."""

    title: str
    groups: tuple[Group, ...]
    ordered: bool
    few: tuple[str, ...] = ()


@dataclass(frozen=True)
class GroupDifference:
    """A cell less its control over the prompts of a group; NaN bounds where there are none."""

    cell: str
    mean: float
    low: float
    high: float
    differs: bool


def find_panels(table: ImageTable, samples: Samples) -> list[Panel]:
    """By number of objects, by number of parts and by skill, each where prompts differ in it. A
    prompt counts for each of its skills; those of none are a group of their own."""
    facts: dict[str, tuple[int | None, int | None, str | None]] = {}
    unknown = [None] * len(samples.ids)
    columns = (samples.objects or unknown, samples.atoms or unknown, samples.skills or unknown)
    for name, *known in zip(samples.ids, *columns, strict=True):
        facts.setdefault(name.rpartition("#")[0], tuple(known))  # type: ignore[arg-type]
    objects: dict[int, list[int]] = {}
    atoms: dict[int, list[int]] = {}
    skills: dict[str, list[int]] = {}
    tagged = any(tag for _, _, tag in facts.values())
    for i, prompt in enumerate(table.prompts):
        number, parts, tag = facts.get(prompt, (None, None, None))
        if number is not None:
            objects.setdefault(number, []).append(i)
        if parts is not None:
            atoms.setdefault(parts, []).append(i)
        for skill in tag.split() if tag else ["none"] if tagged else []:
            skills.setdefault(skill, []).append(i)
    by_size = sorted(skills, key=lambda name: (-len(skills[name]), name))
    kept = sorted(by_size[:MOST], key=lambda name: (name == "none", name))
    panels = [
        _make_panel("Objects that the prompt names", _in_order(objects), True),
        _make_panel("Parts that the prompt is made of", _in_order(atoms), True),
        _make_panel("What the prompt asks for", {name: skills[name] for name in kept}, False),
    ]
    return [panel for panel in panels if len(panel.groups) > 1]


def _in_order(groups: Mapping[int, list[int]]) -> dict[str, list[int]]:
    return {str(number): groups[number] for number in sorted(groups)}


def _make_panel(title: str, groups: Mapping[str, Sequence[int]], ordered: bool) -> Panel:
    large = tuple(Group(k, tuple(v)) for k, v in groups.items() if len(v) >= FEWEST)
    return Panel(title, large, ordered, tuple(k for k, v in groups.items() if len(v) < FEWEST))


def compare_group(
    results: SweepResults, table: ImageTable, group: Group, groups: int
) -> list[GroupDifference]:
    """Every level with its control on the prompts of a group, by the rule of the answer. Intervals
    hold for all cells and all ``groups`` at once (Bonferroni over groups)."""
    y = {
        name: {seed: row[list(group.places)] for seed, row in rows.items()}
        for name, rows in table.y.items()
    }
    pairs = []
    for cell in results.levels:
        base = results.control_of(cell)
        if base is not None and y.get(cell.name, {}).keys() & y.get(base.name, {}).keys():
            pairs.append((cell.name, base.name))
    if not pairs:
        return []
    used = {name for pair in pairs for name in pair}
    level = 1 - (1 - results.level) / groups
    found = compare_cells(
        {name: y[name] for name in y if name in used},
        level=level,
        binary=table.binary,
        rho=0.0,
        pairs=pairs,
        untrained=results.untrained,
    )
    least, most = table.metric.difference_bounds or (-math.inf, math.inf)
    return [
        GroupDifference(
            str(c.cell),
            c.mean,
            max(least, c.low),
            min(most, c.high),
            not c.images_alone
            and decision(c.low, c.high, None, mean=c.mean, scale=c.scale) == DIFFERS,
        )
        for c in found.comparisons
    ]


def average_group(table: ImageTable, cell: str, group: Group) -> tuple[float, float, float]:
    """A cell's mean on the prompts of a group with its interval alone, for other seeds and prompts
    like these: the rule of differences, less nothing."""
    y = {seed: row[list(group.places)] for seed, row in table.y[cell].items()}
    nothing = {seed: np.zeros_like(row) for seed, row in y.items()}
    found = compare_cells({"": nothing, cell: y}, binary=table.binary).comparisons[0]
    low, high = table.metric.bounds or (-math.inf, math.inf)
    return found.mean, max(low, found.low), min(high, found.high)


def draw_groups(results: SweepResults, table: ImageTable | None, folder: Path) -> Picture | None:
    """None where prompts have no groups, or are other ones in each seed, or the headline is a
    ratio, which is no mean over a group's images."""
    if table is None or table.own_prompts or table.metric.weight:
        return None
    samples = next((trial.samples for _, trial in results.trials() if trial.samples), None)
    panels = find_panels(table, samples) if samples else []
    if not panels:
        return None
    metric, cells = table.metric, select_cells(results, table)
    groups = sum(len(panel.groups) for panel in panels)
    differences = {
        group: {d.cell: d for d in compare_group(results, table, group, groups)}
        for panel in panels
        for group in panel.groups
    }
    compared = [cell for cell in cells if any(cell.name in own for own in differences.values())]
    styles = _style_cells(cells)
    sizes = [max(2.2, len(panel.groups)) for panel in panels]
    rows = 2 if compared else 1
    legend = -(-len(cells) // 3)
    width = WIDTH if len(panels) > 1 or sizes[0] > 4 else 4.6
    with new_figure(width, 1.9 * rows + 0.35 + 0.17 * legend) as figure:
        grid = figure.subplots(
            rows, len(panels), squeeze=False, sharex="col", sharey="row", width_ratios=sizes
        )
        for column, panel in enumerate(panels):
            _draw_means(grid[0, column], panel, table, cells, styles)
            if compared:
                _draw_differences(grid[1, column], panel, metric, compared, differences, styles)
            axes = grid[-1, column]
            labels = [f"{wrap(g.label, 11)}\n({len(g.places)})" for g in panel.groups]
            axes.set_xticks(range(len(labels)), labels)
            axes.set_xlim(-0.5, len(labels) - 0.5)
            axes.set_xlabel(f"{panel.title} (prompts)")
        grid[0, 0].set_ylabel(wrap(metric.title + metric.in_parentheses, 26))
        if compared:
            grid[1, 0].set_ylabel(wrap(title_difference(metric), 26))
        handles = [figure.axes[0].plot([], [], **styles[cell.name])[0] for cell in cells]
        names = [wrap(cell.marked_label, 40) for cell in cells]
        look: dict[str, Any] = {"fontsize": 7.5, "handlelength": 3.2, "ncols": min(3, len(cells))}
        figure.legend(handles, names, loc="outside lower center", **look)
        save(figure, folder, "groups")
    caption = _caption(results, panels, cells, differences, groups, bool(compared))
    kinds = prose.join([prose.lower(panel.title) for panel in panels])
    return Picture(
        "groups.svg", caption, f"{metric.label} by {kinds}. {_name_claims(results, differences)}"
    )


def select_cells(results: SweepResults, table: ImageTable) -> list[CellResults]:
    """At most ``CURVES``: controls, the untouched backbone, then those with the lowest and the
    highest mean, in turn."""
    cells = [cell for cell in results.cells if table.y.get(cell.name)]
    means = {i: float(np.mean([*table.y[c.name].values()])) for i, c in enumerate(cells)}
    always = [i for i, cell in enumerate(cells) if cell.control]
    always += [i for i, cell in enumerate(cells) if cell.untouched]
    return [cells[i] for i in pick_extremes(means, always, CURVES)]


def _style_cells(cells: Sequence[CellResults]) -> dict[str, dict[str, Any]]:
    styles: dict[str, dict[str, Any]] = {}
    for cell in sorted(cells, key=lambda c: not c.control):  # The control's is the black line
        i = len(styles)
        styles[cell.name] = {
            "color": COLORS[i],
            "linestyle": (0, DASHES[i]) if i else "-",
            "linewidth": 1.3,
            "marker": MARKERS[i],
            "markersize": 4.5,
            "markerfacecolor": COLORS[i] if cell.control else "white",
            "markeredgewidth": 1.1,
        }
    return styles


def _spread(count: int) -> np.ndarray:
    """Where cells stand beside the middle of a group, so that bars do not cover each other."""
    return np.linspace(-0.24, 0.24, count) if count > 1 else np.zeros(1)


def _draw_series(
    axes: Axes,
    panel: Panel,
    x: np.ndarray,
    shown: Sequence[tuple[float, float, float]],
    style: dict[str, Any],
) -> None:
    for at, (_, low, high) in zip(x, shown, strict=True):
        if math.isfinite(low):
            axes.plot([at, at], [low, high], color=style["color"], linewidth=1.1, zorder=2)
    means = [mean for mean, _, _ in shown]
    if panel.ordered:
        line = {key: style[key] for key in ("color", "linestyle")}
        axes.plot(x, means, linewidth=0.9, zorder=2.5, **line)
    look = {key: style[key] for key in ("color", "marker", "markerfacecolor", "markeredgewidth")}
    plot_points(axes, x, means, size=style["markersize"], zorder=4, **look)


def _draw_means(
    axes: Axes,
    panel: Panel,
    table: ImageTable,
    cells: Sequence[CellResults],
    styles: dict[str, dict[str, Any]],
) -> None:
    for offset, cell in zip(_spread(len(cells)), cells, strict=True):
        shown = [average_group(table, cell.name, group) for group in panel.groups]
        x = np.arange(len(panel.groups)) + offset
        _draw_series(axes, panel, x, shown, styles[cell.name])
    axes.grid(axis="y")
    axes.tick_params(axis="x", length=0)


def _draw_differences(
    axes: Axes,
    panel: Panel,
    metric: ReportedMetric,
    cells: Sequence[CellResults],
    differences: Mapping[Group, Mapping[str, GroupDifference]],
    styles: dict[str, dict[str, Any]],
) -> None:
    if metric.delta is not None:
        axes.axhspan(-metric.delta, metric.delta, color=BAND, linewidth=0, zorder=0)
    axes.axhline(0, color="black", linewidth=0.8, zorder=1)
    nothing = (math.nan,) * 3
    for offset, cell in zip(_spread(len(cells)), cells, strict=True):
        found = [differences[group].get(cell.name) for group in panel.groups]
        shown = [(d.mean, d.low, d.high) if d else nothing for d in found]
        x = np.arange(len(panel.groups)) + offset
        _draw_series(axes, panel, x, shown, styles[cell.name])
    axes.grid(axis="y")
    axes.tick_params(axis="x", length=0)


def _name_claims(
    results: SweepResults, differences: Mapping[Group, Mapping[str, GroupDifference]]
) -> str:
    """Which cells differ from the control in which group."""
    names = {cell.name: cell.label for cell in results.cells}
    claims = [(d, group) for group, own in differences.items() for d in own.values() if d.differs]
    if not any(differences.values()):
        return ""
    if not claims:
        return f"No {results.noun} differs from the control in any group."
    claims.sort(key=lambda claim: -abs(claim[0].mean))
    said = [
        f"{names[d.cell]} in “{group.label}” ({prose.show_signed(d.mean, 3)} "
        f"{prose.show_interval(d, 3)})"
        for d, group in claims
    ]
    return f"Differs from the control: {prose.join_some(said, NAMED)}."


def _caption(
    results: SweepResults,
    panels: Sequence[Panel],
    cells: Sequence[CellResults],
    differences: Mapping[Group, Mapping[str, GroupDifference]],
    groups: int,
    compared: bool,
) -> str:
    metric = results.headline
    several = all(len(cell.trials) > 1 for cell in cells)
    reach = "other seeds and prompts like these" if several else "prompts like these"
    texts = [
        f"{metric.label} by what prompts ask for, with the number of prompts of each group. "
        f"{'Above: m' if compared else 'M'}eans with 95 % intervals for {reach}, each alone."
    ]
    if not several:
        texts.append("Where there is one seed, intervals say nothing of another training.")
    if compared:
        texts.append(
            f"Below: differences from the control {results.noun} by the rule of the answer, with "
            f"{prose.show_level(results.level)} % intervals that hold for all {results.noun}s and "
            f"{prose.count(groups, 'group')} at once"
            f"{'; shaded: below δ' if metric.delta is not None else ''}. "
            f"{_name_claims(results, differences)}"
        )
    if any(not panel.ordered for panel in panels):
        texts.append("A prompt counts in each of its groups.")
    if few := [f"{label} ({panel.title.lower()})" for panel in panels for label in panel.few]:
        texts.append(f"Fewer than {FEWEST} prompts, not drawn: {prose.join_some(few, 6)}.")
    drawn = len(cells)
    if drawn < sum(bool(cell.trials) for cell in results.cells):
        texts.append(
            f"Drawn: {prose.count(drawn, 'cell')}, those compared with and those with the lowest "
            "and highest mean."
        )
    return " ".join(texts)
