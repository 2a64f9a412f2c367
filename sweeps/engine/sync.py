"""``python -m sweeps sync``: MLflow as the folders say.

A store that was lost, or was away when trials ended, gets what it lacks: experiments, runs of cells
and seeds with their settings, losses, results and files, means, reports. May be repeated.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from conf import load as conf
from conf.describe import show_count
from conf.pipes import ends_with_reader
from conf.places import as_path
from reports import report
from sweeps.engine.catalogue import discover
from sweeps.engine.create import create_study
from sweeps.engine.driver import abort_on_lost_storage
from sweeps.engine.errors import LaunchError, PlanError, StorageError, SweepAborted, SweepBusy
from sweeps.engine.places import check_places
from sweeps.engine.resolve import resolve
from sweeps.engine.studies import find_study
from sweeps.engine.trials import list_studies, read_facts
from sweeps.sweep import Sweep

__all__ = ["main"]

HELP = """Fills MLflow from the folders of an output: what it lost, or missed while it was away.

    python -m sweeps sync                              # runs/mlflow.db, of all sweeps below runs/
    python -m sweeps sync output=/data/runs tracking_uri=http://mlflow:5000
"""
FAILED, REFUSED = 1, 2  # Exit statuses


@ends_with_reader
def main(argv: Sequence[str]) -> int:
    """Returns 0, 1 if a sweep could not be brought over, 2 for a wrong command."""
    if {"-h", "--help"} & set(argv):
        print(HELP)
        return 0
    given = dict(word.partition("=")[::2] for word in argv)
    if unknown := [word for word in argv if word.partition("=")[0] not in PLACES]:
        print(f"error: {unknown[0]}: sync takes output=FOLDER and tracking_uri=…", file=sys.stderr)
        return REFUSED
    try:
        output = as_path(given.get("output", "runs"))
        names = list_studies(output)
    except (ValueError, StorageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return REFUSED
    if not names:
        print(f"error: output={output}: no sweep has begun there", file=sys.stderr)
        return REFUSED
    sweeps = {sweep.name: sweep for sweep in discover()}
    status = 0
    for name in names:
        words = read_facts(output / name, name).get("words")
        try:
            if not words or words[0] not in sweeps:
                raise PlanError("its command is not known; run that again instead")
            print(f"{name}: {_sync_one(sweeps[words[0]], name, output, words[1:], argv)}")
        except SweepBusy as busy:
            print(f"{name}: {busy}, which keeps MLflow up to date")
        except (conf.ConfigError, LaunchError, PlanError, StorageError, SweepAborted) as error:
            print(f"error: {name}: {error}", file=sys.stderr)
            status = FAILED
    return status


PLACES = ("output", "tracking_uri")


def _sync_one(
    sweep: Sweep, name: str, output: Path, words: Sequence[str], given: Sequence[str]
) -> str:
    """What was brought over, in words."""
    named = {word.partition("=")[0] for word in given} | {"output"}
    kept = [word for word in words if word.partition("=")[0] not in named]
    own = [word for word in given if not word.startswith("output=")]
    words = [*kept, *own, f"output={output}"]
    request = resolve(sweep, conf.load(words, sweep.preset), words)
    check_places(request.config)
    found, exists = find_study(sweep, request.config, request)
    if not exists or found != name:
        command = shlex.join([f"sweeps.{sweep.name}", *words])
        raise PlanError(f"python -m {command} is another sweep with the settings of today")
    began = time.time()
    with abort_on_lost_storage(output / name):
        plan = create_study(request)
        try:
            done = len(plan.done())
            if all((plan.folder / file).is_file() for file in report.FILES):
                report.attach_report(plan.mirror.uri, name, plan.folder, began)
            return f"{show_count(done, 'finished trial')} in {plan.mirror.links()[0][1]}"
        finally:
            plan.close()
