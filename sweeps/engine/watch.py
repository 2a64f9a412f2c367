"""A look at a sweep that another process runs: who it is, and its table, which is only read."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING

from rich.live import Live
from rich.table import Table
from rich.text import Text

from conf.files import read_json
from lightning_modules.training.progress import PROGRESS, format_duration
from sweeps.engine.display import make_console, show
from sweeps.engine.locks import find_owner
from sweeps.engine.status import TrialCounts
from sweeps.engine.trials import key_of, read_trials
from sweeps.sweep import trial_folder

if TYPE_CHECKING:
    from sweeps.engine.errors import SweepBusy

__all__ = ["watch_sweep"]

PAUSE = 1.0  # Seconds between two looks


def watch_sweep(busy: SweepBusy) -> None:
    """Prints who runs it and its trials: in a terminal until it has ended, elsewhere once."""
    console = make_console()
    show(console, f"{busy}: this command runs nothing and only looks")
    if not console.is_terminal:
        show(console, _draw_table(busy))
        return
    show(console, "Ctrl-C ends this look, not the sweep")
    with Live(_draw_table(busy), console=console, auto_refresh=False) as live:
        while find_owner(busy.folder) is not None:
            time.sleep(PAUSE)
            live.update(_draw_table(busy), refresh=True)
    show(console, "it has ended; the same command now says the answer, or goes on")


def _draw_table(busy: SweepBusy) -> Table:
    """One row a trial that runs."""
    trials = read_trials(busy.folder, busy.folder.name)
    table = Table("trial", title=TrialCounts(trials).text(), title_justify="left")
    table.add_column("state")
    table.add_column("done", justify="right")
    table.add_column("time", justify="right")
    for trial in trials:
        if trial.state.name == "RUNNING":
            cell, seed = key_of(trial)
            path = busy.folder / "trials" / trial_folder(cell, seed) / PROGRESS
            known = (read_json(path) if path.is_file() else None) or {}
            began = trial.datetime_start or datetime.now()
            table.add_row(
                *map(Text, (f"{cell}, seed {seed}", known.get("text", "starting"))),
                f"{known.get('share', 0.0):.0%}",
                format_duration((datetime.now() - began).total_seconds()),
            )
    return table
