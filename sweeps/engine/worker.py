"""Trials in processes of their own: what happens to one of them happens to no other.

    python -m sweeps.engine.worker                      # trials from standard input, as JSON lines
    python -m sweeps.engine.worker run.yaml             # one trial, or one rank under torchrun
    python -m sweeps.engine.worker torchrun 2 run.yaml  # one trial on two devices
    python -m sweeps.engine.worker exec COMMAND …       # COMMAND, which dies with its parent

To train by hand: ``python -m lightning_modules.train run.yaml``. A trial's folder tells how it
goes: ``progress.json`` while it runs, then ``result.json``, or ``failed.json`` with the reason,
whose traceback is in ``log.txt``, or ``preempted.json`` after SIGTERM or SIGUSR1 (exit status 75).
A worker dies with the process that started it, however that ends, so that none is left holding a
device.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from conf import load as conf
from conf.files import named_when_full, write_atomically
from conf.pipes import ends_with_reader
from conf.schema import Run
from conf.threads import wait_passively
from lightning_modules.tracking.mlflow import Tracking, describe_error
from lightning_modules.training.preemption import PREEMPTED, Preempted
from lightning_modules.training.progress import FAILED, PROGRESS

__all__ = ["PARENT", "TRACKING", "ProgressFile", "main", "run_trial"]

TRACKING = "TRIAL_TRACKING"  # Environment variable: where the trial's MLflow run goes, as JSON
PARENT = "TRIAL_PARENT"  # Environment variable: process id that must still be the parent
EVERY = 0.5  # Seconds between two writings of the progress
PR_SET_PDEATHSIG = 1  # Linux: prctl's number

Report = Callable[[str, float], None]
Trainer = Callable[[Run, Path, Tracking | None, Report], dict[str, Any]]


class ProgressFile:
    """Writes what a trial reports to ``folder``/progress.json, a whole file each time: {"text",
    "share"}."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / PROGRESS
        self.phase, self.written = "", 0.0

    def __call__(self, text: str, share: float) -> None:
        phase, now = text.partition(":")[0], time.monotonic()
        if phase == self.phase and now - self.written < EVERY and share < 1:
            return
        self.phase, self.written = phase, now
        write_atomically(self.path, json.dumps({"text": text, "share": share}))


def run_trial(path: Path, tracking: Tracking | None, train: Trainer) -> str | None:
    """Runs the trial of ``path`` (run.yaml). Returns None with its result.json written, or why it
    failed, which is written down as well. Lets signals through, `Preempted` among them."""
    folder, first = path.parent, is_first_rank()
    report: Report = ProgressFile(folder) if first else lambda text, share: None
    try:
        with named_when_full(folder):
            train(conf.read_run(path), folder, tracking if first else None, report)
    except Preempted as error:
        # What ends since another process failed has that one's reason
        if not (folder / FAILED).exists():
            write_atomically(folder / PREEMPTED, json.dumps({"reason": str(error)}))
        raise
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        with suppress(OSError):  # A disk may be full
            with (folder / "log.txt").open("a", encoding="utf-8") as log:
                log.write("".join(traceback.format_exception(error)))
            # The first of several ranks to fail has the reason, the others only miss it
            if not (folder / FAILED).exists():
                write_atomically(folder / FAILED, json.dumps({"reason": describe_error(error)}))
        if not isinstance(error, Exception):
            raise
        return describe_error(error)
    return None


def is_first_rank() -> bool:
    """Whether this is the first, or the only, process of a trial; other launchers' ranks do not
    count."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("RANK", "0") == "0"


def serve(train: Trainer) -> None:
    """One trial after another: each line of standard input is {"run": path, "tracking": {…} or
    null}, each answer {"reason": null}, or why the trial failed. A signal ends it."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    for line in sys.stdin:
        request = json.loads(line)
        path = Path(request["run"])
        path.parent.mkdir(parents=True, exist_ok=True)
        with (path.parent / "log.txt").open("ab") as log:
            # What libraries print, and what a crash says, goes to the trial's log
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        reason = run_trial(path, _parse_tracking(request["tracking"]), train)
        gc.collect()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        answers.write(json.dumps({"reason": reason}) + "\n")
        answers.flush()


def die_with_parent() -> None:
    """From here on this process is killed when its parent ends, in any way."""
    # The first process of a machine takes over orphans
    parent = int(os.environ.pop(PARENT, 0)) or max(os.getppid(), 2)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # It was quicker
        os.kill(os.getpid(), signal.SIGKILL)


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGKILL)


def _parse_tracking(content: dict[str, Any] | None) -> Tracking | None:
    if content is None:
        return None
    return Tracking(**content)


@ends_with_reader
def main(
    argv: list[str], train: Trainer | None = None, program: str = "sweeps.engine.worker"
) -> int:
    """``train`` replaces ``lightning_modules.training.run.run``, ``program`` is the module or file
    that ranks are started from."""
    if {"-h", "--help"} & set(argv):
        print(__doc__)
        return 0
    wait_passively()
    die_with_parent()
    # A person's Ctrl-C is for the driver, which decides what it means
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if argv and argv[0] == "exec":
        os.execvp(argv[1], argv[1:])
    if argv and argv[0] == "torchrun":
        from torch.distributed.run import main as torchrun

        start = [program] if program.endswith(".py") else ["-m", program]
        # torchrun hands these on to the ranks
        os.environ.setdefault("PET_SIGNALS_TO_HANDLE", "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1")
        os.environ[PARENT] = str(os.getpid())  # For ranks that begin when this process has ended
        # Else the environment says where the ranks of several nodes meet
        alone = [] if "PET_NNODES" in os.environ else ["--standalone"]
        torchrun([*alone, f"--nproc-per-node={argv[1]}", *start, argv[2]])
        return 0
    if train is None:
        from lightning_modules.training import run as training

        train = training.run
    if not argv:
        serve(train)
        return 0
    stored = os.environ.get(TRACKING)
    tracking = _parse_tracking(json.loads(stored) if stored else None)
    return 1 if run_trial(Path(argv[0]), tracking, train) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
