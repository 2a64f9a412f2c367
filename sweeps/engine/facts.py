"""A sweep for machines: its plan, its outcome and the list of all, as facts that fit into JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sweeps.engine.places import check_places
from sweeps.engine.request import Request
from sweeps.engine.status import TrialCounts, read_status
from sweeps.engine.studies import find_study
from sweeps.engine.trials import Key, read_trials
from sweeps.sweep import Sweep

__all__ = ["count_trials", "describe_outcome", "describe_plan", "describe_studies", "names_of"]


def describe_plan(request: Request) -> dict[str, Any]:
    """What ``--plan`` prints. Raises PlanError where the data cannot give what is asked."""
    check_places(request.config)
    notes = request.check_records()
    status = read_status(request)
    counts = status.counts
    adapters = {key: request.adapter(key) for key in request.keys}
    cells = []
    for cell in request.cells:
        keys = {key for key in request.keys if key[0] == cell.text}
        cells.append(
            {
                "cell": cell.text,
                "levels": dict(cell.values),
                "control": cell.control,
                "untouched": cell.untouched,
                "trains": any(adapters[key] for key in keys),
                "trials": count_trials(counts, keys),
            }
        )
    seconds = status.remaining_seconds if status.waiting else 0.0
    return {
        "sweep": request.sweep.name,
        "question": request.sweep.question,
        "study": status.name,
        "folder": str(status.folder),
        "seeds": request.seeds,
        "cells": cells,
        "trials": count_trials(counts, counts.planned),
        "adapters": len({*filter(None, adapters.values())}),
        "seconds_left": None if seconds is None else round(seconds, 1),
        "notes": [*notes, *status.notes],
    }


def describe_outcome(request: Request) -> dict[str, Any]:
    """What a run came to: counts, the answer, and where both lie."""
    # They need SciPy, which a plan does without
    from reports.answer.files import read_answer, read_verdicts

    name, _ = find_study(request.sweep, request.config, request)
    folder = Path(request.config.output) / name
    verdicts = read_verdicts(folder)
    report = folder / "report.pdf"
    return {
        "sweep": request.sweep.name,
        "study": name,
        "folder": str(folder),
        "trials": count_trials(TrialCounts(read_trials(folder, name, request.keys), request.keys)),
        "answer": read_answer(folder),
        "conclusive": verdicts.get("conclusive"),
        "report": str(report) if report.is_file() else None,
    }


def describe_studies(sweep: Sweep, output: Path, studies: Sequence[str]) -> list[dict[str, Any]]:
    """How far each study of a sweep below ``output`` is, and its answer."""
    from reports.answer.files import read_answer

    found = []
    for name in names_of(sweep, studies):
        folder = output / name
        counts = TrialCounts(read_trials(folder, name))
        facts = {"study": name, "folder": str(folder), "trials": count_trials(counts)}
        found.append(facts | {"answer": read_answer(folder)})
    return found


def names_of(sweep: Sweep, studies: Iterable[str]) -> list[str]:
    """Those of the ``studies`` that are of this sweep."""
    pattern = re.compile(rf"{re.escape(sweep.name)}(-search)?(-[0-9a-f]{{8}}(-\d+)?)?")
    return [name for name in studies if pattern.fullmatch(name)]


def count_trials(counts: TrialCounts, keys: Iterable[Key] | None = None) -> dict[str, int]:
    """How many of ``keys`` (all) are planned, done, running, failed, only drawn."""
    among = counts.planned if keys is None else set(keys)
    numbers = {"planned": len(among)}
    for state in ("done", "running", "failed", "drawn"):
        numbers[state] = len(getattr(counts, state) & among)
    return numbers
