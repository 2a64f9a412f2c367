"""All sweeps one after another: ``python -m sweeps all``. Each is the command of its own that it
would be alone, so that nothing that has finished is repeated and a stopped catalogue goes on."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from conf import load as conf
from conf.describe import show_count
from conf.pipes import ends_with_reader
from conf.threads import wait_passively
from lightning_modules.tracking.store import public
from lightning_modules.training.progress import format_duration
from reports.answer.files import read_answer, read_verdicts
from sweeps.command import (
    BUSY,
    FAILED,
    REFUSED,
    REMEASURE,
    REPLAY,
    check_flags,
    config_words,
    show_version,
)
from sweeps.command import main as run_one
from sweeps.engine.catalogue import brief_words, discover, list_words
from sweeps.engine.display import make_console, show
from sweeps.engine.drawn import manifest_path
from sweeps.engine.errors import Declined, LaunchError, PlanError, StorageError
from sweeps.engine.eta import recorded_run
from sweeps.engine.events import json_lines, tell
from sweeps.engine.facts import count_trials
from sweeps.engine.places import check_places
from sweeps.engine.request import Request
from sweeps.engine.resolve import resolve
from sweeps.engine.status import read_status
from sweeps.engine.studies import find_study
from sweeps.engine.trials import key_of, read_trials
from sweeps.engine.worker import Trainer
from sweeps.sweep import Sweep

__all__ = ["main"]

HELP = """Every sweep, one after another, in a short form that leaves out combinations.

    python -m sweeps all                       # hours on two CPU cores; stopped, it goes on
    python -m sweeps all --plan                # what is done, and how long the rest will take
    python -m sweeps all seeds=5 workers=2     # any setting that a single sweep takes
    python -m sweeps all mode=grid             # all combinations
    python -m sweeps all --remeasure           # scores the kept images again

