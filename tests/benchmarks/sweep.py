"""How long a sweep takes with one worker, with several, and as its trials alone: whole commands in
turn, each in an output of its own.

    python tests/benchmarks/sweep.py
    python tests/benchmarks/sweep.py --rounds 2 --workers 1 2 4 -- trainer.accelerator=gpu

"apart" is what a script without a sweep does: `python -m lightning_modules.train run.yaml`, one
trial after another, each with its own imports and backbone, all in one output (images and latents
are made once); MLflow, the queue and the report are not in it.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from omegaconf import OmegaConf

ROOT = Path(__file__).parents[2]
# With the baseline level and the untouched backbone: 4 cells
TWELVE = ["levels=[0.4,0.6]", "seeds=3"]


def command(*words: str) -> float:
    """Seconds of one command of Python; ends the benchmark where it fails."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stdout}{done.stderr}")
    return time.monotonic() - began


def of_sweep(workers: int, words: list[str], trials: Path) -> float:
    """Of one whole sweep, from an empty folder to the report; what its trials were goes into the
    folder ``trials``."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "runs"
        seconds = command(
            "-m", "sweeps.threshold", *TWELVE, f"workers={workers}", f"output={output}", *words
        )
        for number, file in enumerate(sorted((output / "threshold" / "trials").glob("*/run.yaml"))):
            shutil.copy(file, trials / f"{number}.yaml")
    return seconds


def apart(trials: Path) -> float:
    """Of the same trials as processes of their own, one after another, from an empty folder on."""
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for file in sorted(trials.glob("*.yaml")):
            config = OmegaConf.load(file)
            config.output = f"{folder}/runs"
            files.append(Path(folder) / file.stem / "run.yaml")
            files[-1].parent.mkdir()
            OmegaConf.save(config, files[-1])
        return sum(command("-m", "lightning_modules.training.run", str(file)) for file in files)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--workers",
        type=int,
        nargs="+",
        default=[1, 2],
        help=("the first is what the others are compared with"),
    )
    parser.add_argument("--rounds", type=int, default=1, help="how often each is measured, in turn")
    parser.add_argument("words", nargs="*", help="further settings of the sweep, key=value")
    chosen = parser.parse_args()
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as trials:
        for _ in range(chosen.rounds):
            for workers in chosen.workers:
                found.setdefault(f"workers={workers}", []).append(
                    of_sweep(workers, chosen.words, Path(trials))
                )
                print(f"workers={workers}: {found[f'workers={workers}'][-1]:.1f} s", flush=True)
            found.setdefault("apart", []).append(apart(Path(trials)))
            print(f"apart: {found['apart'][-1]:.1f} s", flush=True)
    base = statistics.median(found[f"workers={chosen.workers[0]}"])
    for way, taken in found.items():
        print(
            f"{way}: median {statistics.median(taken):.1f} s, "
            f"{statistics.median(taken) / base:.2f} of workers={chosen.workers[0]}"
        )


if __name__ == "__main__":
    main()
