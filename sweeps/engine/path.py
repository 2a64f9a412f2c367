"""``mode=path``: from the control to a cell, one factor at a time, the largest gain first; and from
that cell back, each change taken away alone. Of 2^k combinations about k²/2 are needed."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import combinations

from conf.describe import nearest, show_count
from sweeps.sweep import Cell, Sweep, level_text

__all__ = ["AblationPath", "plan_path"]

FEWEST = 2  # Changes


@dataclass(frozen=True)
class AblationPath:
    """``changes``: keys of the factors in which the cell ``to`` differs from the control."""

    sweep: Sweep
    to: Cell
    when: str
    same: frozenset[str] = frozenset()  # Names of cells that are the same as another

    @property
    def changes(self) -> frozenset[str]:
        control = self.sweep.control
        return frozenset(
            key for key in control if level_text(self.to.values[key]) != level_text(control[key])
        )

    def cell(self, changed: Collection[str]) -> Cell:
        """The control with the levels of ``to`` in the factors ``changed``."""
        own = {key: self.to.values[key] for key in changed}
        return self.sweep.cell({**self.sweep.control, **own}, self.when)

    def every_cell(self) -> list[Cell]:
        """Those of all combinations of changes, the control first."""
        keys = self._in_order(self.changes)
        sets = [some for count in range(len(keys) + 1) for some in combinations(keys, count)]
        return [self.cell(some) for some in sets if not self._left_out(some)]

    def cells(self, means: Mapping[str, float]) -> list[Cell]:
        """Those that are needed first, and of each step those that the results before it ask for;
        ``means`` are of the headline, by the names of cells. Without combinations that are left
        out."""
        done: frozenset[str] = frozenset()
        sets = [self.changes, *(self.changes - {key} for key in self._in_order(self.changes))]
        while len(done) < len(self.changes) - 1:
            steps = [done | {key} for key in self._in_order(self.changes - done)]
            steps = [step for step in steps if not self._left_out(step)]
            sets += steps
            values = {step: means.get(self.cell(step).text, math.nan) for step in steps}
            if not steps or not all(map(math.isfinite, values.values())):
                break
            sign = -1 if self.sweep.direction == "lower" else 1
            done = max(steps, key=lambda step: sign * values[step])
        found = [self.cell(changed) for changed in sets if not self._left_out(changed)]
        return list({cell.text: cell for cell in found}.values())

    @property
    def most_cells(self) -> int:
        """How many there are at the end, with the control, where nothing is left out."""
        k = len(self.changes)
        sets: set[frozenset[str]] = {frozenset()}
        keys = self._in_order(self.changes)
        for done in range(k):
            sets |= {frozenset([*keys[:done], key]) for key in keys[done:]}
        return len(sets | {self.changes - {key} for key in keys})

    def describe(self) -> str:
        most, first = self.most_cells, len(self.cells({})) + 1
        text = (
            f"path: from the control, one change at a time, to {self.to.text}: "
            f"{show_count(len(self.changes), 'change')}, {most} of {2 ** len(self.changes)} cells"
        )
        rest = "; the cells below come first, the others follow from their results"
        return text + (rest if first < most else "")

    def _in_order(self, keys: Collection[str]) -> list[str]:
        return [key for key in self.sweep.keys if key in keys]

    def _left_out(self, changed: Collection[str]) -> bool:
        cell = self.cell(changed)
        return self.sweep.leaves_out(cell.values) or cell.text in self.same


def plan_path(sweep: Sweep, to: str | None, when: str) -> AblationPath:
    """The path to the cell of that name. Raises ValueError."""
    if sweep.within:
        raise ValueError(
            f"mode=path begins at one control, but {sweep.name} has one for each {sweep.within}; "
            "use mode=grid"
        )
    known = {cell.text: cell for cell in sweep.cells(when) if not cell.untouched}
    if to is None or to not in known:
        what = "mode=path" if to is None else f"to={to}"
        raise ValueError(
            f"{what}: expected to=CELL, a cell of {sweep.name} as --plan prints it, such as "
            f"'to={next(text for text, cell in known.items() if not cell.control)}'"
            f"{nearest(to or '', known)}"
        )
    path = AblationPath(sweep, known[to], when)
    if len(path.changes) < FEWEST:
        differs = f"in {show_count(len(path.changes), 'factor')}" if path.changes else "in nothing"
        raise ValueError(
            f"to={to} differs from the control {differs}: a path puts {FEWEST} changes or more in "
            "order; use mode=list to compare two cells"
        )
    return path
