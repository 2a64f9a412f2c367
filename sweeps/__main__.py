"""Every sweep with its question.

    python -m sweeps                # this list
    python -m sweeps.threshold      # run one; --help shows its settings
    python -m sweeps ui             # open MLflow's pages of all that was run; --help shows its settings
"""

from __future__ import annotations

import importlib
import re
import sys
import textwrap
from pathlib import Path

from sweeps.sweep import Sweep, level_text


def discover() -> list[Sweep]:
    """All modules of this package that define SWEEP, by name. The engine's own modules are not loaded."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    names = [file.stem for file in files if re.search(r"^SWEEP\b", file.read_text(encoding="utf-8"), re.MULTILINE)]
    return [importlib.import_module(f"sweeps.{name}").SWEEP for name in names]


def main(argv: list[str]) -> int:
    """Print the list, or open the pages. Other words on the command line belong to a sweep, so they are refused."""
    if argv[:1] == ["ui"]:
        from sweeps import ui

        return ui.main(argv[1:])
    if argv and not {"-h", "--help"} & set(argv):
        print(f"error: python -m sweeps only lists, got {argv[0]!r}; to run a sweep: python -m sweeps.<name> key=value …", file=sys.stderr)
        return 2
    for sweep in discover():
        factors = "; ".join(f"{factor.key}: {', '.join(map(level_text, factor.levels))}" for factor in sweep.factors)
        print(f"python -m sweeps.{sweep.name}  ({factors})")
        print(textwrap.fill(sweep.question, 100, initial_indent="    ", subsequent_indent="    "))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
