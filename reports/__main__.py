"""Rebuild the report of a sweep from MLflow.

    python -m reports                                 # which sweeps there are below runs/
    python -m reports threshold                       # writes runs/threshold/report.pdf and its tables and figures
    python -m reports threshold output=/data/runs     # runs kept elsewhere
    python -m reports threshold tracking_uri=http://localhost:5000

Settings:
    output=runs            folder with mlflow.db; the report goes to <output>/<sweep>/
    tracking_uri=…         MLflow server or database; default sqlite:///<output>/mlflow.db
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from reports.study import ReportError

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
    if len(names) > 1:
        raise ReportError(f"one sweep at a time, got: {' '.join(names)}")
    output = Path(given.get("output", "runs"))
    uri = given.get("tracking_uri", f"sqlite:///{(output / 'mlflow.db').resolve()}")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # making a report never calls home
    if not names:
        from reports.collect import sweeps

        found = sweeps(uri)
        for name, question in found.items():
            print(f"{name:20} {question}")
        if not found:
            print(f"no sweep at {uri}; run one first: python -m sweeps")
        return 0
    from reports.document import attach, write

    pdf = write(uri, names[0], output / names[0])
    attach(uri, names[0], pdf.parent)
    print(pdf)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
