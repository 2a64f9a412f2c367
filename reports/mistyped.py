"""Names that are mistyped: the nearest one, in one line."""

from __future__ import annotations

import difflib
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

COMMANDS = ("user_study",)  # Beside the package itself


def nearest(word: str, names: Iterable[str]) -> str:
    """ "; did you mean …?" with the name most like ``word``; empty where none is similar."""
    best = difflib.get_close_matches(word, [*names], n=1)
    return f"; did you mean {best[0]}?" if best else ""


def check_command(argv: Sequence[str], words: Sequence[str]) -> None:
    """Ends ``python -m reports.NAME`` where that is no command: reports of sweeps are named behind
    a blank. ``argv`` and ``words`` are those of the process while Python looks for the module."""
    if list(argv[:1]) != ["-m"] or "-m" not in words:
        return
    module, *rest = words[words.index("-m") + 1 :]
    package, _, name = module.partition(".")
    folder = Path(__file__).parent.joinpath(*name.split("."))
    if package != "reports" or not name or (folder / "__main__.py").is_file():
        return
    one = name.partition(".")[0]
    places = [word for word in rest if word.startswith(("output=", "tracking_uri="))]
    command = shlex.join(["python", "-m", "reports", one, *places])
    near = nearest(one, COMMANDS)
    known = f"reports has {', '.join(COMMANDS)}{near}"
    cure = "" if near else f"; for the report of a sweep of that name: {command}"
    print(f"error: python -m {module}: no such command; {known}{cure}", file=sys.stderr)
    raise SystemExit(2)
