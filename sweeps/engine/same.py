"""Which cells of a sweep are the same, since nothing reads a factor beside the level of another:
each such trial would be trained in full, and say nothing of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from conf import schema
from conf.conditions import Unread, find_undrawn, find_unread, list_read
from conf.describe import describe
from sweeps.engine.errors import PlanError
from sweeps.sweep import UNTOUCHED, Cell, Factor, Sweep, level_text

__all__ = ["SameCells", "check_factors", "find_same"]


@dataclass(frozen=True)
class SameCells:
    """Cells that are the same as ``cell``, which stands for them; ``why`` is what decides that."""

    cell: Cell
    others: tuple[Cell, ...]
    why: str

    def describe(self) -> str:
        """a; b: the same as c, …"""
        names = "; ".join(other.text for other in self.others)
        return f"{names}: the same as {self.cell.text}, {self.why}: not run by themselves"


def check_factors(
    sweep: Sweep, cells: Sequence[Cell], runs: Sequence[schema.Run], searched: bool
) -> None:
    """Raises PlanError for a factor that no trial reads, or that no image depends on. ``runs`` are
    the settings of ``cells``."""
    for factor in sweep.factors:
        keys = _keys(factor)
        unread = [
            find_undrawn(run, keys)
            | find_unread(run, keys, keys & cell.evaluation.keys() - cell.training.keys())
            for cell, run in zip(cells, runs, strict=True)
        ]
        # In several factors, one that is not varied trains nothing in vain
        levels = {level_text(cell.values[factor.key]) for cell in cells}
        varied = searched or len(levels) > 1 or len(sweep.factors) == 1
        if not (keys and runs and varied and all(keys <= found.keys() for found in unread)):
            continue
        why = unread[0][min(keys)]
        reason = f"with {why.by} no trial reads it, and all of them"
        if any(find_undrawn(run, keys) for run in runs):
            reason = f"with {why.by}: no image depends on it, and all images"
        if searched:
            raise PlanError(
                f"mode=search over {factor.key}: {reason} would be the same; choose another"
            )
        listed = ", ".join(map(level_text, factor.levels))
        raise PlanError(
            f"{sweep.name} varies {factor.key} ({listed}), but {reason} would be the same; "
            f"{why.cure}"
        )


def find_same(
    sweep: Sweep, cells: Iterable[Cell], run_of: Callable[[Cell], schema.Run]
) -> list[SameCells]:
    """The groups of cells with the same settings in all that is read. For each stands the control,
    else the cell with most of its levels; under one control alone, where there are several."""
    own = [cell for cell in cells if cell.text != UNTOUCHED]
    settings = {key for cell in own for key in (*cell.training, *cell.evaluation)}
    known = describe(schema.Run)
    keys = {
        key
        for name in settings
        for key in ([name] if name in known.settings else known.settings)
        if name == key or key.startswith(f"{name}.")
    }
    groups: dict[str, list[tuple[Cell, Mapping[str, Unread]]]] = {}
    for cell in own:
        run = run_of(cell)
        unread = find_unread(run, keys)
        facts = [list_read(run, keys), cell.values[sweep.within] if sweep.within else None]
        groups.setdefault(json.dumps(facts, sort_keys=True), []).append((cell, unread))
    return [_merge(sweep, group) for group in groups.values() if len(group) > 1]


def _merge(sweep: Sweep, group: Sequence[tuple[Cell, Mapping[str, Unread]]]) -> SameCells:
    def distance(cell: Cell) -> int:
        changed = (level_text(cell.values[k]) != level_text(v) for k, v in sweep.control.items())
        return sum(changed)

    first, unread = min(group, key=lambda one: (not one[0].control, distance(one[0])))
    others = tuple(cell for cell, _ in group if cell is not first and not cell.control)
    reasons = {
        f"since nothing reads {factor.key} with {unread[key].by}": None
        for factor in sweep.factors
        for key in sorted(_keys(factor) & unread.keys())
        if any(_differ(factor, first, other) for other in others)
    }
    return SameCells(first, others, "; ".join(reasons) or "by all settings that are read")


def _differ(factor: Factor, one: Cell, other: Cell) -> bool:
    return level_text(one.values[factor.key]) != level_text(other.values[factor.key])


def _keys(factor: Factor) -> set[str]:
    """The settings that its levels set."""
    return {key for level in factor.levels for key in factor.settings_of(level)}
