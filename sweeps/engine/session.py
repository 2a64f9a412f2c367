"""Runs a sweep from its plan to its report."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from conf import load as conf
from conf.describe import show_count
from conf.files import DiskFull
from lightning_modules.tracking.store import public
from reports import report
from reports.files import FullDisk
from reports.results import ReportError, place_words
from sweeps.engine.bookkeeping import update_cell
from sweeps.engine.create import create_study
from sweeps.engine.display import make_console, make_display, show
from sweeps.engine.drawn import describe_drawing, list_drawn
from sweeps.engine.driver import Driver, abort_on_lost_storage
from sweeps.engine.errors import LaunchError, PlanError, StorageError, SweepAborted
from sweeps.engine.eta import EtaEstimator
from sweeps.engine.executors.base import Executor, make_executor
from sweeps.engine.places import check_places
from sweeps.engine.plan import kinds_of, seconds_of
from sweeps.engine.prompts import describe_lacking, describe_mixed, lacking_trials
from sweeps.engine.remeasure import (
    check_remeasurable,
    check_search,
    describe_measured_otherwise,
    find_measured_otherwise,
    remeasure_trials,
)
from sweeps.engine.replay import check_replayable, replay_plan, replay_table
from sweeps.engine.request import Request
from sweeps.engine.signals import Signals
from sweeps.engine.summary import summary_table
from sweeps.engine.timing import timing_table
from sweeps.engine.until import note_look
from sweeps.engine.worker import Trainer

if TYPE_CHECKING:
    from rich.console import Console

    from sweeps.engine.plan import Plan
    from sweeps.engine.trials import Key

__all__ = ["run_sweep"]

FAILED = 1  # Exit status


def run_sweep(
    request: Request,
    signals: Signals,
    train: Trainer | None = None,
    program: tuple[str, ...] | None = None,
    instead: Sequence[str] = (),
) -> int:
    """Returns the exit status, see ``sweeps.command.main``; one of `INSTEAD` is done instead of
    running trials, where it is named. Raises PlanError, LaunchError or StorageError before anything
    is planned, SweepAborted afterwards."""
    if len(instead) > 1:
        raise PlanError(f"{' and '.join(instead)}: one at a time")
    act = _run
    for flag in instead:
        check, act = INSTEAD[flag]
        check(request)
    check_places(request.config)  # First, since looking for GPUs takes seconds
    executor = make_executor(request.config, train, program)
    try:
        found = request.check_records()
        with abort_on_lost_storage(Path(request.config.output)):
            plan = create_study(request, executor.resume)
        plan.notes[:0] = found
        # There other trials wait for the same devices
        plan.holds = request.config.executor != "local"
        try:
            return act(plan, executor, signals)
        except (conf.ConfigError, PlanError, LaunchError, StorageError) as error:
            raise SweepAborted(str(error)) from error
        finally:
            plan.close()
    finally:
        executor.close()


def _run(plan: Plan, executor: Executor, signals: Signals) -> int:
    with abort_on_lost_storage(plan.folder):
        plan.begin()
    console, done = _begin(plan), plan.done()
    eta = EtaEstimator(executor.at_once)
    for kind, seconds in seconds_of(plan.queue.trials()):
        eta.add(kind, seconds)
    lacking = lacking_trials(plan)
    rest = [key for key in plan.planned if key not in done]
    waiting = kinds_of(plan.request, rest, done, lacking)
    if line := describe_lacking(lacking, {key: plan.asked(key) for key in lacking}):
        show(console, line)
    check_search(plan, bool(waiting))
    failures: dict[Key, str] = {}
    if waiting or plan.unknown_trials():
        with make_display(console, eta, len(done), waiting, plan.unknown_trials()) as display:
            driver = Driver(plan, executor, display, lambda: bool(signals.received))
            signals.working, plan.listener = True, display.line
            try:
                driver.run()
            finally:
                signals.working, plan.listener = False, None
            failures = driver.failures
    with abort_on_lost_storage(plan.folder):
        if plan.request.config.evaluation.draw_only:
            status = _conclude_drawn(plan, console, failures)
        else:
            status = _conclude(plan, console, failures)
    if signals.received:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 128 + signals.received[0]
    return status


def _begin(plan: Plan) -> Console:
    """Say what is known before anything begins."""
    console = make_console()
    for note in plan.notes:
        show(console, note)
    if plan.request.config.evaluation.draw_only:
        show(console, describe_drawing(plan.request.config, plan.name))
    size = f"{plan.describe_size()}, {len(plan.done())} finished"
    show(console, f"{plan.name}: {size}; {plan.folder}")
    return console


def _remeasure(plan: Plan, executor: Executor, signals: Signals) -> int:
    plan.notes = [note for note in plan.notes if "--remeasure" not in note]
    console = _begin(plan)
    with abort_on_lost_storage(plan.folder):
        failures = remeasure_trials(plan, console)
        plan.mirror.seeds()
        for cell in plan.request.cells:
            update_cell(plan, cell.text)
        if left := find_measured_otherwise(plan):
            show(console, describe_measured_otherwise(len(plan.done()), left))
        return _conclude(plan, console, failures)


def _replay(plan: Plan, executor: Executor, signals: Signals) -> int:
    console = _begin(plan)
    with abort_on_lost_storage(plan.folder):
        found = replay_plan(plan)
        plan.mirror.tell("pruning", json.dumps(found))
        status = _conclude(plan, console, {})
    table, lines = replay_table(found)
    show(console, table)
    for line in lines:
        show(console, line)
    return status


# What is done instead of running trials: flag -> what checks a request before, and does it
INSTEAD: dict[str, tuple[Callable[[Request], None], Callable[..., int]]] = {
    "--remeasure": (check_remeasurable, _remeasure),
    "--replay-pruning": (check_replayable, _replay),
}


def _conclude(plan: Plan, console: Console, failures: dict[Key, str]) -> int:
    """Table, report, where to look, and what is missing."""
    request, done = plan.request, plan.done()
    again = note_look(plan)
    for line in [*plan.summary_lines(), *filter(None, [again])]:
        show(console, line)
    values, width = plan.mirror.seeds(), console.width
    written = bool(done) and _write_report(plan)
    answer = report.read_verdicts(plan.folder) if written else None
    sweep, cells = request.sweep, request.cells
    show(console, summary_table(sweep, cells, request.seeds, values, width, answer))
    if line := describe_mixed(plan):
        show(console, line)
    if table := timing_table(plan.queue.trials()):
        show(console, table)
    if written:
        show(console, report.read_answer(plan.folder) or "")
        show(console, f"report:  {plan.folder / 'report.pdf'}")
    for label, text in [("folder", str(plan.folder)), *plan.mirror.links()]:
        show(console, f"{label + ':':<9}{text}")
    for (cell, seed), reason in failures.items():
        print(f"failed: {cell}, seed {seed}: {reason}", file=sys.stderr)
    if left := len(set(plan.planned) - done - failures.keys()):
        show(console, f"{show_count(left, 'trial')} {'is' if left == 1 else 'are'} left to run")
    return FAILED if failures or (done and not written) else 0


def _conclude_drawn(plan: Plan, console: Console, failures: dict[Key, str]) -> int:
    """Where the images are, and what is missing."""
    for line in list_drawn(plan):
        show(console, line)
    for (cell, seed), reason in failures.items():
        print(f"failed: {cell}, seed {seed}: {reason}", file=sys.stderr)
    return FAILED if failures else 0


def _write_report(plan: Plan) -> bool:
    """Write and attach the report, unless nothing that it depends on has changed. False if that
    failed."""
    code = Path(report.__file__).parent
    source = {
        str(file.relative_to(code)): file.read_text(encoding="utf-8")
        for file in code.rglob("*")
        if file.suffix in (".py", ".typ")
    }
    digest = conf.digest({"state": plan.mirror.experiment.state(), "source": source})
    whole = (plan.folder / "report.pdf").is_file() and report.read_answer(plan.folder) is not None
    if plan.queue.facts.get("report") != digest or not whole:
        uri, began = plan.mirror.uri, time.time()
        try:
            report.write_report(uri, plan.name, plan.folder)
            report.attach_report(uri, plan.name, plan.folder, began)
        except FullDisk as error:
            raise DiskFull(plan.folder, f"no report: {error}") from error
        except ReportError as error:
            config, where = plan.request.config, place_words(uri)
            if config.tracking_uri:  # Says nothing of the folder
                where = f" output={shlex.quote(config.output)}"
                where += f" tracking_uri={shlex.quote(public(config.tracking_uri))}"
            command = f"python -m reports {plan.name}{where}"
            print(f"error: no report: {error}; to try again: {command}", file=sys.stderr)
            return False
        plan.queue.remember("report", digest)
    return True
