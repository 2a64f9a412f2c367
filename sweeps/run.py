"""The driver: plans a sweep, runs its trials one after another in this process, keeps MLflow and the queue true, writes the report.

Stop it however and whenever you like; the same command goes on and repeats nothing that has finished.
"""

from __future__ import annotations

import json
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf import load as conf
from conf import schema
from sweeps.sweep import Sweep

if TYPE_CHECKING:
    from types import FrameType

    from rich.console import Console

    from lightning_modules.tracking import Tracking
    from sweeps.display import View
    from sweeps.plan import Job, Plan
    from sweeps.study import Key

__all__ = ["Trainer", "main"]

Trainer = Callable[[schema.Run, Path, "Tracking | None", "Callable[[str, float], None] | None"], dict[str, Any]]
FAILED, REFUSED = 1, 2  # exit statuses


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main(sweep: Sweep, argv: Sequence[str] | None = None, trainer: Trainer | None = None) -> int:
    """Run `sweep` with `key=value` words. Returns 0, 1 where a trial or the report failed, 2 for a wrong command, 128 + n after a signal n.

    `trainer` takes the place of `lightning_modules.train.run`.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(argv):
        print(conf.help_text(f"{sweep.question}\n{sweep.origin}", f"python -m sweeps.{sweep.name}", sweep.preset), end="")
        return 0
    from sweeps.plan import PlanError, make, resolve

    with _signals() as received:
        plan = None
        try:
            config = conf.load(argv, sweep.preset)
            resolved, cells = resolve(sweep, config, argv)
            plan = make(resolved, config, cells, argv)
            return _run(plan, trainer or _trainer(), received)
        except (conf.ConfigError, PlanError) as error:
            print(f"error: {error}", file=sys.stderr)
            return REFUSED
        except KeyboardInterrupt as stop:
            number = stop.number if isinstance(stop, Stopped) else received[-1] if received else signal.SIGINT
            print("stopped; the same command goes on from here", file=sys.stderr)
            return 128 + number
        finally:
            if plan is not None:
                plan.study.close()


def _trainer() -> Trainer:
    from lightning_modules.train import run

    return run


@contextmanager
def _signals() -> Iterator[list[int]]:
    """SIGINT and SIGTERM become `Stopped`, so that both leave through the same door; lists the signals that came."""
    received: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        received.append(number)
        raise Stopped(number)

    kinds = (signal.SIGINT, signal.SIGTERM)
    before = {kind: signal.getsignal(kind) for kind in kinds}
    try:
        for kind in kinds:
            signal.signal(kind, stop)
        yield received
    finally:
        for kind in kinds:
            signal.signal(kind, before[kind])


def _run(plan: Plan, trainer: Trainer, received: Sequence[int]) -> int:
    from rich.console import Console

    from sweeps.display import Pace, say, view

    console = Console(width=None if sys.stdout.isatty() else 160)
    done = plan.done()
    for note in plan.notes:
        say(console, note)
    size = f"{len(plan.cells)} cells × {len(plan.seeds)} seeds = {len(plan.wanted)} trials, {len(done)} finished"
    say(console, f"{plan.name}: {size}; {plan.folder}")
    pace = Pace()
    reference = {cell.text: cell.reference for cell in plan.cells}
    for trial in plan.study.trials("COMPLETE"):
        cell, seconds = trial.user_attrs["cell"], trial.user_attrs.get("seconds")
        if seconds is not None and cell in reference:
            pace.add(reference[cell], seconds)
    waiting = {key: reference[key[0]] for key in plan.wanted if key not in done}
    failures: dict[Key, str] = {}
    if waiting:
        with view(console, pace, len(done), waiting) as shown:
            _work(plan, trainer, shown, failures, received)
    return _conclude(plan, console, failures)


def _work(plan: Plan, trainer: Trainer, shown: View, failures: dict[Key, str], received: Sequence[int]) -> None:
    """Claim and run until nothing waits. `failures` gets the trials that failed for good."""
    tried: dict[Key, int] = {}
    while (job := plan.claim()) is not None:
        key = (job.cell.text, job.seed)
        shown.start(job)
        try:
            value, seconds = _attempt(plan, job, trainer, shown)
        except BaseException as error:
            # Lightning answers a signal with sys.exit
            if isinstance(error, KeyboardInterrupt) or (received and isinstance(error, SystemExit)):
                if not (job.folder / "result.json").exists():  # with it, the next start counts the trial
                    _give_back(plan, job, "KILLED", "stopped by a person or the system")
                raise KeyboardInterrupt from error
            reason = _log_failure(job, error)
            _give_back(plan, job, "FAILED", reason)
            tried[key] = tried.get(key, 0) + 1
            tries = f"try {tried[key]} of {plan.config.retries + 1}"
            line = f"{key[0]}, seed {key[1]} failed ({tries}): {reason}; log: {job.folder / 'log.txt'}"
            if tried[key] <= plan.config.retries:
                plan.enqueue(key)
                shown.retry(job, line)
            else:
                failures[key] = reason
                plan.ledger.aggregate(job.cell.text, plan.seeds, failed=True)
                shown.drop(line)
        else:
            plan.study.complete(job.number, value, seconds)
            plan.ledger.aggregate(job.cell.text, plan.seeds, failed=any(cell == key[0] for cell, _ in failures))
            shown.finish(job, f"{plan.sweep.headline} {value:.3f}", seconds)


def _attempt(plan: Plan, job: Job, trainer: Trainer, shown: View) -> tuple[float, float]:
    """Run one trial, or take the result that an earlier attempt left; returns the headline metric and seconds."""
    from sweeps.plan import ResultError, read_result

    result, began = read_result(job.folder), time.monotonic()
    if result is None:
        job.folder.mkdir(parents=True, exist_ok=True)
        result = trainer(job.config, job.folder, job.tracking, shown.progress)
    try:
        value = plan.value(result)
    except ResultError:
        # kept for whoever looks for the cause, but never taken for a result
        if (job.folder / "result.json").exists():
            (job.folder / "result.json").replace(job.folder / "result.failed.json")
        raise
    plan.ledger.settle(job.tracking, result, job.folder)
    return value, sum(result.get("seconds", {}).values()) or time.monotonic() - began


def _give_back(plan: Plan, job: Job, status: str, reason: str) -> None:
    plan.study.fail(job.number, reason)
    plan.ledger.fail(job.tracking, status, reason, job.folder)


def _log_failure(job: Job, error: BaseException) -> str:
    """The reason on one line; the whole traceback goes to the trial's log."""
    from lightning_modules.tracking import describe_error

    job.folder.mkdir(parents=True, exist_ok=True)
    with (job.folder / "log.txt").open("a", encoding="utf-8") as log:
        log.write("".join(traceback.format_exception(error)))
    return describe_error(error)


