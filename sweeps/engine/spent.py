"""Where the time of a sweep's trials went, as a small table."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from lightning_modules.training.progress import format_duration

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial
    from rich.table import Table

__all__ = ["spent", "spent_table"]

PHASES = {
    "start": "start: imports, the backbone",
    "data": "data",
    "train": "training",
    "sample": "sampling",
    "score": "metrics",
    "rest": "processes, queue, MLflow",
}


def spent(trials: Collection[FrozenTrial]) -> dict[str, float]:
    """Phase -> seconds in all, of the finished trials that know; what lies between a trial's phases and its claim and end is "rest"."""
    sums: dict[str, float] = {}
    for trial in trials:
        phases = trial.user_attrs.get("phases")
        if trial.state.name != "COMPLETE" or not phases or trial.duration is None:
            continue
        rest = max(trial.duration.total_seconds() - sum(phases.values()), 0.0)
        for phase, seconds in {**phases, "rest": rest}.items():
            sums[phase] = sums.get(phase, 0.0) + seconds
    return sums


def spent_table(trials: Collection[FrozenTrial]) -> Table | None:
    """A row a phase: in all, for a trial, and its share. None where no finished trial knows."""
    from rich.table import Table

    sums, total = spent(trials), sum(spent(trials).values())
    if not total:
        return None
    count = sum(trial.state.name == "COMPLETE" and bool(trial.user_attrs.get("phases")) for trial in trials)
    table = Table(title=f"where the time of {count} trials went", title_justify="left", title_style="")
    table.add_column("phase")
    for name in ("in all", "a trial", "share"):
        table.add_column(name, justify="right")
    for phase in sorted(sums, key=lambda phase: list(PHASES).index(phase) if phase in PHASES else len(PHASES)):
        table.add_row(PHASES.get(phase, phase), format_duration(sums[phase]), f"{sums[phase] / count:.1f} s", f"{sums[phase] / total:.0%}")
    return table
