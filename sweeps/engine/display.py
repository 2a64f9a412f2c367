"""What a person sees while a sweep runs and when it ends: a live table in a terminal, plain lines elsewhere, then the results."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightning_modules.training.progress import format_duration
from reports.statistics import Interval, mean_interval, paired
from sweeps.sweep import Cell, Metric, Sweep

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from sweeps.engine.plan import Job
    from sweeps.engine.study import Key

__all__ = ["Pace", "View", "say", "summary_table", "terminal", "view"]

KNOWN = 0.1  # from this share on, the first trial says how long the others will take
Values = Mapping[str, Mapping[int, Mapping[str, float]]]  # cell -> seed -> metric -> value


class Pace:
    """How long the rest will take, from finished trials of the same kind: those that train, those that share an adapter which is there,
    and those of the untouched backbone."""

    def __init__(self, slots: int = 1) -> None:
        """`slots` trials run at once."""
        self.slots = slots
        self.seconds: dict[str, list[float]] = {}

    def add(self, kind: str, seconds: float) -> None:
        self.seconds.setdefault(kind, []).append(seconds)

    def mean(self, kind: str, guess: float | None = None) -> float | None:
        """Seconds that a trial of this kind takes; `guess` where none has finished at all."""
        every = [second for seconds in self.seconds.values() for second in seconds]
        own = self.seconds.get(kind) or every
        return sum(own) / len(own) if own else guess

    def left(self, waiting: Iterable[str], running: Iterable[tuple[str, float, float]] = ()) -> float | None:
        """Seconds for the waiting trials and the rest of those that run, each (kind, seconds so far, share done); None where nothing
        tells yet."""
        running = list(running)
        told = [elapsed / share for _, elapsed, share in running if share > KNOWN]
        guess = sum(told) / len(told) if told else None
        rests, total = [0.0], 0.0
        for kind, elapsed, _ in running:
            mean = self.mean(kind, guess)
            if mean is None:
                return None
            rests.append(max(mean - elapsed, 0.0))
        for kind in waiting:
            mean = self.mean(kind, guess)
            if mean is None:
                return None
            total += mean
        return max((total + sum(rests)) / self.slots, *rests)


@dataclass
class Running:
    """A trial as it is shown."""

    device: str
    kind: str
    began: float
    phase: str = ""
    text: str = ""
    share: float = 0.0


class View:
    """Plain lines: one when a trial starts, one for each of its phases, one when it ends."""

    def __init__(self, console: Console, pace: Pace, done: int, waiting: Mapping[Key, str], more: int = 0) -> None:
        """`waiting` maps the (cell, seed) that are to come to their kind; `more` come after them, of cells that nobody knows yet."""
        self.console, self.pace, self.done, self.more = console, pace, done, more
        self.waiting = dict(waiting)
        self.running: dict[Key, Running] = {}

    def __enter__(self) -> View:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    @property
    def total(self) -> int:
        return self.done + len(self.waiting) + len(self.running) + self.more

    def start(self, job: Job, device: str = "") -> None:
        """A trial begins."""
        if self.waiting.pop(job.key, None) is None:
            self.more = max(self.more - 1, 0)
        self.running[job.key] = Running(device, job.kind, time.monotonic())

    def progress(self, job: Job, text: str, share: float) -> None:
        """What `lightning_modules.training.run.run` reports: a line, `training: step 20/60`, and the share of the trial that is done."""
        shown = self.running[job.key]
        phase, shown.text, shown.share = text.partition(":")[0], text, share
        if phase != shown.phase:
            shown.phase = phase
            on = f" on {shown.device}" if shown.device else ""
            self.phase(f"[{self.done + 1}/{self.total}] {job.name}{on}: {phase}{self.left()}")

    def phase(self, line: str) -> None:
        """A trial enters a phase."""
        self.say(line)

    def finish(self, job: Job, text: str, seconds: float) -> None:
        """A trial ended well."""
        self.pace.add(job.kind, seconds)
        self.running.pop(job.key, None)
        self.done += 1
        self.say(f"[{self.done}/{self.total}] {job.name}: {text} ({format_duration(seconds)}){self.left()}")

    def retry(self, job: Job, text: str) -> None:
        """A trial failed and waits again."""
        self.running.pop(job.key, None)
        self.waiting[job.key] = job.kind
        self.say(text)

    def drop(self, job: Job, text: str) -> None:
        """A trial failed for good, or was pruned."""
        self.running.pop(job.key, None)
        self.done += 1
        self.say(text)

    def say(self, text: str) -> None:
        say(self.console, text)

    def left(self) -> str:
        now = time.monotonic()
        running = [(shown.kind, now - shown.began, shown.share) for shown in self.running.values()]
        seconds = self.pace.left([*self.waiting.values(), *["trained"] * self.more], running)
        return "" if seconds is None or not (self.waiting or self.running or self.more) else f", about {format_duration(seconds)} left"


class Live(View):
    """A table of the trials that run, kept up to date, below the lines of those that have ended."""

    def __enter__(self) -> Live:
        from rich.live import Live as Region

        self.region = Region(get_renderable=self.table, console=self.console, refresh_per_second=4, transient=True)
        self.region.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.region.stop()

    def phase(self, line: str) -> None:
        """The table shows it."""

    def table(self) -> Table:
        """One row a trial: device, cell and seed, what it does (with step and loss while it trains), share done, time so far."""
        from rich.table import Table
        from rich.text import Text

        title = f"trial {min(self.done + len(self.running), self.total)} of {self.total}{self.left()}"
        table = Table(title=title, title_justify="left", title_style="bold", expand=True, show_edge=False, pad_edge=False)
        table.add_column("device", no_wrap=True)
        table.add_column("trial", ratio=2)
        table.add_column("state", ratio=3)
        table.add_column("done", justify="right", no_wrap=True)
        table.add_column("time", justify="right", no_wrap=True)
        now = time.monotonic()
        for (cell, seed), shown in self.running.items():
            words = (shown.device or "here", f"{cell}, seed {seed}", shown.text or "starting")
            table.add_row(*map(Text, words), f"{shown.share:.0%}", format_duration(now - shown.began))
        return table


def terminal() -> Console:
    """As wide as the terminal; wide enough for whole lines where the output goes elsewhere."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160)


