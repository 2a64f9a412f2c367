"""Every sweep with its question, its size and how far it is; or all of them run.

    python -m sweeps                      # this list, with what is done below runs/
    python -m sweeps output=/data/runs    # the same for another folder
    python -m sweeps all                  # runs all of them, in a short form
    python -m sweeps ui                   # opens MLflow on the results
    python -m sweeps sync                 # fills MLflow with what it lost or missed
    python -m sweeps bundle threshold     # one archive that proves a report; verify FILE checks it
    python -m sweeps prune --older 30d --keep-cited    # room: old images, adapters and caches
    python -m sweeps --json               # the list as lines of JSON
    python -m sweeps completion bash      # the words of all commands, for a shell: bash, zsh, fish
    python -m sweeps.threshold            # runs one

Each takes --help, and a run --plan: what is done, and how long the rest takes.
"""

from __future__ import annotations

import shlex
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conf import load as conf
from conf.describe import nearest, show_count
from conf.pipes import ends_with_reader
from conf.places import as_path
from sweeps import completion
from sweeps.command import show_version
from sweeps.engine.catalogue import discover
from sweeps.engine.errors import StorageError
from sweeps.engine.events import json_lines, listens, tell
from sweeps.engine.facts import describe_studies, names_of
from sweeps.engine.status import TrialCounts
from sweeps.engine.trials import list_studies, read_trials
from sweeps.sweep import Sweep, level_text


@ends_with_reader
def main(argv: list[str]) -> int:
    """Print the list, run all sweeps, or open the results. Other words belong to a sweep, so they
    are refused."""
    if argv and argv[0] == "all":
        from sweeps.engine.run_all import main as run_all

        return run_all(argv[1:])
    if argv and argv[0] == "ui":
        from sweeps.engine.ui import main as open_ui

        return open_ui(argv[1:])
    if argv and argv[0] == "sync":
        from sweeps.engine.sync import main as sync

        return sync(argv[1:])
    if argv and argv[0] in ("bundle", "verify"):
        from sweeps.engine import evidence

        command = evidence.main_bundle if argv[0] == "bundle" else evidence.main_verify
        return command(argv[1:])
    if argv and argv[0] == "prune":
        from sweeps.engine.prune import main as prune

        return prune(argv[1:])
    if argv and argv[0] == "completion":
        return completion.main(argv[1:])
    if "--version" in argv:
        return show_version()
    if {"-h", "--help"} & set(argv):
        print(__doc__.strip() if __doc__ else "")
        return 0
    settings = dict(word.split("=", 1) for word in argv if "=" in word)
    for word in argv:
        if word != "--json" and not word.startswith("output="):
            names = [sweep.name for sweep in discover()]
            if word in names:
                line = shlex.join([f"sweeps.{word}", *(other for other in argv if other != word)])
                cure = f"to run it: python -m {line}"
            else:
                cure = "to run a sweep: python -m sweeps.<name> key=value …"
                cure += nearest(word, [*names, *completion.COMMANDS])
            print(
                "error: python -m sweeps only lists (output=FOLDER, --json), runs all (all), "
                f"opens results (ui) and fills MLflow (sync), got {word!r}; {cure}",
                file=sys.stderr,
            )
            return 2
    try:
        output = as_path(settings.get("output", "runs"))
    except ValueError as error:
        print(f"error: output={settings['output']}: {error}", file=sys.stderr)
        return 2
    if output.exists() and not output.is_dir():
        print(f"error: output={output}: expected a folder, that is a file", file=sys.stderr)
        return 2
    try:
        with json_lines("--json" in argv):
            _print_list(output)
    except StorageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _print_list(output: Path) -> None:
    defaults = conf.load([])
    places = [] if output == Path("runs") else [f"output={output}"]
    studies = list_studies(output)
    for sweep in discover():
        factors = "; ".join(
            f"{factor.key}: {', '.join(map(level_text, factor.levels))}" for factor in sweep.factors
        )
        # Without more words on the line: it can be pasted
        print(f"python -m {shlex.join([f'sweeps.{sweep.name}', *places])}")
        print(textwrap.fill(factors, 100, initial_indent="    ", subsequent_indent="    "))
        print(textwrap.fill(sweep.question, 100, initial_indent="    ", subsequent_indent="    "))
        cells = len(sweep.cells(sweep.preset.get("when", defaults.when)))
        trials = cells * sweep.preset.get("seeds", defaults.seeds)
        size = f"{show_count(cells, 'cell')}, {show_count(trials, 'trial')}"
        for state in _describe_studies(sweep, output, studies):
            print(f"    {size}: {state}")
        if listens():
            tell("sweep", **_sweep_facts(sweep, cells, trials, output, studies))


def _describe_studies(sweep: Sweep, output: Path, studies: Sequence[str]) -> list[str]:
    """How far each study of a sweep is."""
    states = []
    for name in names_of(sweep, studies):
        counts = TrialCounts(read_trials(output / name, name))
        states.append(f"{counts.text()} in {output / name}")
    return states or ["not started"]


def _sweep_facts(
    sweep: Sweep, cells: int, trials: int, output: Path, studies: Sequence[str]
) -> dict[str, Any]:
    return {
        "sweep": sweep.name,
        "question": sweep.question,
        "factors": {factor.key: list(factor.levels) for factor in sweep.factors},
        "cells": cells,
        "trials": trials,
        "studies": describe_studies(sweep, output, studies),
    }


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
