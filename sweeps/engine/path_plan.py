"""A sweep with ``mode=path``: the cells that the next step needs are added when those of the last
have finished.

What is known follows from the study and the results alone, so that the next start goes on where one
stopped.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from dataclasses import dataclass, field

from sweeps.engine.path import AblationPath
from sweeps.engine.plan import Job, Plan
from sweeps.engine.trials import Key, key_of
from sweeps.sweep import Cell

__all__ = ["PathPlan", "make_path_plan"]


@dataclass
class PathPlan(Plan):
    """See the module."""

    path: AblationPath = field(kw_only=True)

    def describe_size(self) -> str:
        return f"path to {self.path.to.text}: {super().describe_size()} so far"

    def unknown_trials(self) -> int:
        known = sum(not cell.untouched for cell in self.request.cells)
        return max(0, self.path.most_cells - known) * len(self.request.seeds)

    def prepare(self) -> None:
        self._advance()

    def claim(self, training: Collection[str] = ()) -> Job | None:
        job = super().claim(training)
        if job is None and self._advance():
            known = {key_of(t) for t in self.queue.trials("WAITING", "RUNNING", "COMPLETE")}
            for key in self.planned:
                if key not in known:
                    self.enqueue(key)
            job = super().claim(training)
        return job

    def _advance(self) -> bool:
        """Add the cells that results ask for; True if there are new ones."""
        added = False
        while new := self._missing():
            self.request.cells.extend(new)
            self.mirror.add_cells(self.request.cells)
            added = True
        return added

    def _missing(self) -> list[Cell]:
        known = {cell.text for cell in self.request.cells}
        cells = self.path.cells(self._means(self.done()))
        return [cell for cell in cells if cell.text not in known]

    def _means(self, done: Collection[Key]) -> dict[str, float]:
        """Of the headline, of the cells whose seeds have all finished; NaN where one has none."""
        headline, seeds = self.request.sweep.headline, self.request.seeds
        stored = self.mirror.seeds()
        return {
            cell.text: math.fsum(
                stored.get(cell.text, {}).get(seed, {}).get(headline, math.nan) for seed in seeds
            )
            / len(seeds)
            for cell in self.request.cells
            if all((cell.text, seed) in done for seed in seeds)
        }


def make_path_plan(plan: Plan) -> PathPlan:
    """The path with the queue and the experiment of ``plan``."""
    parts = {item.name: getattr(plan, item.name) for item in dataclasses.fields(plan)}
    assert plan.request.path is not None
    return PathPlan(**parts, path=plan.request.path)
