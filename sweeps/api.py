"""Sweeps from Python: ``run`` does what the command does, ``results`` reads what is there.

    from sweeps import results, run

    frame = run("threshold", seeds=2)                  # a row for each trial that has finished
    frame = run("threshold", "until=.05", **{"trainer.steps": 300})
    frame = results("threshold", output="/data/runs")  # runs nothing
    frame.attrs["answer"]

In a notebook the lines of the command show how far it is.
"""

from __future__ import annotations

import contextlib
import json
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.sweep import Sweep

if TYPE_CHECKING:
    import pandas as pd

    from sweeps.engine.worker import Trainer

__all__ = ["results", "run"]


def run(
    sweep: str | Sweep, *words: str, train: Trainer | None = None, **settings: Any
) -> pd.DataFrame:
    """Runs what is left of a sweep and returns `results`. ``words`` are those of the command, with
    flags; ``settings`` are more of them, as ``seeds=2``.

    Raises ValueError for what the command would refuse, SweepAborted in the middle,
    KeyboardInterrupt after Ctrl-C; warns where trials failed. ``train`` stands for the training.
    """
    from sweeps.command import execute
    from sweeps.engine.events import listening
    from sweeps.engine.signals import Signals

    words = (*words, *(f"{key}={_as_word(value)}" for key, value in settings.items()))
    if shown := {"--plan", "--help", "--version", "--print-config", "--json"} & {*words}:
        raise ValueError(f"run({min(shown)!r}): prints, and runs nothing; use the command for it")
    sweep = _find_sweep(sweep) if isinstance(sweep, str) else sweep
    last: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        signals = Signals()
        if threading.current_thread() is threading.main_thread():
            stack.enter_context(signals.handle())
        stack.enter_context(listening(lambda event: last.update({event["event"]: event})))
        status = execute(sweep, [*words], signals, train)
    if status >= 128:
        raise KeyboardInterrupt
    if status:
        warnings.warn("some trials or the report failed, as the lines above say", stacklevel=2)
    return _read_frame(sweep, Path(last["result"]["folder"]))


def results(sweep: str | Sweep, output: str | Path = "runs") -> pd.DataFrame:
    """The finished trials of a sweep below ``output``: cell, seed, a column for each factor and
    each metric, seconds. ``sweep`` may name a study of other settings, ``threshold-3ab2e826``.

    The frame's ``attrs`` hold the folder and the answer. Raises FileNotFoundError where there is
    no such study.
    """
    from sweeps.engine.trials import list_studies

    name = sweep if isinstance(sweep, str) else sweep.name
    there = list_studies(Path(output))
    if name not in there:
        known = ", ".join(there) or "none"
        raise FileNotFoundError(f"no results of {name} in {output}; there are {known}")
    return _read_frame(_find_sweep(sweep) if isinstance(sweep, str) else sweep, Path(output) / name)


def _find_sweep(name: str) -> Sweep:
    from conf.describe import nearest
    from sweeps.engine.catalogue import discover
    from sweeps.engine.facts import names_of

    known = discover()
    for sweep in known:
        if names_of(sweep, [name]):
            return sweep
    names = [sweep.name for sweep in known]
    raise ValueError(f"no sweep {name!r}{nearest(name, names)}; there are {', '.join(names)}")


def _as_word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _read_frame(sweep: Sweep, folder: Path) -> pd.DataFrame:
    import pandas as pd

    from reports.answer.files import read_answer
    from sweeps.engine.trials import RESULT, key_of, read_trials
    from sweeps.sweep import trial_folder

    done = {key_of(t) for t in read_trials(folder, folder.name) if t.state.name == "COMPLETE"}
    levels = _levels_of(sweep, [cell for cell, _ in done])
    rows = []
    for cell, seed in done:
        path = folder / "trials" / trial_folder(cell, seed) / RESULT
        result = json.loads(path.read_text(encoding="utf-8"))
        row = {"cell": cell, "seed": seed, **levels.get(cell, {})}
        row |= {key.removeprefix("eval/"): value for key, value in result["metrics"].items()}
        rows.append(row | {"seconds": sum(result.get("seconds", {}).values())})
    order = {cell: number for number, cell in enumerate(levels)}
    rows.sort(key=lambda row: (order.get(row["cell"], len(order)), row["cell"], row["seed"]))
    frame = pd.DataFrame(rows, columns=None if rows else ["cell", "seed", *sweep.keys, "seconds"])
    frame.attrs = {"folder": str(folder), "answer": read_answer(folder)}
    return frame


def _levels_of(sweep: Sweep, cells: list[str]) -> dict[str, dict[str, Any]]:
    """Cell -> its level of each factor, in the order of the sweep; without cells that its levels
    do not name."""
    known = {cell.text: dict(cell.values) for cell in sweep.cells("train")}
    for text in sorted({*cells} - known.keys()):
        with contextlib.suppress(ValueError):  # Of settings that only a search tries
            named = sweep.with_named([text])
            known |= {cell.text: dict(cell.values) for cell in named.cells("train", "list", [text])}
    return known
