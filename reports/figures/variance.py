"""What the variance of an image, and of a difference between cells, is made of, as two bars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports import prose
from reports.figures.style import WIDTH, new_figure, save, wrap
from reports.typeset import Picture
from reports.variances import Source, Variance, name_image, show_share

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHT, LINE = 1.5, 0.16  # Inches: the bars, and a line of the legend
NARROW = 0.055  # Of a bar: a part below has its number in the legend alone
INTERACTIONS = "interactions"
# Fill and hatch of what is chance: told apart in grey, too
LOOKS = {
    "seed": ("#8C8C8C", ""),
    "prompt": ("#C4C4C4", ""),
    "noise": ("#EDEDED", "...."),
    "cell × seed": ("#D55E00", ""),
    "cell × prompt": ("#E69F00", "////"),
    "image": ("#FBE3CF", ""),
}
LOOKS |= {
    "trainings": LOOKS["cell × seed"],
    "seeds": LOOKS["cell × seed"],
    "prompts": LOOKS["cell × prompt"],
    "images": LOOKS["image"],
}
FACTORS = (("#0072B2", ""), ("#56B4E9", "xxxx"), ("#003F66", "...."), ("#9CCFEF", "----"))
TOGETHER = ("#009E73", "\\\\\\\\")


def draw_variance(variance: Variance | None, folder: Path) -> Picture | None:
    """Above an image of all cells, below a difference between two; None without any variance."""
    if variance is None:
        return None
    sources, parts = variance.sources, variance.parts
    bars = [("An image", merge_sources(sources))] if any(s.share > 0 for s in sources) else []
    if parts is not None and parts.shares:
        bars.append(("A difference\nbetween cells", [*parts.shares.items()]))
    if not bars:
        return None
    looks = LOOKS | dict(
        zip([s.name for s in sources if len(s.factors) == 1], FACTORS * 3, strict=False)
    )
    looks[INTERACTIONS] = TOGETHER
    entries = sum(len(shares) for _, shares in bars)
    with new_figure(WIDTH, HEIGHT * len(bars) / 2 + 0.25 + LINE * -(-entries // 3)) as figure:
        panels = figure.subplots(len(bars), 1, squeeze=False)[:, 0]
        for axes, (name, shares) in zip(panels, bars, strict=True):
            _draw_bar(axes, name, shares, looks)
        save(figure, folder, "variance")
    noun = prose.lower(variance.label)
    caption = f"What the variance of {noun} is made of."
    what = "An image" if variance.images == 1 else f"An image ({name_image(variance.images)})"
    if len(bars) > 1 or bars[0][0] == "An image":
        caption += (
            f" {what}: what cells, seeds, prompts and noise contribute; what is alike in all "
            "cells (seed, prompt, noise) leaves a difference between cells alone."
        )
    if parts is not None and parts.shares:
        caption += (
            " A difference between cells: of means over "
            f"{prose.count(parts.seeds, parts.unit)} and {prose.count(parts.prompts, 'prompt')} "
            f"each, what {parts.unit}s, prompts that suit one cell more, and single images "
            "contribute."
        )
    said = "; ".join(
        f"{name.lower()}: " + ", ".join(f"{n} {show_share(s)}" for n, s in shares)
        for name, shares in bars
    ).replace("\n", " ")
    return Picture("variance.svg", caption, f"Shares of the variance of {noun}. {said}")


def merge_sources(sources: Sequence[Source]) -> list[tuple[str, float]]:
    """Name and share of each source, with all interactions of factors as one."""
    shares: dict[str, float] = {}
    for source in sources:
        name = INTERACTIONS if len(source.factors) > 1 else source.name
        shares[name] = shares.get(name, 0.0) + source.share
    return list(shares.items())


def _draw_bar(
    axes: Axes,
    name: str,
    shares: Sequence[tuple[str, float]],
    looks: dict[str, tuple[str, str]],
) -> None:
    left = 0.0
    for source, share in shares:
        color, hatch = looks[source]
        style: dict[str, Any] = {"color": color, "hatch": hatch, "edgecolor": "black"}
        label = f"{wrap(source, 34)} {show_share(share)}"
        axes.barh(0, share, left=left, height=0.8, linewidth=0.6, label=label, **style)
        if share >= NARROW:
            box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "linewidth": 0}
            place: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7, "bbox": box}
            axes.text(left + share / 2, 0, show_share(share), **place)
        left += share
    axes.set(xlim=(0, 1), ylim=(-0.45, 0.45), xticks=[])
    axes.set_yticks([0], [name])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    look: dict[str, Any] = {"fontsize": 7.5, "ncols": 3, "handlelength": 1.6, "handleheight": 0.9}
    axes.legend(loc="upper left", bbox_to_anchor=(-0.005, -0.02), borderaxespad=0.1, **look)
