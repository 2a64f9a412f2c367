"""How figures look and are saved: SVG and PNG, the same bytes for the same numbers.

Colours are told apart by the colour-blind (Okabe and Ito) and never carry meaning alone: every
series has its own line, marker or text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports import prose
from reports.results import ReportedMetric, SweepResults
from reports.typeset import make_printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 6.7  # Inches: the text width of the A4 page, so that font sizes are those on paper
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#555555"
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "reports",
    "svg.fonttype": "path",
    "text.parse_math": False,
}


@contextmanager
def new_figure(width: float, height: float) -> Iterator[Figure]:
    """A figure of a size in inches, in the style of reports as long as the context lasts."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


@contextmanager
def new_canvas(height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure of one axes whose units are inches, y downwards, for pictures side by side."""
    with new_figure(WIDTH, height) as figure:
        figure.set_layout_engine("none")
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0), autoscale_on=False)
        axes.set_axis_off()
        yield figure, axes


def lay_out(figure: Figure) -> None:
    """Decide where on paper everything lies, with all text as it will be written."""
    _make_texts_printable(figure)
    figure.draw_without_rendering()


def save(figure: Figure, folder: Path, name: str, dpi: int = 200) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _make_texts_printable(figure)
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})
    figure.savefig(folder / f"{name}.png", dpi=dpi, metadata={"Software": None})


def _make_texts_printable(figure: Figure) -> None:
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_text(make_printable(text.get_text()))


def plot_points(axes: Axes, x: Any, y: Any, *, size: float, **style: Any) -> None:
    """Markers without a line between them."""
    shape: dict[str, Any] = {"marker": "o", "linestyle": "none", "markersize": size}
    axes.plot(x, y, **(shape | style))


def wrap(text: str, width: int) -> str:
    """Text in lines of ``width`` signs, broken at blanks and behind underscores."""
    lines = [""]
    for piece in re.findall(r"[^ _]*[ _]|[^ _]+", make_printable(text)):
        if lines[-1] and len((lines[-1] + piece).rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)


def count_seeds(results: SweepResults, *metrics: str) -> str:
    """N, the seeds that have a value of the metrics (the headline if none is given)."""
    keys = metrics or (results.headline.key,)
    counts = [min(len(cell.per_seed(key)) for key in keys) for cell in results.cells]
    if min(counts) < max(counts):
        return f"N = {prose.join_range(counts)} seeds (missing ones are named below)"
    return f"N = {prose.count(counts[0], 'seed')}"


def title_difference(metric: ReportedMetric) -> str:
    """Of an axis of differences."""
    return f"Difference in {prose.lower(metric.label)}{metric.in_parentheses}"
