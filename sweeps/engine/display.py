"""What a person sees while a sweep runs: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lightning_modules.training.progress import format_duration
from sweeps.engine.eta import EtaEstimator
from sweeps.engine.events import tell

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sweeps.engine.plan import Job
    from sweeps.engine.trials import Key

__all__ = ["LiveDisplay", "LineDisplay", "make_console", "make_display", "show"]

WIDTH = 160  # Characters of a line if the output is no terminal


@dataclass
class RunningTrial:
    """A trial as it is shown."""

    device: str
    kind: str
    began: float
    phase: str = ""
    text: str = ""
    share: float = 0.0


class LineDisplay:
    """Plain lines: one when a trial starts, one for each of its phases, one when it ends."""

    def __init__(
        self,
        console: Console,
        eta: EtaEstimator,
        done: int,
        waiting: Mapping[Key, str],
        unknown: int = 0,
    ) -> None:
        """``waiting`` maps the (cell, seed) to come to their kind; ``unknown`` trials come after
        them, of cells that are not planned yet."""
        self.console, self.eta, self.done, self.unknown = console, eta, done, unknown
        self.waiting = dict(waiting)
        self.running: dict[Key, RunningTrial] = {}

    def __enter__(self) -> LineDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    @property
    def total(self) -> int:
        return self.done + len(self.waiting) + len(self.running) + self.unknown

    def start(self, job: Job, device: str = "") -> None:
        """A trial begins."""
        if self.waiting.pop(job.key, None) is None:
            self.unknown = max(self.unknown - 1, 0)
        self.running[job.key] = RunningTrial(device, job.kind, time.monotonic())
        _tell_trial(job, "started", device=device or None)

    def progress(self, job: Job, text: str, share: float) -> None:
        """What a training reports: a line, ``training: step 20/60``, and the share of the trial
        that is done."""
        shown = self.running[job.key]
        phase, shown.text, shown.share = text.partition(":")[0], text, share
        if phase != shown.phase:
            shown.phase = phase
            _tell_trial(job, "running", text=text, share=round(share, 4))
            where = f" on {shown.device}" if shown.device else ""
            count = f"[{self.done + 1}/{self.total}]"
            self.phase(f"{count} {job.name}{where}: {phase}{self.describe_rest()}")

    def phase(self, text: str) -> None:
        """A trial enters a phase."""
        self.line(text)

    def finish(self, job: Job, text: str, seconds: float) -> None:
        """A trial ended well."""
        self.eta.add(job.kind, seconds)
        self.running.pop(job.key, None)
        self.done += 1
        _tell_trial(job, "finished", text=text, seconds=seconds, done=self.done, total=self.total)
        count = f"[{self.done}/{self.total}]"
        self.line(f"{count} {job.name}: {text} ({format_duration(seconds)}){self.describe_rest()}")

    def retry(self, job: Job, text: str) -> None:
        """A trial failed and waits again."""
        self.running.pop(job.key, None)
        self.waiting[job.key] = job.kind
        _tell_trial(job, "waiting again", text=text)
        self.line(text)

    def drop(self, job: Job, text: str) -> None:
        """A trial failed for good, or was pruned."""
        self.running.pop(job.key, None)
        self.done += 1
        _tell_trial(job, "dropped", text=text)
        self.line(text)

    def line(self, text: str) -> None:
        """Print a line."""
        show(self.console, text)

    def describe_rest(self) -> str:
        """ ", about 8 min left", or "" if nothing is left or nothing tells."""
        now = time.monotonic()
        running = [(shown.kind, now - shown.began, shown.share) for shown in self.running.values()]
        waiting = [*self.waiting.values(), *["trained"] * self.unknown]
        seconds = self.eta.remaining(waiting, running)
        if seconds is None or not (waiting or running):
            return ""
        return f", about {format_duration(seconds)} left"


class LiveDisplay(LineDisplay):
    """A table of the running trials, kept up to date, below the lines of those that have ended."""

    def __enter__(self) -> LiveDisplay:
        self.live = Live(
            get_renderable=self.table, console=self.console, refresh_per_second=4, transient=True
        )
        self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def phase(self, text: str) -> None:
        """The table shows it."""

    def table(self) -> Table:
        """One row a trial: device, cell and seed, what it does (with step and loss while it
        trains), share done, time so far."""
        current = min(self.done + len(self.running), self.total)
        title = f"trial {current} of {self.total}{self.describe_rest()}"
        table = Table(
            title=title,
            title_justify="left",
            title_style="bold",
            expand=True,
            show_edge=False,
            pad_edge=False,
        )
        table.add_column("device", no_wrap=True)
        table.add_column("trial", ratio=2)
        table.add_column("state", ratio=3)
        table.add_column("done", justify="right", no_wrap=True)
        table.add_column("time", justify="right", no_wrap=True)
        now = time.monotonic()
        for (cell, seed), shown in self.running.items():
            words = (shown.device or "here", f"{cell}, seed {seed}", shown.text or "starting")
            elapsed = format_duration(now - shown.began)
            table.add_row(*map(Text, words), f"{shown.share:.0%}", elapsed)
        return table


def _tell_trial(job: Job, state: str, **facts: Any) -> None:
    cell, seed = job.key
    tell("trial", cell=cell, seed=seed, state=state, **facts)


def make_console() -> Console:
    """As wide as the terminal; wide enough for whole lines if the output goes elsewhere."""
    return Console(width=None if sys.stdout.isatty() else WIDTH)


def show(console: Console, content: RenderableType) -> None:
    """Print text or a table as it is. If the reader of a pipe is gone, rich would exit; a sweep
    goes on."""
    with suppress(SystemExit):
        console.print(content, markup=False, highlight=False, soft_wrap=isinstance(content, str))


def make_display(
    console: Console, eta: EtaEstimator, done: int, waiting: Mapping[Key, str], unknown: int = 0
) -> LineDisplay:
    """A live table if someone looks at a terminal, lines if not."""
    kind = LiveDisplay if console.is_terminal else LineDisplay
    return kind(console, eta, done, waiting, unknown)
