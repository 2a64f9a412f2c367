"""The command of one sweep: ``python -m sweeps.threshold key=value …``.

It can be stopped at any time; the same command goes on and repeats nothing that has finished.

Exit status: 0; 1 if a trial or the report failed; 2 for a wrong command; 3 where the disk is full;
4 where another process runs the sweep, whose state was shown; 75 where a signal made it give way;
128 + n after a signal n. ``--json`` prints lines of JSON (`engine.events`), the last with the
status.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from conf import load as conf
from conf import schema
from conf.describe import describe, nearest
from conf.help_page import help_text
from conf.origins import list_changes
from conf.pipes import ends_with_reader
from conf.sources import suggest_word
from conf.threads import wait_passively
from sweeps.engine.errors import (
    LaunchError,
    NoRoom,
    PlanError,
    StorageError,
    SweepAborted,
    SweepBusy,
)
from sweeps.engine.events import json_lines, listens, tell
from sweeps.engine.facts import describe_outcome, describe_plan
from sweeps.engine.resolve import resolve
from sweeps.engine.signals import Signals, Stopped
from sweeps.engine.worker import Trainer
from sweeps.sweep import Sweep, level_text

__all__ = ["config_words", "execute", "main", "show_version"]

FAILED, REFUSED, FULL, BUSY = 1, 2, 3, 4  # Exit statuses
PROJECT = "compositional-ablations"
REMEASURE = "--remeasure"
REPLAY = "--replay-pruning"
FLAGS = {
    "--plan": "print the cells, what is done and how long the rest will take; run nothing",
    "--fresh": "use nothing that was made before; results, adapters and images get a mark: fresh=…",
    REMEASURE: "only score the kept images of finished trials again, with the code of today",
    REPLAY: "only say what pruning would have saved on what has finished, and whether it would "
    "have dropped the winner",
    "--json": "lines of JSON instead of text; the last ones have the answer and the exit status",
    "--print-config": "print what differs from the defaults, and what says so; run nothing",
    "--version": "print the version",
    "--help": "this page; --help method.gate: one group of settings",
}
# What most commands need
WORDS = (
    *("seeds", "until", "delta", "levels", "mode", "workers", "devices", "output"),
    *("backbone", "data", "trainer.steps", "evaluation.prompts"),
)


def config_words(argv: Sequence[str]) -> list[str]:
    """The ``key=value`` words of a command, in which --fresh stands for a mark of its own."""
    words = [word for word in argv if word not in FLAGS]
    if "--fresh" in argv:
        words.append(f"fresh={time.strftime('%Y%m%d-%H%M%S')}")
        note = f"nothing made before is used; to go on with this one later, say {words[-1]} instead"
        print(f"--fresh: {note}", file=sys.stderr)
    return words


def check_flags(argv: Sequence[str]) -> None:
    """Raises PlanError for a word that looks like a flag and is none, and for flags that do not go
    together."""
    for number, word in enumerate(argv):
        if word.startswith("-") and word not in FLAGS:
            known = ", ".join(FLAGS)
            near = suggest_word(argv[number:], describe(schema.Sweep)) or nearest(word, FLAGS)
            raise PlanError(f"{word}: no such flag; there are {known}{near}")
    for flag in (REMEASURE, REPLAY):
        if flag in argv and "--fresh" in argv:
            raise PlanError(f"{flag} looks at what was made before, and --fresh at none of it")
        if flag in argv and "--plan" in argv:
            raise PlanError(f"{flag} trains nothing, and --plan says what would be; leave one out")


@ends_with_reader
def main(
    sweep: Sweep,
    argv: Sequence[str] | None = None,
    train: Trainer | None = None,
    program: tuple[str, ...] | None = None,
) -> int:
    """Run ``sweep`` with ``key=value`` words; returns the exit status.

    ``train`` replaces ``lightning_modules.training.run.run`` in this process, ``program`` the
    worker in others.
    """
    wait_passively()
    argv = list(sys.argv[1:] if argv is None else argv)
    if "--version" in argv:
        return show_version()
    if {"-h", "--help"} & set(argv):
        return _show_help(sweep, argv)
    with Signals().handle() as signals, json_lines("--json" in argv):
        status = _execute_and_tell(sweep, argv, signals, train, program)
        tell("end", status=status)
        return status


def show_version() -> int:
    """Prints the version of the project."""
    try:
        print(f"{PROJECT} {version(PROJECT)}")
    except PackageNotFoundError:
        print(f"{PROJECT}, not installed: pip install -e . says which version it is")
    return 0


def _show_help(sweep: Sweep, argv: Sequence[str]) -> int:
    title, command = f"{sweep.question}\n{sweep.origin}", f"python -m sweeps.{sweep.name}"
    part = next((word for word in argv if "=" not in word and not word.startswith("-")), "")
    try:
        print(help_text(title, command, sweep.preset, first=WORDS, flags=FLAGS, part=part))
    except conf.ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return REFUSED
    return 0


def _execute_and_tell(
    sweep: Sweep,
    argv: Sequence[str],
    signals: Signals,
    train: Trainer | None,
    program: tuple[str, ...] | None,
) -> int:
    """What ``execute`` does, its errors as lines and exit statuses."""
    try:
        return execute(sweep, argv, signals, train, program)
    except (conf.ConfigError, PlanError, LaunchError, StorageError) as error:
        _tell_error(error)
        return REFUSED
    except SweepBusy as busy:
        from sweeps.engine.watch import watch_sweep

        tell("error", message=str(busy))
        watch_sweep(busy)
        return BUSY
    except SweepAborted as error:
        _tell_error(error)
        return FULL if isinstance(error, NoRoom) else FAILED
    except (KeyboardInterrupt, SystemExit) as stop:
        # Lightning answers a signal with sys.exit
        if isinstance(stop, SystemExit) and not signals.received:
            raise
        number = signals.received[-1] if signals.received else signal.SIGINT
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 128 + (stop.number if isinstance(stop, Stopped) else number)


def _tell_error(error: Exception) -> None:
    print(f"error: {error}", file=sys.stderr)
    tell("error", message=str(error))


def execute(
    sweep: Sweep,
    argv: Sequence[str],
    signals: Signals,
    train: Trainer | None = None,
    program: tuple[str, ...] | None = None,
) -> int:
    """What the words and flags ask for. Raises ConfigError, PlanError, LaunchError or StorageError
    for what cannot be done, SweepBusy where another process does it, SweepAborted in the middle."""
    check_flags(argv)
    if "--print-config" in argv:
        _print_config(sweep, argv)
        return 0
    words = config_words(argv)
    request = resolve(sweep, conf.load(words, sweep.preset), words)
    # What comes next loads for seconds
    print(f"{sweep.name}: {sweep.question}", flush=True)
    if "--plan" in argv and "--json" in argv:
        tell("plan", **describe_plan(request))
        return 0
    if "--plan" in argv:
        from sweeps.engine.preview import print_preview

        print_preview(request)
        return 0
    tell("begin", sweep=sweep.name, question=sweep.question, trials=len(request.keys))
    # Loads what a plan can do without
    from sweeps.engine.session import run_sweep

    instead = [flag for flag in (REMEASURE, REPLAY) if flag in argv]
    status = run_sweep(request, signals, train, program, instead)
    if listens():
        tell("result", **describe_outcome(request))
    return status


def _print_config(sweep: Sweep, argv: Sequence[str]) -> None:
    """A line for each setting that is not its default, and for each factor."""
    for change in list_changes([word for word in argv if word not in FLAGS], sweep.preset):
        origin = f"sweep {sweep.name}" if change.origin == "sweep" else change.origin
        print(change._replace(origin=origin).describe())
        tell("setting", **(change._asdict() | {"origin": origin}))
    for factor in sweep.factors:
        levels = [level_text(level) for level in factor.levels]
        print(f"{factor.key}: a factor of sweep {sweep.name}, {', '.join(levels)}")
        tell("factor", key=factor.key, levels=levels)
