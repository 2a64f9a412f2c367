"""Best and worst cases: prompts that a method wins and loses, picked by a rule and not by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reports import prose
from reports.figures.images import LABEL, LINE, draw_sample, write_centered, write_prompt
from reports.figures.style import WIDTH, new_canvas, save, wrap
from reports.results import CellResults, Samples, SweepResults
from reports.seeds import describe_noise
from reports.typeset import Picture

EACH = 3  # Best and worst cases
SEEDS = 3  # Pairs of images side by side
BETWEEN, LARGEST = 0.1, 0.9  # Inches between pairs, and of an image at most


@dataclass(frozen=True)
class Cases:
    """``cell`` against ``base``, image by image.

    ``won`` and ``lost`` map an image's id to the seeds at which ``cell`` alone, or ``base`` alone,
    has it right, the most of them first.
    """

    cell: CellResults
    base: CellResults
    seeds: tuple[int, ...]
    kept: int  # Images that both kept at each of the seeds, each judged
    won: dict[str, list[int]]
    lost: dict[str, list[int]]


def find_cases(results: SweepResults) -> Cases | None:
    """The control against the untouched backbone; None where no pair of judged images was kept.

    Where there is no untouched backbone besides, the level that differs most from the control in
    the headline metric's mean is shown against it.
    """
    cell, base = results.control, results.untouched
    if base is None:
        farthest = _find_farthest(results)
        if farthest is None:
            return None
        cell, base = farthest, results.control
    sides = (cell, base)
    seeds = [s for s in results.seeds if all(_judged_images(side, s) is not None for side in sides)]
    images = {seed: [_judged_images(side, seed) or {} for side in sides] for seed in seeds}
    shared = [
        key
        for key in (images[seeds[0]][0] if seeds else {})
        if all(key in own for both in images.values() for own in both)
    ]
    if not shared:
        return None
    outcomes = {key: [(one[key], two[key]) for one, two in images.values()] for key in shared}
    won, lost = (pick_cases(outcomes, seeds, wins) for wins in ((True, False), (False, True)))
    return Cases(cell, base, tuple(seeds), len(shared), won, lost)


def pick_cases(
    outcomes: dict[str, list[tuple[bool, bool]]], seeds: Sequence[int], pattern: tuple[bool, bool]
) -> dict[str, list[int]]:
    """Ids with outcomes (of the cell, of its base) of ``pattern`` at some seeds -> those seeds.

    At most ``EACH``: those with the most such seeds, of equals the first in the order of the plan.
    """
    matching = {
        key: [seed for seed, pair in zip(seeds, pairs, strict=True) if pair == pattern]
        for key, pairs in outcomes.items()
    }
    ranked = sorted(filter(matching.get, matching), key=lambda key: -len(matching[key]))
    return {key: matching[key] for key in ranked[:EACH]}


def _find_farthest(results: SweepResults) -> CellResults | None:
    """The level whose mean difference from the control is the largest."""
    control, metric = results.control, results.headline.key
    base = control.per_seed(metric)
    shifts: list[tuple[float, CellResults]] = []
    for cell in results.levels:
        own = cell.per_seed(metric)
        common = own.keys() & base.keys()
        if results.control_of(cell) is control and common:
            shifts.append((abs(sum(own[s] - base[s] for s in common) / len(common)), cell))
    return max(shifts, key=lambda entry: entry[0], default=(0.0, None))[1]


def _judged_images(cell: CellResults, seed: int) -> dict[str, bool] | None:
    """Id -> whether it is right, of the images that were kept and judged."""
    samples = cell.trials[seed].samples if seed in cell.trials else None
    if samples is None:
        return None
    rows = zip(samples.ids, samples.images, samples.success, strict=True)
    return {key: right for key, image, right in rows if image is not None and right is not None}


def draw_cases(results: SweepResults, cases: Cases | None, folder: Path) -> Picture | None:
    """One row a case, two images at each of up to ``SEEDS`` seeds; None where there is no case."""
    if cases is None or not (cases.won or cases.lost):
        return None
    rows = [("won", key, seeds) for key, seeds in cases.won.items()]
    rows += [("lost", key, seeds) for key, seeds in cases.lost.items()]
    pairs = min(SEEDS, len(cases.seeds))
    side = min(LARGEST, ((WIDTH - LABEL) / pairs - BETWEEN) / 2)
    names = [wrap(cell.label, 12) for cell in (cases.base, cases.cell)]
    head = LINE * (1.5 + max(name.count("\n") + 1 for name in names))
    row_height = LINE + side + 0.03
    lefts = [LABEL + k * (2 * side + BETWEEN) for k in range(pairs)]
    first = cases.cell.trials[cases.seeds[0]].samples
    assert first is not None
    with new_canvas(head + len(rows) * row_height) as (figure, axes):
        for left in lefts:
            for k, name in enumerate(names):
                write_centered(axes, left + (k + 0.5) * side, head - 0.06, name, 7, bold=True)
        for r, (kind, key, hits) in enumerate(rows):
            top, i = head + r * row_height + LINE, first.ids.index(key)
            n = len(cases.seeds)
            count = "its one seed" if n == 1 else f"{len(hits)} of {n} seeds"
            above = f"{kind} at {count}\n"
            write_prompt(axes, top + side / 2, first.prompts[i], first.splits[i], above)
            shown = [*hits, *(seed for seed in cases.seeds if seed not in hits)][:pairs]
            for left, seed in zip(lefts, sorted(shown), strict=True):
                when = f"seed {seed}: {kind}" if seed in hits else f"seed {seed}"
                write_centered(axes, left + side, top - 0.02, when, 7)
                for x, cell in ((left, cases.base), (left + side, cases.cell)):
                    draw_sample(axes, results, cell.trials[seed], key, x, top, side)
        save(figure, folder, "cases", dpi=300)
    alt = "Pairs of images that the method won and lost against what it is compared with"
    return Picture("cases.png", _caption(results, cases), alt)


def _name_base(results: SweepResults, cases: Cases) -> str:
    return "the " * cases.base.untouched + prose.name_cell(results, cases.base)


def _caption(results: SweepResults, cases: Cases) -> str:
    cell, base = prose.name_cell(results, cases.cell), _name_base(results, cases)
    sides = {"best": cases.won, "worst": cases.lost}
    counts = [f"{len(part)} {name}" for name, part in sides.items() if part]
    plural = "s" if len(cases.won) + len(cases.lost) > 1 else ""
    seeds = f"seed{'s' if len(cases.seeds) > 1 else ''} {', '.join(map(str, cases.seeds))}"
    text = (
        f"{prose.join(counts).capitalize()} case{plural} of {cell} (right of each pair) against "
        f"{base} (left), same prompt, {describe_noise(results)}. Selected by rule among the "
        f"N = {prose.count(cases.kept, 'image')} "
        f"that both kept at {seeds}: best are those won in most seeds (only {cell} is right, ✓), "
        f"worst those lost in most (only {base} is), of equals the first of the plan"
    )
    if len(cases.seeds) > SEEDS:
        text += f"; of {len(cases.seeds)} seeds {SEEDS} are shown, those won or lost before others"
    for word, part in (("won", cases.won), ("lost", cases.lost)):
        if not part:
            text += f"; none was {word} in any seed"
    outlined = any(
        _has_mask(cell.trials[s].samples, cases)
        for cell in (cases.base, cases.cell)
        for s in cases.seeds
    )
    return text + "." + (" Outlines: where the objects should be." if outlined else "")


def _has_mask(samples: Samples | None, cases: Cases) -> bool:
    rows = zip(samples.ids, samples.masks, strict=True) if samples else ()
    return any(mask and (key in cases.won or key in cases.lost) for key, mask in rows)


def explain_no_cases(results: SweepResults, cases: Cases | None) -> str:
    """A sentence where pairs were looked at and none differed; else empty."""
    if cases is None or cases.won or cases.lost:
        return ""
    return (
        "Best and worst cases are not shown, since there are none: of the "
        f"{prose.count(cases.kept, 'image')} that were kept, "
        f"{prose.name_cell(results, cases.cell)} and "
        f"{_name_base(results, cases)} have the same ones right at every seed."
    )
