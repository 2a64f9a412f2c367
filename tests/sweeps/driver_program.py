"""A driver in a process of its own, to be killed: the tests' sweep over the tests' trials, without
a report."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from helpers.sweep_states import SWEEP  # noqa: E402

from reports import report  # noqa: E402
from sweeps.command import main  # noqa: E402


def write(uri: str, name: str, folder: Path) -> Path:
    (folder / "report.json").write_text(json.dumps({"answer": "It does."}))
    (folder / "report.pdf").write_bytes(b"%PDF")
    return folder / "report.pdf"


report.write_report = write  # type: ignore[assignment]
report.attach_report = lambda uri, name, folder, began: ""  # type: ignore[assignment]

if __name__ == "__main__":
    sys.exit(
        main(SWEEP, sys.argv[1:], program=(str(Path(__file__).with_name("trial_program.py")),))
    )
