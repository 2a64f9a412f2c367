"""Every sweep with its question, its size and how far it is.

    python -m sweeps                      # this list, with what is done below runs/
    python -m sweeps output=/data/runs    # the same for another folder
    python -m sweeps ui                   # opens MLflow on the results
    python -m sweeps.threshold            # runs one; --help shows its settings
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import textwrap
from pathlib import Path

from conf import load as conf
from sweeps.sweep import Sweep, level_text


def discover() -> list[Sweep]:
    """All modules of this package that define SWEEP, by name. The engine's own modules are not loaded."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    names = [file.stem for file in files if re.search(r"^SWEEP\b", file.read_text(encoding="utf-8"), re.MULTILINE)]
    return [importlib.import_module(f"sweeps.{name}").SWEEP for name in names]


def main(argv: list[str]) -> int:
    """Print the list, or open the results. Other words belong to a sweep, so they are refused."""
    if argv and argv[0] == "ui":
        from sweeps.engine import ui

        return ui.main(argv[1:])
    if {"-h", "--help"} & set(argv):
        print(__doc__.strip() if __doc__ else "")
        return 0
    output = next((word.partition("=")[2] for word in argv if word.startswith("output=")), "runs")
    if wrong := [word for word in argv if not word.startswith("output=")]:
        hint = "to run a sweep: python -m sweeps.<name> key=value …"
        print(f"error: python -m sweeps only lists (output=FOLDER) and opens results (ui), got {wrong[0]!r}; {hint}", file=sys.stderr)
        return 2
    for sweep in discover():
        factors = "; ".join(f"{factor.key}: {', '.join(map(level_text, factor.levels))}" for factor in sweep.factors)
        print(f"python -m sweeps.{sweep.name}  ({factors})")
        print(textwrap.fill(sweep.question, 100, initial_indent="    ", subsequent_indent="    "))
        cells = len(sweep.cells(conf.load([], sweep.preset).when))
        for line in _states(Path(output), sweep, cells):
            print(f"    {line}")
    return 0


def _states(output: Path, sweep: Sweep, cells: int) -> list[str]:
    """The size of a sweep, and how far each of its studies below `output` is."""
    size = f"{cells} cells, {cells * conf.load([], sweep.preset).seeds} trials"
    named = re.compile(rf"{sweep.name}(-search)?(-[0-9a-f]{{8}}(-\d+)?)?")
    folders = [folder for folder in sorted(output.glob(f"{sweep.name}*")) if named.fullmatch(folder.name)]
    if not any((folder / "study.journal").exists() for folder in folders):
        return [f"{size}: not started"]
    from sweeps.engine.preview import Progress
    from sweeps.engine.study import Study

    return [f"{size}: {Progress(Study.read(folder, folder.name)).text()} in {folder}" for folder in folders]


if __name__ == "__main__":
    try:
        status = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # head has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    raise SystemExit(status)
