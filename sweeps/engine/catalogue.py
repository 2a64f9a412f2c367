"""All sweeps one after another: `python -m sweeps all`. Each is the command of its own that it would be alone, so that whatever has
finished is found again and a stopped catalogue goes on where it was."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from conf import load as conf
from conf import schema
from lightning_modules.training.progress import format_duration
from sweeps.engine.resolve import Declined, PlanError, resolve
from sweeps.run import PROGRAM, REFUSED, Trainer, settings
from sweeps.run import main as run_one
from sweeps.sweep import Cell, Sweep

if TYPE_CHECKING:
    from rich.console import Console

    from sweeps.engine.estimate import Look

__all__ = ["brief_words", "discover", "main"]

SIZE = ("mode", "cells", "levels")  # with one of these on the command line a sweep's own short form does not apply
HELP = """Every sweep, one after another, in a short form that leaves out combinations (mode=grid runs them all).

    python -m sweeps all                       # hours on two CPU cores; stop it whenever you like, the same command goes on
    python -m sweeps all --plan                # the catalogue, what is done of it, and how long the rest will take; runs nothing
    python -m sweeps all seeds=5 workers=2     # any setting that a single sweep takes

What fits to one sweep alone is not for this command; what cannot run with the settings given is said at the start, and left out."""


def discover() -> list[Sweep]:
    """All modules of the package `sweeps` that define SWEEP, by name. The engine's own modules are not loaded."""
    files = sorted(Path(__file__).parents[1].glob("*.py"))
    names = [file.stem for file in files if re.search(r"^SWEEP\b", file.read_text(encoding="utf-8"), re.MULTILINE)]
    return [importlib.import_module(f"sweeps.{name}").SWEEP for name in names]


@dataclass
class Item:
    """One sweep of the catalogue with the words of its command; `refused` says why it cannot run."""

    sweep: Sweep  # as its module has it
    words: list[str]
    config: schema.Sweep
    resolved: Sweep
    cells: list[Cell] = field(default_factory=list)
    refused: str = ""
    declined: bool = False

    def look(self) -> Look:
        from sweeps.engine.estimate import look

        return look(self.resolved, self.config, self.cells)


def brief_words(sweep: Sweep, words: Sequence[str] = ()) -> list[str]:
    """The words that make a sweep as short as the catalogue runs it; none where `words` say how long it shall be."""
    if sweep.brief == "grid" or any(word.partition("=")[0] in SIZE for word in words):
        return []
    if isinstance(sweep.brief, str):
        return [f"mode={sweep.brief}"]
    return ["mode=list", f"cells={json.dumps(list(sweep.brief), ensure_ascii=False)}"]


def _with_done(sweep: Sweep, words: Sequence[str]) -> list[str]:
    """`brief_words`, with the cells besides that have finished trials: a report that had them shall not lose them."""
    short = brief_words(sweep, words)
    if not short:
        return []
    from sweeps.engine.place import find
    from sweeps.engine.study import Study, key_of

    config = conf.load([*words, *short], sweep.preset)
    try:
        name, there = find(sweep, config)
        trials = Study.read(Path(config.output) / name, name, config.storage) if there else []
    except PlanError:
        return short
    done = {key_of(trial)[0] for trial in trials if trial.state.name == "COMPLETE"}
    every = sweep.cells(config.when)
    kept = {cell.text for cell in sweep.cells(config.when, config.mode, config.cells)}
    if not (done & {cell.text for cell in every}) - kept:
        return short
    names = [cell.text for cell in every if cell.text in done | kept and not (cell.baseline or cell.reference)]
    return ["mode=list", f"cells={json.dumps(names, ensure_ascii=False)}"]


def items(words: Sequence[str], sweeps: Sequence[Sweep]) -> list[Item]:
    """The catalogue under the settings `words`. Raises ConfigError for a setting that there is not, PlanError where no sweep can run."""
    found = []
    for sweep in sweeps:
        own = [*words, *_with_done(sweep, words)]
        item = Item(sweep, own, conf.load(own, sweep.preset), sweep)
        try:
            item.resolved, item.cells = resolve(sweep, item.config, own)
        except (PlanError, conf.ConfigError) as error:
            item.refused, item.declined = str(error), isinstance(error, Declined)
        found.append(item)
    able = [item for item in found if not item.declined]
    if able and all(item.refused for item in able):
        raise PlanError(able[0].refused)
    return found


