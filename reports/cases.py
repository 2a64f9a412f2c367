"""Best and worst cases: prompts that a method wins and loses against the untouched backbone, picked by a rule and not by hand."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reports.figures import WIDTH, Picture, canvas, save, wrapped
from reports.images import GAP, LABEL, LINE, draw_image, draw_outline
from reports.study import Cell, Samples, Study
from reports.tables import listed

__all__ = ["Cases", "cases", "find", "none", "pick"]

EACH = 3  # best and worst cases
SEEDS = 3  # pairs of images side by side
BETWEEN = 0.1  # inches between pairs


@dataclass(frozen=True)
class Cases:
    """`won` and `lost` map an image's id to the seeds at which `cell` alone, or `base` alone, has it right, the most of them first."""

    cell: Cell
    base: Cell
    seeds: tuple[int, ...]
    kept: int  # images that both kept at each of the seeds, each judged
    won: dict[str, list[int]]
    lost: dict[str, list[int]]


def find(study: Study) -> Cases | None:
    """The baseline cell against the untouched backbone; where that is itself the baseline, the level that differs most from it in the
    headline metric's mean. None where no pair of judged images was kept."""
    cell, base = (study.baseline, study.reference) if study.reference else (_farthest(study), study.baseline)
    if cell is None or base is None:
        return None
    seeds = [seed for seed in study.seeds if all(seed in side.trials and side.trials[seed].samples for side in (cell, base))]
    left, right = ([_kept(side.trials[seed].samples) for seed in seeds] for side in (cell, base))
    everywhere = [key for key in (left[0] if left else {}) if all(key in side for side in (*left, *right))]
    if not everywhere:
        return None
    outcomes = {key: [(one[key], other[key]) for one, other in zip(left, right, strict=True)] for key in everywhere}
    won, lost = (pick(outcomes, seeds, pattern) for pattern in ((True, False), (False, True)))
    return Cases(cell, base, tuple(seeds), len(everywhere), won, lost)


def pick(outcomes: dict[str, list[tuple[bool, bool]]], seeds: Sequence[int], pattern: tuple[bool, bool]) -> dict[str, list[int]]:
    """Ids whose outcomes (of the cell, of what it is compared with) show `pattern` at one seed or more -> those seeds.

    At most `EACH`: those with the most such seeds, of equals the first in the order of the plan.
    """
    matching = {key: [seed for seed, pair in zip(seeds, pairs, strict=True) if pair == pattern] for key, pairs in outcomes.items()}
    order = sorted((key for key in matching if matching[key]), key=lambda key: -len(matching[key]))
    return {key: matching[key] for key in order[:EACH]}


def _farthest(study: Study) -> Cell | None:
    base = study.baseline.per_seed(study.headline.key)
    shifts: dict[str, float] = {}
    for cell in study.levels:
        own = cell.per_seed(study.headline.key)
        if study.base_of(cell) is study.baseline and (common := own.keys() & base.keys()):
            shifts[cell.name] = abs(sum(own[seed] - base[seed] for seed in common) / len(common))
    best = max(shifts, key=lambda name: shifts[name], default=None)
    return next((cell for cell in study.levels if cell.name == best), None)


def _kept(samples: Samples | None) -> dict[str, bool]:
    """Id -> whether it is right, of the images that were kept and judged."""
    assert samples is not None
    judged = zip(samples.ids, samples.images, samples.success, strict=True)
    return {key: right for key, image, right in judged if image is not None and right is not None}