Settings of one sweep alone are not for this command; what cannot run with these settings is named
at the start and left out."""


@dataclass
class CatalogueEntry:
    """One sweep with the words of its command; without a request, ``refused`` says why it cannot
    run, and ``declined`` that the embedded world has nothing to show of it."""

    sweep: Sweep
    words: list[str]
    request: Request | None = None
    refused: str = ""
    declined: bool = False


def _words_with_done_cells(sweep: Sweep, words: Sequence[str]) -> list[str]:
    """``brief_words``, and the cells that have finished trials: the next report must not
    lose them."""
    short = brief_words(sweep, words)
    if not short:
        return []
    config = conf.load([*words, *short], sweep.preset)
    name, exists = find_study(sweep, config)
    folder = Path(config.output) / name
    trials = read_trials(folder, name) if exists else []
    done = {key_of(trial)[0] for trial in trials if trial.state.name == "COMPLETE"}
    every = sweep.cells(config.when)
    kept = {cell.text for cell in sweep.cells(config.when, config.mode, config.cells)}
    if not (done & {cell.text for cell in every}) - kept:
        return short
    named = [cell for cell in every if not (cell.control or cell.untouched)]
    return list_words([cell.text for cell in named if cell.text in done | kept])


def list_entries(words: Sequence[str], selected: Sequence[Sweep]) -> list[CatalogueEntry]:
    """The catalogue under the settings ``words``. Raises ConfigError for a setting that does not
    exist, PlanError if no sweep can run."""
    entries = []
    for sweep in selected:
        entry = CatalogueEntry(sweep, [*words])
        try:
            entry.words += _words_with_done_cells(sweep, words)
            config = conf.load(entry.words, sweep.preset)
        except conf.MissingDefault as error:
            entry.refused = str(error)
            entries.append(entry)
            continue
        try:
            entry.request = resolve(sweep, config, entry.words)
        except (PlanError, conf.ConfigError) as error:
            entry.refused, entry.declined = str(error), isinstance(error, Declined)
        entries.append(entry)
    able = [entry for entry in entries if not entry.declined]
    if able and all(entry.refused for entry in able):
        raise PlanError(able[0].refused)
    return entries


@ends_with_reader
def main(
    argv: Sequence[str],
    selected: Sequence[Sweep] | None = None,
    train: Trainer | None = None,
    program: tuple[str, ...] | None = None,
) -> int:
    """Run or preview the catalogue. Returns 0, 1 if a trial or report failed, 2 for a wrong
    command, 3 where the disk is full, 4 where another process runs one, 128 + n after a signal
    n."""
    if {"-h", "--help"} & set(argv):
        print(HELP)
        return 0

    if "--version" in argv:
        return show_version()
    with json_lines("--json" in argv):
        status = _answer(argv, selected, train, program)
        tell("end", status=status)
        return status


def _answer(
    argv: Sequence[str],
    selected: Sequence[Sweep] | None,
    train: Trainer | None,
    program: tuple[str, ...] | None,
) -> int:
    """What the words ask for, errors as lines and exit statuses."""
    wait_passively()
    try:
        check_flags(argv)
        if "--print-config" in argv:
            raise PlanError(
                "--print-config is for one sweep: python -m sweeps.threshold --print-config"
            )
        words = config_words(argv)
        entries = list_entries(words, discover() if selected is None else selected)
        for entry in entries:
            if entry.request is None:
                reason = entry.refused
                if not entry.declined:
                    reason = f"{entry.sweep.name}: {reason}"
                print(f"left out: {reason}", file=sys.stderr)
        console = make_console()
        requests = [entry.request for entry in entries if entry.request is not None]
        for request in requests[:1]:  # They are the same for all
            check_places(request.config)
        if "--plan" in argv:
            _print_plan(requests, console)
            return 0
        again = [flag for flag in (REMEASURE, REPLAY) if flag in argv]
        return _run_all(requests, entries, again, console, train, program)
    except (conf.ConfigError, PlanError, LaunchError, StorageError) as error:
        print(f"error: {error}", file=sys.stderr)
        tell("error", message=str(error))
        return REFUSED
    except KeyboardInterrupt:  # Between two sweeps; a sweep that runs answers by itself
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130


def _print_plan(requests: Sequence[Request], console: Console) -> None:

    table = Table("sweep")
    for name in ("cells", "trials", "done", "failed", "to come"):
        table.add_column(name, justify="right")
    statuses = [read_status(request) for request in requests]
    for request, status in zip(requests, statuses, strict=True):
        counts, seconds = status.counts, status.remaining_seconds
        rest = "–"
        if status.waiting:
            rest = "unknown" if seconds is None else format_duration(seconds)
            rest += " *" if status.recorded else ""
        numbers = (len(request.cells), len(counts.planned), len(counts.done))
        failed = str(len(counts.failed) or "")
        table.add_row(request.sweep.name, *map(str, numbers), failed, rest)
        facts = {"folder": str(status.folder), "trials": count_trials(counts)}
        tell("plan", sweep=request.sweep.name, **facts, seconds_left=seconds)
    show(console, table)
    if any(status.recorded and status.waiting for status in statuses):
        run = recorded_run()
        show(console, f"* by the catalogue's run of {run['date']} on {run['hardware']}")
    waiting = sum(len(status.waiting) for status in statuses)
    done = sum(len(status.counts.done) for status in statuses)
    rest = "nothing is left to run"
    if waiting:
        rest = _describe_total([status.remaining_seconds for status in statuses])
    sweeps = show_count(len(requests), "sweep")
    trials = show_count(waiting + done, "trial")
    show(console, f"{sweeps}, {trials}, {done} done; {rest}")


def _describe_total(seconds: Sequence[float | None]) -> str:
    """How long several sweeps take in all, and of how many nothing is known."""
    known = [one for one in seconds if one is not None]
    if not known:
        return "how long it takes is not known yet"
    unknown = len(seconds) - len(known)
    more = f", without {unknown} of which nothing is known yet" if unknown else ""
    return f"about {format_duration(sum(known))} to come{more}"


def _run_all(
    requests: Sequence[Request],
    entries: Sequence[CatalogueEntry],
    again: Sequence[str],
    console: Console,
    train: Trainer | None,
    program: tuple[str, ...] | None,
) -> int:
    """``again``: the flag that only scores kept images again, of sweeps that have some."""
    if again:
        requests = [request for request in requests if read_status(request).counts.done]
        if not requests:
            raise PlanError(f"{again[0]}: no trial of any sweep has finished")
    statuses: dict[str, int] = {}
    originals = {entry.sweep.name: entry.sweep for entry in entries}  # As their modules have them
    seconds = [read_status(request).remaining_seconds for request in requests]
    for number, request in enumerate(requests):
        name, rest = request.sweep.name, _describe_total(seconds[number:])
        count = f"[{number + 1}/{len(requests)}]"
        show(console, f"\n{count} {name}: {request.sweep.question} ({rest})")
        sys.stdout.flush()
        status = run_one(originals[name], [*request.words, *again], train, program)
        if status not in (0, FAILED, BUSY):
            return status
        statuses[name] = status
    _print_answers(requests, statuses, console)
    return max(statuses.values(), default=0)


def _print_answers(
    requests: Sequence[Request], statuses: Mapping[str, int], console: Console
) -> None:

    table = Table("sweep", "trials", "their time", "conclusive", "answer", show_lines=True)
    for request in requests:
        status = read_status(request)
        answer = read_answer(status.folder) or "no report"
        if request.config.evaluation.draw_only:
            drawn = show_count(len(status.counts.drawn), "trial")
            answer = f"{drawn} only drawn: {manifest_path(request.config, status.name)}"
        trials = f"{len(status.counts.done)}/{len(status.counts.planned)}"
        ends = {FAILED: " (failed)", BUSY: " (run by another process)"}
        failed = ends.get(statuses[request.sweep.name], "")
        conclusive = read_verdicts(status.folder).get("conclusive", "–")
        time = format_duration(status.finished_seconds)
        table.add_row(request.sweep.name, trials + failed, time, conclusive, answer)
    show(console, table)
    config = requests[0].config
    show(console, f"reports: {Path(config.output) / '<sweep>' / 'report.pdf'}")
    where = "" if config.output == "runs" else f" output={shlex.quote(config.output)}"
    where += (
        f" tracking_uri={shlex.quote(public(config.tracking_uri))}" if config.tracking_uri else ""
    )
    show(console, f"all in one: python -m reports all{where}")
