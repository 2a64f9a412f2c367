"""Rebuild reports from MLflow: of a sweep, of all sweeps at once, or of two that are compared.

    python -m reports                                 # which sweeps there are below runs/
    python -m reports threshold                       # writes runs/threshold/report.pdf and more
    python -m reports threshold output=/data/runs     # runs kept elsewhere
    python -m reports threshold tracking_uri=http://localhost:5000

    python -m reports all         # every sweep in one PDF with contents and a table of all answers:
                                  # runs/reports/all.pdf, the table as all.csv, all.md and all.tex
    python -m reports compare threshold threshold-3ab2e826
                                  # the second minus the first, cell by cell and seed by seed:
                                  # runs/reports/threshold-vs-threshold-3ab2e826.pdf, .csv, …
    python -m reports compare threshold /data/old:threshold
                                  # FOLDER:SWEEP is a sweep of another output; so is
                                  # http://host:5000:threshold, one of another server

`all` leaves the reports of single sweeps as they are, and names those that have nothing to show
yet or are not finished. `compare` says which settings, code and data differ, pairs seeds only where
the same seed gave both sides the same prompts and noise, and does not compare what was measured in
different ways.

With --json each of them prints a line of JSON: the report's place with its answer and every
comparison, or a line for each sweep of the list; after an error its message.

Settings:
    output=runs            folder with mlflow.db; the report of a sweep goes to <output>/<sweep>/,
                           of several to <output>/reports/
    tracking_uri=…         MLflow server or database; default sqlite:///<output>/mlflow.db
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reports.mistyped import nearest
from reports.pipes import ends_with_reader
from reports.results import ReportError, hide_password

SETTINGS = ("output", "tracking_uri")


@ends_with_reader
def main(argv: list[str]) -> int:
    if {"-h", "--help"} & set(argv):
        print(__doc__.strip())
        return 0
    as_json = "--json" in argv
    words = [word for word in argv if word != "--json"]
    lines = sys.stdout
    try:
        # What libraries print is for people
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            made = _run(words)
    except ReportError as error:
        print(f"error: {error}", file=sys.stderr)
        if as_json:
            print(json.dumps({"event": "error", "message": str(error), "status": 2}), file=lines)
        return 2
    if as_json:
        for event in _list_events(made):
            print(json.dumps(event, ensure_ascii=False))
    elif isinstance(made, dict):
        table = "\n".join(f"{name:20} {question}" for name, question in made.items())
        print(table or f"no sweep at {_place(words)}; run one first: python -m sweeps")
    else:
        print(made)
    return 0


def _place(words: list[str]) -> str:
    _, settings = split_words(words, SETTINGS)
    return hide_password(read_uri(settings, read_place(settings, "output", "runs")))


def _list_events(made: Path | dict[str, str]) -> list[dict[str, Any]]:
    """What was made, for machines: a report with what its answer.json says, or a list of sweeps."""
    if isinstance(made, dict):
        return [{"event": "sweep", "sweep": name, "question": q} for name, q in made.items()]
    from reports.answer.files import read_verdicts

    verdicts = read_verdicts(made.parent) if made.name == "report.pdf" else {}
    return [{"event": "report", "report": str(made), **verdicts}]


def _run(argv: list[str]) -> Path | dict[str, str]:
    """Do what the words say; return the PDF, or sweep -> question. Slow imports wait for it."""
    names, settings = split_words(argv, SETTINGS)
    output = read_place(settings, "output", "runs")
    uri = read_uri(settings, output)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # Making a report never calls home
    if names[:1] == ["compare"]:
        if len(names) != 3:
            got = f"{len(names) - 1}: {' '.join(names[1:]) or 'none'}"
            raise ReportError(f"compare takes two sweeps, SWEEP or FOLDER:SWEEP, got {got}")
        from reports.compare import write_comparison

        place = uri if "tracking_uri" in settings else str(output)
        sides = [_find_sweep(name, place, uri) for name in names[1:]]
        return write_comparison((sides[0], sides[1]), output / "reports")
    if len(names) > 1:
        raise ReportError(f"one sweep at a time, or: all, compare A B; got: {' '.join(names)}")
    if names == ["all"]:
        from reports.overview import write_overview

        return write_overview(uri, output / "reports")
    if names:
        from reports.report import attach_report, write_report

        began = time.time()
        pdf = write_report(uri, names[0], output / names[0])
        attach_report(uri, names[0], pdf.parent, began)
        return pdf
    from reports.collect import list_sweeps

    return list_sweeps(uri)


def split_words(argv: list[str], settings: tuple[str, ...]) -> tuple[list[str], dict[str, str]]:
    """Names and settings of a command line. Raises ReportError on an unknown setting."""
    names = [word for word in argv if "=" not in word]
    values = dict(word.split("=", 1) for word in argv if "=" in word)
    if unknown := sorted(values.keys() - set(settings)):
        known = ", ".join(f"{name}=" for name in settings)
        near = nearest(unknown[0], settings)
        raise ReportError(f"unknown setting '{unknown[0]}'; there are: {known}{near}")
    return names, values


def read_place(settings: Mapping[str, str], name: str, default: Path | str = "") -> Path:
    """The path that the setting ``name`` says, in which ``~`` is the home of a user. Raises
    ReportError where there is no such user, and for nothing but blanks."""
    text = settings.get(name, str(default))
    path = os.path.expanduser(text)
    word = f"{name}={text}" if name else text
    if not text.strip():
        raise ReportError(f"{word}: expected the name of a file or folder")
    if path.startswith("~"):
        user = path.partition("/")[0][1:]
        raise ReportError(f"{word}: there is no user {user}: write ./{path} for a name as that")
    return Path(path)


def read_uri(settings: Mapping[str, str], output: Path = Path()) -> str:
    """The tracking URI that the settings say, by default the database in ``output``; ``~`` in the
    place of a file is as for `read_place`."""
    uri = settings.get("tracking_uri", database_in(output))
    scheme = next((s for s in ("sqlite:///", "file://") if uri.startswith(f"{s}~")), None)
    if scheme is None and not uri.startswith("~"):
        return uri
    return f"{scheme or ''}{read_place({'tracking_uri': uri[len(scheme or '') :]}, 'tracking_uri')}"


def database_in(output: Path) -> str:
    return f"sqlite:///{(output / 'mlflow.db').resolve()}"


def _find_sweep(name: str, place: str, uri: str) -> tuple[str, str, str]:
    """Sweep, where it is as the user said it, and its tracking URI."""
    where, _, sweep = name.rpartition(":")
    if not where:
        return sweep, place, uri
    if not sweep:
        raise ReportError(f"'{name}' names no sweep: expected SWEEP or FOLDER:SWEEP")
    is_uri = "://" in where or where.startswith("sqlite:")
    where = read_uri({"tracking_uri": where}) if is_uri else where
    return sweep, where, where if is_uri else database_in(read_place({"": where}, ""))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