def main(
    argv: Sequence[str], sweeps: Sequence[Sweep] | None = None, trainer: Trainer | None = None, program: tuple[str, ...] = PROGRAM
) -> int:
    """Run or preview the catalogue. Returns 0, 1 where a trial or report failed, 2 for a wrong command, 128 + n after a signal n."""
    if {"-h", "--help"} & set(argv):
        print(HELP)
        return 0
    words = settings(argv)
    from sweeps.engine.launch import LaunchError
    from sweeps.engine.storage import StorageError

    try:
        return _main(items(words, discover() if sweeps is None else sweeps), "--plan" in argv, trainer, program)
    except (conf.ConfigError, PlanError, LaunchError, StorageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:  # between two sweeps; within one it is the sweep's own affair
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130


def _main(catalogue: Sequence[Item], only_plan: bool, trainer: Trainer | None, program: tuple[str, ...]) -> int:
    for item in catalogue:
        if item.refused:
            print(f"left out: {item.refused if item.declined else f'{item.sweep.name}: {item.refused}'}", file=sys.stderr)
    running = [item for item in catalogue if not item.refused]
    from sweeps.engine.display import terminal

    console = terminal()
    if only_plan:
        _preview(running, console)
        return 0
    return _run(running, console, trainer, program)


def _preview(running: Sequence[Item], console: Console) -> None:
    from rich.table import Table

    from sweeps.engine.display import say
    from sweeps.engine.estimate import record

    table = Table()
    table.add_column("sweep")
    for name in ("cells", "trials", "done", "failed", "to come"):
        table.add_column(name, justify="right")
    looks = [item.look() for item in running]
    for item, seen in zip(running, looks, strict=True):
        rest = "–" if not seen.waiting else "unknown" if seen.seconds is None else format_duration(seen.seconds)
        counts = (len(item.cells), len(seen.found.wanted), len(seen.found.done), len(seen.found.failed) or "")
        table.add_row(item.sweep.name, *map(str, counts), f"{rest}{' *' if seen.recorded and seen.waiting else ''}")
    waiting, done = sum(len(seen.waiting) for seen in looks), sum(len(seen.found.done) for seen in looks)
    say(console, table)
    if any(seen.recorded and seen.waiting for seen in looks):
        say(console, f"* by the catalogue's run of {record()['date']} on {record()['hardware']}")
    total = _in_all([seen.seconds for seen in looks]) if waiting else "nothing is left to run"
    say(console, f"{len(running)} sweeps, {waiting + done} trials, {done} done; {total}")


def _in_all(seconds: Sequence[float | None]) -> str:
    """How long several sweeps take in all, and of how many nobody knows."""
    known = [one for one in seconds if one is not None]
    if not known:
        return "how long it takes is not known yet"
    more = "" if len(known) == len(seconds) else f", without {len(seconds) - len(known)} of which nothing is known yet"
    return f"about {format_duration(sum(known))} to come{more}"


def _run(running: Sequence[Item], console: Console, trainer: Trainer | None, program: tuple[str, ...]) -> int:
    from sweeps.engine.display import say

    statuses: dict[str, int] = {}
    expected = [item.look().seconds for item in running]
    for number, item in enumerate(running):
        say(console, f"\n[{number + 1}/{len(running)}] {item.sweep.name}: {item.sweep.question} ({_in_all(expected[number:])})")
        sys.stdout.flush()
        status = run_one(item.sweep, item.words, trainer, program)
        if status not in (0, 1):
            return status
        statuses[item.sweep.name] = status
    _conclude(running, statuses, console)
    return max(statuses.values(), default=0)


def _conclude(running: Sequence[Item], statuses: Mapping[str, int], console: Console) -> None:
    from rich.table import Table

    from lightning_modules.tracking.store import public
    from sweeps.engine.display import say

    table = Table(show_lines=True)
    for name in ("sweep", "trials", "their time", "answer"):
        table.add_column(name)
    for item in running:
        seen = item.look()
        path = seen.folder / "report.json"
        said = json.loads(path.read_text(encoding="utf-8"))["answer"] if path.is_file() else "no report"
        failed = " (failed)" if statuses.get(item.sweep.name) else ""
        table.add_row(item.sweep.name, f"{len(seen.found.done)}/{len(seen.found.wanted)}{failed}", format_duration(seen.spent), said)
    say(console, table)
    config = running[0].config
    say(console, f"reports: {Path(config.output) / '<sweep>' / 'report.pdf'}")
    where = "" if config.output == "runs" else f" output={shlex.quote(config.output)}"
    where += f" tracking_uri={public(config.tracking_uri)}" if config.tracking_uri else ""
    say(console, f"all in one: python -m reports all{where}")
