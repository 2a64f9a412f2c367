"""How much longer a sweep takes beside other busy processes: whole commands, each in an empty
output, alone and beside one, four, … processes that multiply matrices on one thread each.

    python tests/benchmarks/beside.py
    python tests/benchmarks/beside.py --busy 0 1 4 -- evaluation.prompts=40

"Fair" is what a machine that shares out its cores evenly among all threads that want one would
take, if the sweep alone keeps all cores busy.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from sweep import command

BUSY = "import torch; torch.set_num_threads(1); a = torch.rand(256, 256)\nwhile True: a @ a"
SHORT = ["seeds=1", "levels=[0.5,0.7]", "evaluation.prompts=12"]


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """So many of them, until the context ends."""
    started = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 4])
    parser.add_argument("words", nargs="*", help="settings of the sweep, key=value")
    chosen = parser.parse_args()
    cores, alone = os.cpu_count() or 1, 0.0
    for busy in chosen.busy:
        with busy_processes(busy), tempfile.TemporaryDirectory() as folder:
            words = [*SHORT, f"output={folder}/runs", *chosen.words]
            seconds = command("-m", "sweeps.threshold", *words)
        alone = alone or seconds
        fair = max((cores + busy) / cores, 1.0)
        print(
            f"beside {busy}: {seconds:.0f} s, {seconds / alone:.2f} of alone, fair {fair:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
