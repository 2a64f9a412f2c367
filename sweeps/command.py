"""The command of one sweep: ``python -m sweeps.threshold key=value …``.

It can be stopped at any time; the same command goes on and repeats nothing that has finished.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence

from conf import load as conf
from conf import schema
from conf.describe import describe, nearest
from conf.help_page import help_text
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
from sweeps.engine.resolve import resolve
from sweeps.engine.signals import Signals, Stopped
from sweeps.engine.worker import Trainer
from sweeps.sweep import Sweep

__all__ = ["config_words", "main"]

FAILED, REFUSED, FULL, BUSY = 1, 2, 3, 4  # Exit statuses
REMEASURE = "--remeasure"
REPLAY = "--replay-pruning"
FLAGS = {
    "--plan": "print the cells, what is done and how long the rest will take; run nothing",
    "--fresh": "use nothing that was made before; results, adapters and images get a mark: fresh=…",
    REMEASURE: "only score the kept images of finished trials again, with the code of today",
    REPLAY: "only say what pruning would have saved on what has finished, and whether it would "
    "have dropped the winner",
    "--help": "this page",
}


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
    """Run ``sweep`` with ``key=value`` words. Returns 0, 1 if a trial or the report failed, 2 for a
    wrong command, 3 where the disk is full, 4 where another process runs the sweep, whose state was
    shown, 128 + n after a signal n.

    ``train`` replaces ``lightning_modules.training.run.run`` in this process, ``program`` the
    worker in others.
    """
    wait_passively()
    argv = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(argv):
        title, command = f"{sweep.question}\n{sweep.origin}", f"python -m sweeps.{sweep.name}"
        flags = "\n".join(f"  {flag:<22}  {meaning}" for flag, meaning in FLAGS.items())
        print(f"{help_text(title, command, sweep.preset).rstrip()}\n\nflags\n{flags}")
        return 0
    with Signals().handle() as signals:
        try:
            check_flags(argv)
            words = config_words(argv)
            request = resolve(sweep, conf.load(words, sweep.preset), words)
            if "--plan" in argv:
                from sweeps.engine.preview import print_preview

                print_preview(request)
                return 0
            # Loads what a plan can do without
            from sweeps.engine.session import run_sweep

            instead = [flag for flag in (REMEASURE, REPLAY) if flag in argv]
            return run_sweep(request, signals, train, program, instead)
        except (conf.ConfigError, PlanError, LaunchError, StorageError) as error:
            print(f"error: {error}", file=sys.stderr)
            return REFUSED
        except SweepBusy as busy:
            from sweeps.engine.watch import watch_sweep

            watch_sweep(busy)
            return BUSY
        except SweepAborted as error:
            print(f"error: {error}", file=sys.stderr)
            return FULL if isinstance(error, NoRoom) else FAILED
        except (KeyboardInterrupt, SystemExit) as stop:
            # Lightning answers a signal with sys.exit
            if isinstance(stop, SystemExit) and not signals.received:
                raise
            number = signals.received[-1] if signals.received else signal.SIGINT
            print("stopped; the same command goes on from here", file=sys.stderr)
            return 128 + (stop.number if isinstance(stop, Stopped) else number)