def say(console: Console, content: RenderableType) -> None:
    """Print text or a table as it is. Where the reader of a pipe is gone, rich would exit; a sweep goes on."""
    with suppress(SystemExit):
        console.print(content, markup=False, highlight=False, soft_wrap=isinstance(content, str))


def view(console: Console, pace: Pace, done: int, waiting: Mapping[Key, str], more: int = 0) -> View:
    """A live table where someone looks at a terminal, lines where not."""
    return (Live if console.is_terminal else View)(console, pace, done, waiting, more)


def summary_table(sweep: Sweep, cells: Sequence[Cell], seeds: Sequence[int], values: Values, width: int) -> Table:
    """Cells × metrics: mean over seeds; the headline with its 95 % interval, and its difference from the baseline cell, seed by seed.

    Holds as many of the other metrics as fit into `width` characters; the report has all.
    """
    from rich.table import Table

    headline = next(metric for metric in sweep.metrics if metric.key == sweep.headline)
    bases = [cell for cell in cells if cell.baseline]
    others = [m for m in sweep.metrics if m is not headline and any(_per_seed(values, cell, seeds, m) for cell in cells)]
    room = width - max(len(cell.text) for cell in cells) - max(len(headline.label), 13) - max(len(headline.label) + 2, 14) - 16
    while others and sum(max(len(metric.label), 6) + 3 for metric in others) > room:
        others.pop()
    compared = f"the baseline of the same {sweep.within}" if sweep.within else bases[0].text
    title = f"mean over seeds; ± half the 95 % interval; Δ to {compared} seed by seed"
    table = Table(title=title, title_justify="left", title_style="")
    table.add_column("cell")  # a long name takes several lines of a narrow terminal before a number is cut
    for name in ("n", headline.label, f"Δ {headline.label}", *(metric.label for metric in others)):
        table.add_column(name, justify="right", no_wrap=True)
    for cell in cells:
        own = _per_seed(values, cell, seeds, headline)
        base = _per_seed(values, sweep.base_of(cell, bases), seeds, headline)
        difference = _with_interval(paired(own, base).interval, "+") if own.keys() & base.keys() else "–"
        means = [_mean(_per_seed(values, cell, seeds, metric)) for metric in others]
        table.add_row(cell.text, str(len(own)), _with_interval(mean_interval(list(own.values()))) if own else "–", difference, *means)
    return table


def _per_seed(values: Values, cell: Cell | None, seeds: Sequence[int], metric: Metric) -> dict[int, float]:
    if cell is None:
        return {}
    found = {seed: metrics.get(metric.key, math.nan) for seed, metrics in sorted(values.get(cell.text, {}).items()) if seed in seeds}
    return {seed: value for seed, value in found.items() if math.isfinite(value)}


def _mean(per_seed: Mapping[int, float]) -> str:
    if not per_seed:
        return "–"
    mean = sum(per_seed.values()) / len(per_seed)
    return f"{mean:.3f}" if abs(mean) < 1000 else f"{mean:.0f}"


def _with_interval(interval: Interval, sign: str = "") -> str:
    half = f" ± {interval.half:.3f}" if interval.n > 1 else ""
    return f"{interval.mean:{sign}.3f}{half}"
