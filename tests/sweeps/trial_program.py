"""What the tests' drivers start in the place of `sweeps.engine.worker`: its own code around a trial
that takes no time.

`behaviour.json` in the output folder says what goes wrong, by trial: {"0.4-0": "kill"} for
threshold 0.4 and seed 0, in its first attempt only. `seconds` is what every trial takes at least,
and `together` how many attempts must have begun before any goes on; all wait while there is a file
`hold`. `ran.txt` gets a line for each attempt and process: trial, process id, visible devices.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2])]

from conf.files import write_atomically  # noqa: E402
from sweeps.engine import worker  # noqa: E402


def run(config: Any, folder: Path, tracking: Any, progress: Any) -> dict[str, Any]:
    if os.environ.get("RANK", "0") != "0":
        return _act(config, progress)
    from lightning_modules.tracking.mlflow import SeedRun

    with SeedRun(tracking) as seed_run:
        metrics = _act(config, progress)
        result = {"metrics": metrics, "seconds": {"train": 1.5, "evaluate": 0.5}}
        for step in range(1, 4):
            seed_run.log_metrics({"train/loss": 1.0 / step}, step)
        seed_run.log_metrics(metrics)
        write_atomically(folder / "result.json", json.dumps(result))
        seed_run.log_artifacts(folder)
    return result


def _act(config: Any, progress: Any) -> dict[str, float]:
    """Does what `behaviour.json` says, and returns the metrics."""
    name = "untouched" if config.method.name == "untouched" else str(config.method.gate.threshold)
    trial, output, rank = (
        f"{name}-{config.seed}",
        Path(config.output),
        int(os.environ.get("RANK", "0")),
    )
    with (output / "ran.txt").open("a") as ran:
        ran.write(f"{trial} {os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES', '')} {rank}\n")
    stored = output / "behaviour.json"
    behaviour = json.loads(stored.read_text()) if stored.exists() else {}
    action = behaviour.get(trial, "")
    actor = 1 if action == "kill the second" else 0
    marker = output / f".once-{trial}"
    if marker.exists():
        action = ""
    elif rank == actor:
        marker.touch()
    progress("training: step 1/2, loss 0.5000, 0.10 s a step, 1 s left", 0.3)
    time.sleep(behaviour.get("seconds", 0.0))
    while (output / "hold").exists() or len(
        (output / "ran.txt").read_text().splitlines()
    ) < behaviour.get("together", 0):
        time.sleep(0.02)
    if action == "kill" or (action == "kill the second" and rank == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "hang" or (action == "kill the second" and rank == 0):
        time.sleep(600)
    if action == "preempt":
        os.kill(os.getpid(), signal.SIGTERM)
    if action == "memory":
        raise MemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
    if action == "lost disk":
        raise OSError(5, "Input/output error")
    if action == "full disk":
        raise OSError(28, "No space left on device")
    success = 0.2 if name == "untouched" else config.method.gate.threshold
    return {
        "eval/success": math.nan if action == "nan" else success + 0.01 * config.seed**2,
        "eval/fid": 30.0 - config.seed,
    }


if __name__ == "__main__":
    sys.exit(worker.main(sys.argv[1:], run, str(Path(__file__).resolve())))
