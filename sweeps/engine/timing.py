"""Where the time of a sweep's trials went."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from rich.table import Table

from conf.describe import show_count
from lightning_modules.training.progress import format_duration

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

__all__ = ["timing", "timing_table"]

PHASES = {
    "start": "start: imports, the backbone",
    "data": "data",
    "train": "training",
    "sample": "sampling",
    "score": "metrics",
    "rest": "processes, queue, MLflow",
}


def timing(trials: Collection[FrozenTrial]) -> dict[str, float]:
    """Phase -> seconds in all, of the finished trials that know; what lies between a trial's phases
    and its claim and end is "rest"."""
    sums: dict[str, float] = {}
    for trial in trials:
        phases = trial.user_attrs.get("phases")
        if trial.state.name != "COMPLETE" or not phases or trial.duration is None:
            continue
        rest = max(trial.duration.total_seconds() - sum(phases.values()), 0.0)
        for phase, seconds in {**phases, "rest": rest}.items():
            sums[phase] = sums.get(phase, 0.0) + seconds
    return sums


def timing_table(trials: Collection[FrozenTrial]) -> Table | None:
    """A row a phase: in all, for a trial, and its share. None if no finished trial knows."""
    sums = timing(trials)
    total = sum(sums.values())
    if not total:
        return None
    count = sum(t.state.name == "COMPLETE" and bool(t.user_attrs.get("phases")) for t in trials)
    title = f"where the time of {show_count(count, 'trial')} went"
    table = Table("phase", title=title, title_justify="left", title_style="")
    for name in ("in all", "a trial", "share"):
        table.add_column(name, justify="right")
    known = list(PHASES)
    for phase in sorted(sums, key=lambda p: known.index(p) if p in PHASES else len(known)):
        seconds = sums[phase]
        table.add_row(
            PHASES.get(phase, phase),
            format_duration(seconds),
            f"{seconds / count:.1f} s",
            f"{seconds / total:.0%}",
        )
    return table
