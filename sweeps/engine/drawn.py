"""What a sweep with ``evaluation.draw_only`` leaves: one list of all its images, and no report."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf.files import read_json
from conf.load import with_eval_overrides
from conf.seeds import resolve_seeds
from lightning_modules.training.progress import DRAWN

if TYPE_CHECKING:
    from conf import schema
    from sweeps.engine.plan import Plan
    from sweeps.engine.request import Request
    from sweeps.engine.trials import Key

__all__ = ["describe_drawing", "list_drawn", "manifest_path", "show_command"]

DRAW_ONLY = "evaluation.draw_only"


def show_command(request: Request, draw_only: bool = False, leave_out: Collection[str] = ()) -> str:
    """The command of a request, as typed into a shell, that only draws, or that measures; without
    its words for the keys ``leave_out``."""
    keys = {DRAW_ONLY, *leave_out}
    names = [(word, word.partition("=")[0]) for word in request.words]
    words = [word for word, key in names if not {key, key.partition(".")[0]} & keys]
    by_word = any(word.partition("=")[0] == DRAW_ONLY for word in request.words)
    if draw_only or (request.config.evaluation.draw_only and not by_word):
        words.append(f"{DRAW_ONLY}={str(draw_only).lower()}")
    return f"python -m {shlex.join([f'sweeps.{request.sweep.name}', *words])}"


def manifest_path(config: schema.Sweep, name: str) -> Path:
    """Where the images of the study ``name`` are listed: beside them."""
    return Path(config.output) / "images" / f"{name}.jsonl"


def describe_drawing(config: schema.Sweep, name: str) -> str:
    """What such a command does, in a line."""
    return (
        "evaluation.draw_only=true: adapters are trained, images drawn and listed in "
        f"{manifest_path(config, name)}; nothing is measured, and there is no report"
    )


def list_drawn(plan: Plan) -> list[str]:
    """Writes the list of the images of all trials that are drawn, or measured already. Returns
    lines on it, and on what to do next."""
    from lightning_modules.evaluation.manifest import describe_drawn, write_manifest

    path = manifest_path(plan.request.config, plan.name)
    done = plan.done()
    rows = [row for key in plan.planned for row in _rows(plan, key, key in done)]
    count = write_manifest(path, rows)
    file = plan.request.config.evaluation.detector
    needs = f", with {file} in its place" if file.endswith(".jsonl") else ""
    return [*describe_drawn(count, path), f"to measure them{needs}: {show_command(plan.request)}"]


def _rows(plan: Plan, key: Key, measured: bool) -> Iterator[dict[str, Any]]:
    from lightning_modules.evaluation.manifest import read_manifest, rows_of_scores

    folder, images = plan.trial_folder(key), Path(plan.request.config.output) / "images"
    scores = folder / "scores.parquet"
    drawn = (read_json(folder / DRAWN) or {}).get("drawn", {})
    if not measured and drawn and Path(drawn["manifest"]).is_file():
        rows = read_manifest(Path(drawn["manifest"]))
    elif scores.is_file():
        import pandas as pd

        late = with_eval_overrides(plan.request.run(key))
        rows = rows_of_scores(pd.read_parquet(scores), resolve_seeds(late).sampling)
    else:  # Failed, or made on another machine
        return
    yield from (row for row in rows if (images / row["image"]).is_file())
