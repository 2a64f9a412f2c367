"""One command of a sweep: plans it, runs its trials in their slots, keeps MLflow and the queue true, writes the report.

Stop it however and whenever you like; the same command goes on and repeats nothing that has finished.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from conf import load as conf
from sweeps.engine.launch import PROGRAM, LaunchError, Trainer, slots_for
from sweeps.sweep import Sweep

if TYPE_CHECKING:
    from types import FrameType

    from rich.console import Console

    from sweeps.engine.launch import Slot
    from sweeps.engine.plan import Plan
    from sweeps.engine.study import Key

__all__ = ["Trainer", "main"]

FAILED, REFUSED = 1, 2  # exit statuses
FLAGS = {
    "--plan": "print the cells, what is done and how long the rest will take; run nothing",
    "--fresh": "use nothing that was made before: results, adapters and images get a mark of their own (fresh=…)",
    "--help": "this page",
}


def settings(argv: Sequence[str]) -> list[str]:
    """The `key=value` words of a command, in which --fresh stands for a mark of its own."""
    words = [word for word in argv if word not in FLAGS]
    if "--fresh" in argv:
        words.append(f"fresh={time.strftime('%Y%m%d-%H%M%S')}")
        print(f"--fresh: nothing made before is used; to go on with this one later, say {words[-1]} instead", file=sys.stderr)
    return words


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end at once."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Signals:
    """The first Ctrl-C lets running trials finish and begins no others; the second, or another signal, stops at once (`Stopped`)."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self.working = False  # whether there are trials that could finish

    @property
    def finishing(self) -> bool:
        return bool(self.received)

    def _came(self, number: int, _: FrameType | None) -> None:
        self.received.append(number)
        if number != signal.SIGINT or len(self.received) > 1 or not self.working:
            raise Stopped(number)
        print("\nfinishing the trials that run, beginning no others; Ctrl-C again stops at once", file=sys.stderr, flush=True)

    @contextmanager
    def watched(self) -> Iterator[Signals]:
        kinds = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has no last one
        before = {kind: signal.getsignal(kind) for kind in kinds}
        try:
            for kind in kinds:
                signal.signal(kind, self._came)
            yield self
        finally:
            for kind in kinds:
                signal.signal(kind, before[kind])


