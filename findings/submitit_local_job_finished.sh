#!/usr/bin/env bash
# submitit 1.5.4: a job of the local executor that was killed or left by sys.exit(3) is FINISHED, as
# one that returned its value.
#
# On SLURM, state tells these apart (FAILED, OUT_OF_MEMORY ...), and code that waits for jobs reads it.
# The local executor, by which such code is tried out, knows RUNNING, FINISHED and INTERRUPTED (what
# cancel() stopped); the exit status of the process plays no part. Only result() or exception() tells:
# of a job without a result it first waits some seconds (for a slow file system), then gives
# UncompletedJobError.
#
# Expected beforehand: FAILED for the two of them, as INTERRUPTED for the cancelled one.
# Seen: FINISHED, done() True, exception() an UncompletedJobError "(state: FINISHED)".
# Cure: decide by exception() is None, never by state or done().
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q submitit==1.5.4
"$folder/venv/bin/python" - "$folder/jobs" <<'PYTHON'
import os
import signal
import sys
import time

import submitit

executor = submitit.AutoExecutor(sys.argv[1], cluster="local")
executor.update_parameters(timeout_min=2)


def returned():
    return 7


def left():
    sys.exit(3)


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def waiting():
    time.sleep(100)


jobs = {job.__name__: executor.submit(job) for job in (returned, left, killed, waiting)}
time.sleep(5)
assert jobs["waiting"].state == "RUNNING"
jobs["waiting"].cancel()
for name, job in jobs.items():
    for _ in range(300):
        if job.done():
            break
        time.sleep(0.1)
    error = job.exception()
    print(name, job.state, job.done(), type(error).__name__)
    assert job.done() and job.state == ("INTERRUPTED" if name == "waiting" else "FINISHED")
    assert (error is None) == (name == "returned")
print("as stated")
PYTHON
