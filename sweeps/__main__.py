"""Every sweep with its question, its size and how far it is; or all of them run.

    python -m sweeps                      # this list, with what is done below runs/
    python -m sweeps output=/data/runs    # the same for another folder
    python -m sweeps all                  # runs all of them, in a short form; all --plan says how long that takes
    python -m sweeps ui                   # opens MLflow on the results
    python -m sweeps.threshold            # runs one; --help shows its settings
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
from pathlib import Path

from conf import load as conf
from sweeps.engine.catalogue import discover
from sweeps.sweep import Sweep, level_text


def main(argv: list[str]) -> int:
    """Print the list, or open the results. Other words belong to a sweep, so they are refused."""
    if argv and argv[0] in ("all", "ui"):
        from sweeps.engine import catalogue, ui

        return (catalogue if argv[0] == "all" else ui).main(argv[1:])
    if {"-h", "--help"} & set(argv):
        print(__doc__.strip() if __doc__ else "")
        return 0
    given = dict(word.split("=", 1) for word in argv if "=" in word)
    if wrong := [word for word in argv if word.partition("=")[0] not in ("output", "storage") or "=" not in word]:
        takes = "python -m sweeps only lists (output=FOLDER, storage=URL), runs all (all) and opens results (ui)"
        print(f"error: {takes}, got {wrong[0]!r}; to run a sweep: python -m sweeps.<name> key=value …", file=sys.stderr)
        return 2
    for sweep in discover():
        factors = "; ".join(f"{factor.key}: {', '.join(map(level_text, factor.levels))}" for factor in sweep.factors)
        print(f"python -m sweeps.{sweep.name}  ({factors})")
        print(textwrap.fill(sweep.question, 100, initial_indent="    ", subsequent_indent="    "))
        cells = len(sweep.cells(conf.load([], sweep.preset).when))
        for line in _states(Path(given.get("output", "runs")), given.get("storage"), sweep, cells):
            print(f"    {line}")
    return 0


def _states(output: Path, storage: str | None, sweep: Sweep, cells: int) -> list[str]:
    """The size of a sweep, and how far each of its studies is, below `output` or in the database `storage`."""
    from sweeps.engine.estimate import Progress
    from sweeps.engine.study import Study, studies

    size = f"{cells} cells, {cells * conf.load([], sweep.preset).seeds} trials"
    named = re.compile(rf"{sweep.name}(-search)?(-[0-9a-f]{{8}}(-\d+)?)?")
    found = [name for name in studies(output, storage) if named.fullmatch(name)]
    if not found:
        return [f"{size}: not started"]
    return [f"{size}: {Progress(Study.read(output / name, name, storage)).text()} in {output / name}" for name in found]


if __name__ == "__main__":
    try:
        status = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # head has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    raise SystemExit(status)
