"""What the catalogue of sweeps takes: reads a finished `python -m sweeps all` and writes what
`--plan` goes by where nothing has run yet.

    python tests/benchmarks/catalogue.py output=runs "hardware=two CPU cores, two workers"

Of each sweep the seconds of a trial by its kind, so that trials × seconds is the time for which the
sweep had trials running. Run it again after sizes have changed; of a trial that another sweep's
adapter served, the time is what it took here. Sweeps that are not finished there keep the record
they had.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path

from conf import load as conf
from sweeps.engine.catalogue import brief_words, discover
from sweeps.engine.estimate import TIMES, look
from sweeps.engine.place import kept_apart
from sweeps.engine.plan import seconds_of
from sweeps.engine.resolve import Declined, resolve
from sweeps.engine.study import Study


def busy(spans: list[tuple[datetime, datetime]]) -> float:
    """Seconds in which at least one trial ran."""
    total, end = 0.0, datetime.min
    for begin, stop in sorted(spans):
        total += max(0.0, (stop - max(begin, end)).total_seconds())
        end = max(end, stop)
    return total


def main(argv: list[str]) -> None:
    given = dict(word.split("=", 1) for word in argv)
    output = Path(given.get("output", "runs"))
    sweeps, sum_of_all, latest = (
        json.loads(TIMES.read_text(encoding="utf-8"))["sweeps"],
        0.0,
        datetime.min,
    )
    for sweep in discover():
        words = brief_words(sweep)
        config = conf.load([f"output={output}", *words], sweep.preset)
        try:
            resolved, cells = resolve(sweep, config, words)
        except Declined:
            continue
        seen = look(resolved, config, cells)
        if seen.waiting:
            print(
                f"{sweep.name:20} {len(seen.waiting)} of {len(seen.found.wanted)} trials "
                "are missing: its record stays"
            )
            continue
        trials = [
            trial for trial in Study.read(seen.folder, seen.name) if trial.state.name == "COMPLETE"
        ]
        spans = [
            (t.datetime_start, t.datetime_complete)
            for t in trials
            if t.datetime_start and t.datetime_complete
        ]
        seconds, wall = seconds_of(trials), busy(spans)
        scale = wall / sum(second for _, second in seconds)
        kinds = {
            kind: [second for other, second in seconds if other == kind] for kind, _ in seconds
        }
        means = {
            kind: round(scale * sum(found) / len(found), 1) for kind, found in sorted(kinds.items())
        }
        sweeps[sweep.name] = {"digest": conf.digest(kept_apart(resolved, config)), "seconds": means}
        sum_of_all, latest = sum_of_all + wall, max(latest, *(stop for _, stop in spans))
        print(f"{sweep.name:20} {len(trials):3} trials {wall / 60:6.1f} min")
    hardware = given.get("hardware", "a machine that was not named")
    record = {
        "date": f"{latest:%Y-%m-%d}",
        "hardware": hardware,
        "sweeps": dict(sorted(sweeps.items())),
    }
    TIMES.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"{sum_of_all / 3600:.1f} h in these; written to {TIMES}")


if __name__ == "__main__":
    main(sys.argv[1:])
