"""Rebuild reports from MLflow: of a sweep, of all sweeps at once, or of two that are compared.

    python -m reports                                 # which sweeps there are below runs/
    python -m reports threshold                       # writes runs/threshold/report.pdf and its tables and figures
    python -m reports threshold output=/data/runs     # runs kept elsewhere
    python -m reports threshold tracking_uri=http://localhost:5000

    python -m reports all                             # every sweep in one PDF with contents and one table of all answers:
                                                      # runs/reports/all.pdf, the table as all.csv, all.md and all.tex beside it
    python -m reports compare threshold threshold-3ab2e826     # the second minus the first, cell by cell and seed by seed:
                                                      # runs/reports/threshold-vs-threshold-3ab2e826.pdf, .csv, .md, .tex, .svg
    python -m reports compare threshold /data/old:threshold    # FOLDER:SWEEP is a sweep of another output; so is
                                                      # http://host:5000:threshold, one of another server

`all` leaves the reports of single sweeps as they are, and names those that have nothing to show yet or are not finished. `compare` says
which settings, code and data differ, pairs seeds only where the same seed gave both sides the same prompts and noise, and does not compare
what was measured in different ways.

Settings:
    output=runs            folder with mlflow.db; the report of a sweep goes to <output>/<sweep>/, of several to <output>/reports/
    tracking_uri=…         MLflow server or database; default sqlite:///<output>/mlflow.db
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from reports.study import ReportError, public

SETTINGS = ("output", "tracking_uri")


def main(argv: list[str]) -> int:
    if {"-h", "--help"} & set(argv):
        print(__doc__.strip())
        return 0
    try:
        return _report(argv)
    except ReportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _report(argv: list[str]) -> int:
    names = [word for word in argv if "=" not in word]
    given = dict(word.split("=", 1) for word in argv if "=" in word)
    if unknown := sorted(given.keys() - set(SETTINGS)):
        raise ReportError(f"unknown setting '{unknown[0]}'; there are: {', '.join(f'{name}=' for name in SETTINGS)}")
    output = Path(given.get("output", "runs"))
    uri = given.get("tracking_uri", _database(output))
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # making a report never calls home
    if names[:1] == ["compare"]:
        return _compare(names[1:], given.get("tracking_uri") or str(output), uri, output / "reports")
    if len(names) > 1:
        raise ReportError(f"one sweep at a time, or: all, compare A B; got: {' '.join(names)}")
    if not names:
        return _list(uri)
    if names == ["all"]:
        from reports.overview import write_all

        print(write_all(uri, output / "reports"))
        return 0
    from reports.document import attach, write

    pdf = write(uri, names[0], output / names[0])
    attach(uri, names[0], pdf.parent)
    print(pdf)
    return 0


def _database(output: Path) -> str:
    return f"sqlite:///{(output / 'mlflow.db').resolve()}"


def _list(uri: str) -> int:
    from reports.collect import sweeps

    found = sweeps(uri)
    for name, question in found.items():
        print(f"{name:20} {question}")
    if not found:
        print(f"no sweep at {public(uri)}; run one first: python -m sweeps")
    return 0


def _compare(names: list[str], place: str, uri: str, folder: Path) -> int:
    if len(names) != 2:
        raise ReportError(f"compare takes two sweeps, SWEEP or FOLDER:SWEEP, got {len(names)}: {' '.join(names) or 'none'}")
    sides = [_side(name, place, uri) for name in names]
    from reports.comparison.document import named, write_comparison

    (first, _, one), (second, _, two) = sides
    labels = named(((first, public(sides[0][1])), (second, public(sides[1][1]))))
    print(write_comparison((one, two), (first, second), labels, folder))
    return 0


def _side(name: str, place: str, uri: str) -> tuple[str, str, str]:
    """Sweep, where it is as given, and its tracking URI."""
    where, _, sweep = name.rpartition(":")
    if not where:
        return sweep, place, uri
    if not sweep:
        raise ReportError(f"'{name}' names no sweep: expected SWEEP or FOLDER:SWEEP")
    return sweep, where, where if "://" in where or where.startswith("sqlite:") else _database(Path(where))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
