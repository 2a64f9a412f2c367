"""How long a sweep takes with one worker and with several: whole commands, side by side, each in an output of its own.

    python tests/benchmarks/sweep.py                   # 12 trials of the embedded world, workers 1 and 2, in turn
    python tests/benchmarks/sweep.py --rounds 2 --workers 1 2 4 -- trainer.accelerator=gpu
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
TWELVE = ["levels=[0.4,0.6]", "seeds=3"]  # with the baseline level and the untouched backbone: 4 cells


def seconds(workers: int, words: list[str]) -> float:
    """Of one whole command, from an empty folder to the report."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "sweeps.threshold", *TWELVE, f"workers={workers}", f"output={folder}/runs", *words]
        began = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
        return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="the first is what the others are compared with")
    parser.add_argument("--rounds", type=int, default=1, help="how often each is measured, in turn")
    parser.add_argument("words", nargs="*", help="further settings of the sweep, key=value")
    chosen = parser.parse_args()
    found: dict[int, list[float]] = {workers: [] for workers in chosen.workers}
    for _ in range(chosen.rounds):
        for workers in chosen.workers:
            found[workers].append(seconds(workers, chosen.words))
            print(f"workers={workers}: {found[workers][-1]:.1f} s", flush=True)
    base = statistics.median(found[chosen.workers[0]])
    for workers, taken in found.items():
        ratio = statistics.median(taken) / base
        print(f"workers={workers}: median {statistics.median(taken):.1f} s, {ratio:.2f} of workers={chosen.workers[0]}")


if __name__ == "__main__":
    main()