def main(
    sweep: Sweep, argv: Sequence[str] | None = None, trainer: Trainer | None = None, program: tuple[str, ...] = PROGRAM
) -> int:
    """Run `sweep` with `key=value` words. Returns 0, 1 where a trial or the report failed, 2 for a wrong command, 128 + n after a signal n.

    `trainer` takes the place of `lightning_modules.training.run.run`, `program` of the worker that other processes run.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(argv):
        about = "\n".join(f"  {flag:<22}  {meaning}" for flag, meaning in FLAGS.items())
        page = conf.help_text(f"{sweep.question}\n{sweep.origin}", f"python -m sweeps.{sweep.name}", sweep.preset)
        print(f"{page.rstrip()}\n\nflags\n{about}")
        return 0
    words = settings(argv)
    from sweeps.engine.driver import Halted, guarded
    from sweeps.engine.resolve import PlanError, resolve
    from sweeps.engine.storage import Server, StorageError

    with Signals().watched() as signals:
        plan = None
        try:
            config = conf.load(words, sweep.preset)
            resolved, cells = resolve(sweep, config, words)
            if "--plan" in argv:
                from sweeps.engine.preview import preview

                preview(resolved, config, cells)
                return 0
            from sweeps.engine.place import make, uri_of

            # first, since looking for GPUs takes seconds
            uri_of(config)
            if config.storage is not None:
                Server(config.storage)
            slots = slots_for(config, trainer, program)
            with guarded():
                plan = make(resolved, config, cells, words)
            return _run(plan, slots, signals)
        except (conf.ConfigError, PlanError, LaunchError, StorageError) as error:
            print(f"error: {error}", file=sys.stderr)
            return REFUSED if plan is None else FAILED
        except Halted as halt:
            print(f"error: {halt}", file=sys.stderr)
            return FAILED
        except (KeyboardInterrupt, SystemExit) as stop:
            # Lightning answers a signal with sys.exit
            if isinstance(stop, SystemExit) and not signals.received:
                raise
            number = stop.number if isinstance(stop, Stopped) else signals.received[-1] if signals.received else signal.SIGINT
            print("stopped; the same command goes on from here", file=sys.stderr)
            return 128 + number
        finally:
            if plan is not None:
                plan.close()


def _run(plan: Plan, slots: Sequence[Slot], signals: Signals) -> int:
    from sweeps.engine.display import Pace, say, terminal, view
    from sweeps.engine.driver import Driver, guarded

    console = terminal()
    done = plan.done()
    for note in plan.notes:
        say(console, note)
    say(console, f"{plan.name}: {plan.size()}, {len(done)} finished; {plan.folder}")
    pace = Pace(len(slots))
    for kind, seconds in plan.seconds():
        pace.add(kind, seconds)
    waiting = plan.kinds([key for key in plan.wanted if key not in done])
    failures: dict[Key, str] = {}
    if waiting or plan.more():
        with view(console, pace, len(done), waiting, plan.more()) as shown:
            driver = Driver(plan, slots, shown, lambda: signals.finishing)
            signals.working = True
            try:
                driver.run()
            finally:
                signals.working = False
            failures = driver.failures
    with guarded():
        status = _conclude(plan, console, failures)
    if signals.finishing:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 128 + signals.received[0]
    return status


def _conclude(plan: Plan, console: Console, failures: dict[Key, str]) -> int:
    """Table, report, where to look, and what is missing."""
    from sweeps.engine.display import say, summary_table
    from sweeps.engine.spent import spent_table

    done = plan.done()
    for line in plan.results():
        say(console, line)
    say(console, summary_table(plan.sweep, plan.cells, plan.seeds, plan.ledger.seeds(), console.width))
    if table := spent_table(plan.study.trials()):
        say(console, table)
    written = bool(done) and _report(plan, console)
    rows = [("folder", str(plan.folder)), *plan.ledger.links()]
    if written:
        rows.insert(0, ("report", str(plan.folder / "report.pdf")))
    for label, text in rows:
        say(console, f"{label + ':':<9}{text}")
    for (cell, seed), reason in failures.items():
        print(f"failed: {cell}, seed {seed}: {reason}", file=sys.stderr)
    rest = set(plan.wanted) - done - failures.keys()
    elsewhere = len(rest & plan.elsewhere())
    if elsewhere:
        say(console, f"{elsewhere} more being run by another process; the same command later adds them to the report")
    if len(rest) > elsewhere:
        say(console, f"{len(rest) - elsewhere} trials are left to run")
    return FAILED if failures or (done and not written) else 0


def _report(plan: Plan, console: Console) -> bool:
    """Write and attach the report, unless nothing that it depends on has changed, and say its answer. False where that failed."""
    from lightning_modules.tracking.store import public
    from reports import document
    from reports.study import ReportError
    from sweeps.engine.display import say

    made_by = Path(document.__file__).parent
    source = {file.name: file.read_text(encoding="utf-8") for file in made_by.iterdir() if file.suffix in (".py", ".typ")}
    digest = conf.digest({"state": plan.ledger.state(), "source": source})
    if plan.study.facts.get("report") != digest or not (plan.folder / "report.pdf").is_file():
        try:
            document.write(plan.ledger.uri, plan.name, plan.folder)
            document.attach(plan.ledger.uri, plan.name, plan.folder)
        except ReportError as error:
            away = plan.config.tracking_uri
            where = f"output={plan.config.output}" + (f" tracking_uri={public(away)}" if away else "")
            print(f"error: no report: {error}; to try again: python -m reports {plan.name} {where}", file=sys.stderr)
            return False
        plan.study.remember("report", digest)
    say(console, json.loads((plan.folder / "report.json").read_text(encoding="utf-8"))["answer"])
    return True