def _conclude(plan: Plan, console: Console, failures: dict[Key, str]) -> int:
    """Table, report, where to look, and what is missing."""
    from sweeps.display import say, summary_table

    done = plan.done()
    say(console, summary_table(plan.sweep, plan.cells, plan.seeds, plan.ledger.seeds(), console.width))
    written = bool(done) and _report(plan, console)
    rows = [("folder", str(plan.folder)), *plan.ledger.links()]
    if written:
        rows.insert(0, ("report", str(plan.folder / "report.pdf")))
    for label, text in rows:
        say(console, f"{label + ':':<9}{text}")
    for (cell, seed), reason in failures.items():
        print(f"failed: {cell}, seed {seed}: {reason}", file=sys.stderr)
    elsewhere = len(plan.wanted) - len(done) - len(failures)
    if elsewhere:
        say(console, f"{elsewhere} more being run by another process; the same command later adds them to the report")
    return FAILED if failures or (done and not written) else 0


def _report(plan: Plan, console: Console) -> bool:
    """Write and attach the report, unless nothing that it depends on has changed, and say its answer. False where that failed."""
    from reports import document
    from reports.study import ReportError
    from sweeps.display import say

    made_by = Path(document.__file__).parent
    source = {file.name: file.read_text(encoding="utf-8") for file in made_by.iterdir() if file.suffix in (".py", ".typ")}
    digest = conf.digest({"state": plan.ledger.state(), "source": source})
    if plan.study.facts.get("report") != digest or not (plan.folder / "report.pdf").is_file():
        try:
            document.write(plan.ledger.uri, plan.name, plan.folder)
            document.attach(plan.ledger.uri, plan.name, plan.folder)
        except ReportError as error:
            print(f"error: no report: {error}; to try again: python -m reports {plan.name} output={plan.config.output}", file=sys.stderr)
            return False
        plan.study.remember("report", digest)
    say(console, json.loads((plan.folder / "report.json").read_text(encoding="utf-8"))["answer"])
    return True
