"""What a person sees while a sweep runs and when it ends: bars in a terminal, plain lines elsewhere, then the table."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from lightning_modules.duration import duration
from reports.statistics import Interval, mean_interval, paired
from sweeps.sweep import Cell, Metric, Sweep

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from sweeps.plan import Job
    from sweeps.study import Key

__all__ = ["Pace", "View", "say", "summary_table", "view"]

KNOWN = 0.1  # from this share on, the first trial says how long the others will take
Values = Mapping[str, Mapping[int, Mapping[str, float]]]  # cell -> seed -> metric -> value


class Pace:
    """How long the rest will take, from finished trials; the untouched backbone, which is not trained, counts on its own."""

    def __init__(self) -> None:
        self.seconds: dict[bool, list[float]] = {True: [], False: []}

    def add(self, reference: bool, seconds: float) -> None:
        self.seconds[reference].append(seconds)

    def left(self, waiting: Iterable[bool], running: bool | None = None, elapsed: float = 0.0, share: float = 0.0) -> float | None:
        """Seconds for the waiting trials and the rest of the running one, of which `share` is done; None where nothing tells yet."""
        every = [second for seconds in self.seconds.values() for second in seconds]
        if not every and share > KNOWN:
            every = [elapsed / share]
        if not every:
            return None
        mean = {kind: sum(own := seconds or every) / len(own) for kind, seconds in self.seconds.items()}
        rest = 0.0 if running is None else max(mean[running] - elapsed, 0.0)
        return rest + sum(mean[kind] for kind in waiting)


class View:
    """Plain lines: one when a trial starts, one for each of its phases, one when it ends."""

    def __init__(self, console: Console, pace: Pace, done: int, waiting: Mapping[Key, bool]) -> None:
        """`waiting` maps the (cell, seed) that are to come to whether they are of the untouched backbone."""
        self.console, self.pace, self.done = console, pace, done
        self.waiting = dict(waiting)
        self.running: bool | None = None
        self.label, self.phase, self.share, self.began = "", "", 0.0, time.monotonic()

    def __enter__(self) -> View:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    @property
    def total(self) -> int:
        return self.done + len(self.waiting) + (self.running is not None)

    def start(self, job: Job) -> None:
        """A trial begins."""
        self.label, self.running = f"{job.cell.text}, seed {job.seed}", job.cell.reference
        self.phase, self.share, self.began = "", 0.0, time.monotonic()
        self.waiting.pop((job.cell.text, job.seed), None)

    def progress(self, text: str, share: float) -> None:
        """What `lightning_modules.train.run` reports: a line, `training: step 20/60`, and the share of the trial that is done."""
        phase, self.share = text.partition(":")[0], share
        if phase != self.phase:
            self.phase = phase
            self.say(f"[{self.done + 1}/{self.total}] {self.label}: {phase}{self.left()}")

    def finish(self, job: Job, text: str, seconds: float) -> None:
        """A trial ended well."""
        self.pace.add(job.cell.reference, seconds)
        self.running, self.done = None, self.done + 1
        self.say(f"[{self.done}/{self.total}] {self.label}: {text} ({duration(seconds)}){self.left()}")

    def retry(self, job: Job, text: str) -> None:
        """A trial failed and waits again."""
        self.running = None
        self.waiting[job.cell.text, job.seed] = job.cell.reference
        self.say(text)

    def drop(self, text: str) -> None:
        """A trial failed for good."""
        self.running, self.done = None, self.done + 1
        self.say(text)

    def say(self, text: str) -> None:
        say(self.console, text)

    def left(self) -> str:
        seconds = self.pace.left(self.waiting.values(), self.running, time.monotonic() - self.began, self.share)
        return "" if seconds is None or not self.waiting and self.running is None else f", about {duration(seconds)} left"


class Bars(View):
    """Two bars: the trials of the sweep, and the current trial."""

    def __enter__(self) -> Bars:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        columns = (TextColumn("{task.description}", markup=False), BarColumn(None), TaskProgressColumn())
        self.bars = Progress(*columns, console=self.console, expand=True, transient=True)
        self.all = self.bars.add_task("trials", total=max(self.total, 1), completed=self.done)
        self.one = self.bars.add_task("", total=1.0, visible=False)
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def start(self, job: Job) -> None:
        super().start(job)
        self.bars.update(self.one, description=self.label, completed=0.0, visible=True)
        self._redraw()

    def progress(self, text: str, share: float) -> None:
        self.share = share
        self.bars.update(self.one, description=f"{self.label}: {text}", completed=share)
        self._redraw()

    def finish(self, job: Job, text: str, seconds: float) -> None:
        super().finish(job, text, seconds)
        self._redraw()

    def _redraw(self) -> None:
        text = f"trial {min(self.done + 1, self.total)} of {self.total}{self.left()}"
        self.bars.update(self.all, description=text, total=max(self.total, 1), completed=self.done)


def say(console: Console, content: RenderableType) -> None:
    """Print text or a table as it is. Where the reader of a pipe is gone, rich would exit; a sweep goes on."""
    with suppress(SystemExit):
        console.print(content, markup=False, highlight=False, soft_wrap=isinstance(content, str))


def view(console: Console, pace: Pace, done: int, waiting: Mapping[Key, bool]) -> View:
    """Bars where someone looks at a terminal, lines where not."""
    return (Bars if console.is_terminal else View)(console, pace, done, waiting)


def summary_table(sweep: Sweep, cells: Sequence[Cell], seeds: Sequence[int], values: Values, width: int) -> Table:
    """Cells × metrics: mean over seeds; the headline with its 95 % interval, and its difference from the baseline cell, seed by seed.

    Holds as many of the other metrics as fit into `width` characters; the report has all.
    """
    from rich.table import Table

    headline = next(metric for metric in sweep.metrics if metric.key == sweep.headline)
    base_cell = next(cell for cell in cells if cell.baseline)
    base = _per_seed(values, base_cell, seeds, headline)
    others = [m for m in sweep.metrics if m is not headline and any(_per_seed(values, cell, seeds, m) for cell in cells)]
    room = width - max(len(cell.text) for cell in cells) - max(len(headline.label), 13) - max(len(headline.label) + 2, 14) - 16
    while others and sum(max(len(metric.label), 6) + 3 for metric in others) > room:
        others.pop()
    title = f"mean over seeds; ± half the 95 % interval; Δ to {base_cell.text} seed by seed"
    table = Table(title=title, title_justify="left", title_style="")
    table.add_column("cell")  # a long name takes several lines of a narrow terminal before a number is cut
    for name in ("n", headline.label, f"Δ {headline.label}", *(metric.label for metric in others)):
        table.add_column(name, justify="right", no_wrap=True)
    for cell in cells:
        own = _per_seed(values, cell, seeds, headline)
        difference = _with_interval(paired(own, base).interval, "+") if own.keys() & base.keys() and cell is not base_cell else "–"
        means = [_mean(_per_seed(values, cell, seeds, metric)) for metric in others]
        table.add_row(cell.text, str(len(own)), _with_interval(mean_interval(list(own.values()))) if own else "–", difference, *means)
    return table


def _per_seed(values: Values, cell: Cell, seeds: Sequence[int], metric: Metric) -> dict[int, float]:
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
