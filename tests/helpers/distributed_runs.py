"""Several runs in one process, or in each process that torchrun starts, with a note of what each of
them did.

    torchrun --standalone --nproc-per-node=2 tests/distributed_runs.py PLAN.json

The plan lists jobs (`Job`); of job ``folder`` each process leaves ``folder``/seen-<rank>.json
(`Seen`).
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Job:
    """A run of ``folder``/run.yaml. ``tracking`` are the arguments of `Tracking`. Before optimiser
    step ``stop`` the processes ``failing`` (all: None) meet with an error, which only a job of all
    processes survives."""

    folder: str
    tracking: dict[str, Any] | None = None
    stop: int | None = None
    failing: int | None = None


@dataclass
class Seen:
    """Logged metrics of every training step, the images drawn by this process, what `train.run`
    returned or raised."""

    steps: list[dict[str, float]] = field(default_factory=list)
    images: int = 0
    result: dict[str, Any] | None = None
    error: str = ""


def execute(jobs: list[Job], rank: int = 0) -> list[Seen]:
    """Runs the jobs one after another."""
    from PIL import Image

    from conf import load as conf
    from lightning_modules.evaluation import gate_diagnostics as maps
    from lightning_modules.evaluation.images import ImageStore
    from lightning_modules.tracking.mlflow import Tracking
    from lightning_modules.training import run as train
    from lightning_modules.training.callbacks import ProgressLines

    now: dict[str, Any] = {}
    save, end = ImageStore.save, ProgressLines.on_train_batch_end

    def saved(self: ImageStore, *args: Any) -> None:
        now["seen"].images += 1
        save(self, *args)

    def started(self: ProgressLines, trainer: Any, *args: Any) -> None:
        job = now["job"]
        if trainer.global_step == job.stop and job.failing in (None, rank):
            raise RuntimeError("power cut")

    def ended(self: ProgressLines, trainer: Any, *args: Any) -> None:
        now["seen"].steps.append(
            {key: float(value) for key, value in trainer.callback_metrics.items()}
        )
        end(self, trainer, *args)

    before = [(ImageStore, "save", save), (ProgressLines, "on_train_batch_end", end)]
    before += [(maps, "draw_maps", maps.draw_maps)]
    ImageStore.save, ProgressLines.on_train_batch_end, ProgressLines.on_train_batch_start = (
        saved,
        ended,
        started,
    )  # type: ignore
    maps.draw_maps = lambda *args: Image.new("L", (1, 1))  # type: ignore
    found = []
    try:
        for job in jobs:
            folder = Path(job.folder)
            now |= {"job": job, "seen": Seen()}
            found.append(now["seen"])
            tracking = Tracking(**job.tracking) if job.tracking else None
            try:
                found[-1].result = train.run(conf.read_run(folder / "run.yaml"), folder, tracking)
            except RuntimeError as error:
                if job.failing is not None or "power cut" not in str(error):
                    raise
                found[-1].error = str(error)
            (folder / f"seen-{rank}.json").write_text(json.dumps(asdict(found[-1])))
    finally:
        del ProgressLines.on_train_batch_start
        for owner, name, value in before:
            setattr(owner, name, value)
    return found


if __name__ == "__main__":
    import os
    import warnings

    warnings.filterwarnings("ignore")
    execute(
        [Job(**job) for job in json.loads(Path(sys.argv[1]).read_text())], int(os.environ["RANK"])
    )