def cases(study: Study, found: Cases | None, folder: Path) -> Picture | None:
    """One row a case, and at each of up to `SEEDS` seeds two images; None where there is no case."""
    if found is None or not (found.won or found.lost):
        return None
    rows = [("won", key, seeds) for key, seeds in found.won.items()] + [("lost", key, seeds) for key, seeds in found.lost.items()]
    pairs = min(SEEDS, len(found.seeds))
    side = min(0.9, ((WIDTH - LABEL) / pairs - BETWEEN) / 2)
    names = [wrapped("untouched backbone" if cell.reference else cell.label, 12) for cell in (found.base, found.cell)]
    head = LINE * (1.5 + max(name.count("\n") + 1 for name in names))
    high = LINE + side + 0.03
    height = head + len(rows) * high
    with canvas(WIDTH, height) as figure:
        figure.set_layout_engine("none")
        axes = figure.add_axes((0, 0, 1, 1))  # one axes in inches, y downwards
        axes.set_axis_off()
        for k in range(2 * pairs):
            x = LABEL + k // 2 * (2 * side + BETWEEN) + (k % 2 + 0.5) * side
            axes.text(x, head - 0.06, names[k % 2], ha="center", va="bottom", fontsize=7, fontweight="bold")
        for r, (kind, key, hits) in enumerate(rows):
            top = head + r * high + LINE
            samples = found.cell.trials[found.seeds[0]].samples
            assert samples is not None
            place = samples.ids.index(key)
            text = (
                f"{kind} at {_counted(len(hits), len(found.seeds))}\n{textwrap.fill(samples.prompts[place], 24)}\n({samples.splits[place]})"
            )
            axes.text(0.0, top + side / 2, text, va="center", ha="left", fontsize=7.5)
            shown = [*hits, *(seed for seed in found.seeds if seed not in hits)][:pairs]
            for k, seed in enumerate(sorted(shown)):
                left = LABEL + k * (2 * side + BETWEEN)
                when = f"seed {seed}: {kind}" if seed in hits else f"seed {seed}"
                axes.text(left + side, top - 0.02, when, ha="center", va="bottom", fontsize=7)
                for x, cell in ((left, found.base), (left + side, found.cell)):
                    trial = cell.trials[seed]
                    assert trial.samples is not None
                    own = trial.samples.ids.index(key)
                    extent = (x + GAP, x + side - GAP, top + side - GAP, top + GAP)
                    draw_image(axes, study.fetch(trial, str(trial.samples.images[own])), trial.samples.success[own], extent)
                    if (target := trial.samples.masks[own]) is not None:
                        draw_outline(axes, study.fetch(trial, target), extent)
        axes.set(xlim=(0, WIDTH), ylim=(height, 0), aspect="auto")
        save(figure, folder, "cases", dpi=300)
    return Picture("cases.png", _caption(study, found), "Pairs of images that the method won and lost against what it is compared with")


def _counted(hits: int, seeds: int) -> str:
    return "its one seed" if seeds == 1 else f"{hits} of {seeds} seeds"


def _caption(study: Study, found: Cases) -> str:
    base, cell = (study.words(one) for one in (found.base, found.cell))
    whom = "the untouched backbone" if found.base.reference else base
    told = [f"{len(part)} {name}" for name, part in (("best", found.won), ("worst", found.lost)) if part]
    absent = [f"none was {name}" for name, part in (("won", found.won), ("lost", found.lost)) if not part]
    seeds = f"seeds {', '.join(map(str, found.seeds))}" if len(found.seeds) > 1 else f"seed {found.seeds[0]}"
    plural = "s" if len(found.won) + len(found.lost) > 1 else ""
    text = (
        f"{listed(told).capitalize()} case{plural} of {cell} (right of each pair) against {whom} (left), same prompt and noise. Chosen by "
        f"rule among the N = {found.kept} images that both kept at {seeds}: best are those won in most seeds (only {cell} is "
        f"right, ✓), worst those lost in most (only {whom} is), of equals the first of the plan"
    )
    if len(found.seeds) > SEEDS:
        text += f"; of {len(found.seeds)} seeds {SEEDS} are shown, those won or lost before others"
    text += f"; {absent[0]} in any seed." if absent else "."
    shown = [*found.won, *found.lost]
    samples = [trial.samples for one in (found.base, found.cell) for trial in one.trials.values() if trial.samples]
    outlined = any(key in shown and mask for own in samples for key, mask in zip(own.ids, own.masks, strict=True))
    return text + (" Outlines: where the objects should be." if outlined else "")


def none(study: Study, found: Cases | None) -> str:
    """A sentence where pairs were looked at and none differed; else empty."""
    if found is None or found.won or found.lost:
        return ""
    whom = "the untouched backbone" if found.base.reference else study.words(found.base)
    return (
        f"Best and worst cases are not shown, since there are none: of the {found.kept} images that were kept, "
        f"{study.words(found.cell)} and {whom} have the same ones right at every seed."
    )
