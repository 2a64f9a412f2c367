"""What the catalogue of sweeps takes: reads a finished `python -m sweeps all` and writes what
`--plan` goes by if nothing has run yet.

    python tests/benchmarks/catalogue.py output=runs "hardware=two CPU cores, two workers"

Of each sweep the seconds of a trial by its kind, so that trials × seconds is the time in which the
sweep had trials running. Run it again after sizes have changed; of a trial that another sweep's
adapter served, the time is what it took here. Sweeps that are not finished there keep their record.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from conf import load as conf
from sweeps.engine.catalogue import brief_words, discover
from sweeps.engine.errors import Declined
from sweeps.engine.eta import TIMES, recorded_run
from sweeps.engine.plan import seconds_of
from sweeps.engine.resolve import resolve
from sweeps.engine.status import read_status
from sweeps.engine.trials import read_trials


def busy_seconds(spans: Sequence[tuple[datetime, datetime]]) -> float:
    """Seconds in which at least one trial ran."""
    total, end = 0.0, datetime.min
    for begin, stop in sorted(spans):
        total += max(0.0, (stop - max(begin, end)).total_seconds())
        end = max(end, stop)
    return total


def main(argv: list[str]) -> None:
    settings = dict(word.split("=", 1) for word in argv)
    output = Path(settings.get("output", "runs"))
    sweeps, total, latest = dict(recorded_run()["sweeps"]), 0.0, datetime.min
    for sweep in discover():
        words = brief_words(sweep)
        config = conf.load([f"output={output}", *words], sweep.preset)
        try:
            status = read_status(resolve(sweep, config, words))
        except Declined:
            continue
        if status.waiting:
            missing = f"{len(status.waiting)} of {len(status.counts.planned)}"
            print(f"{sweep.name:20} {missing} trials are missing: its record stays")
            continue
        trials = read_trials(status.folder, status.name)
        trials = [trial for trial in trials if trial.state.name == "COMPLETE"]
        spans = [(t.datetime_start, t.datetime_complete) for t in trials]
        known = [(begin, end) for begin, end in spans if begin and end]
        seconds, wall = seconds_of(trials), busy_seconds(known)
        scale = wall / sum(second for _, second in seconds)
        kinds: dict[str, list[float]] = {}
        for kind, second in seconds:
            kinds.setdefault(kind, []).append(second)
        sweeps[sweep.name] = {
            kind: round(scale * sum(own) / len(own), 1) for kind, own in sorted(kinds.items())
        }
        total, latest = total + wall, max(latest, *(end for _, end in known))
        print(f"{sweep.name:20} {len(trials):3} trials {wall / 60:6.1f} min")
    hardware = settings.get("hardware", "a machine that was not named")
    record = {"date": f"{latest:%Y-%m-%d}", "hardware": hardware, "sweeps": sweeps}
    TIMES.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{total / 3600:.1f} h in these; written to {TIMES}")


if __name__ == "__main__":
    main(sys.argv[1:])
