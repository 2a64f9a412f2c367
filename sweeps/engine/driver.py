"""Claims trials, has an executor run them, and records how each ended: in the study, in MLflow and
for the person who looks.

Everything happens in one thread, so that a signal or an error finds nothing half done that the next
start could not put right.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from conf.files import DiskFull, named_when_full
from lightning_modules.tracking.mlflow import describe_error
from lightning_modules.tracking.store import StoreUnavailable
from lightning_modules.training.progress import format_duration
from sweeps.engine.bookkeeping import (
    end_drawn,
    finish_trial,
    read_outcome,
    return_trial,
    update_cell,
)
from sweeps.engine.errors import NoRoom, PlanError, ResultError, StorageError, SweepAborted
from sweeps.engine.failures import MOST_LOSSES, comes_again, passes, pause_after
from sweeps.engine.prompts import queue_extensions
from sweeps.engine.slots import Outcome

if TYPE_CHECKING:
    from pathlib import Path

    from sweeps.engine.display import LineDisplay
    from sweeps.engine.executors.base import Executor
    from sweeps.engine.plan import Job, Plan
    from sweeps.engine.trials import Key

__all__ = ["Driver", "abort_on_lost_storage"]

PAUSE = 0.2  # Seconds between two looks at the trials
MAX_IDENTICAL_FAILURES = 3  # So many failures alike, and no success, end a sweep


class Driver:
    """Runs what waits in ``plan`` until nothing does. ``failures`` are the trials that failed for
    good in this process."""

    def __init__(
        self,
        plan: Plan,
        executor: Executor,
        display: LineDisplay,
        finishing: Callable[[], bool] = lambda: False,
    ) -> None:
        """Once ``finishing`` is true no further trial is begun."""
        self.plan, self.executor, self.display = plan, executor, display
        self.finishing = finishing
        self.running: dict[Key, Job] = {}
        self.failures: dict[Key, str] = {}
        self._tries: dict[Key, int] = {}
        self._reasons: list[str] = []  # Of attempts that failed before any succeeded
        self._succeeded = False
        self._drawn: set[Key] = set()  # What was drawn and is not to be measured here
        self._full = ""  # What a trial said of a full disk
        self._nothing_waits = False
        self._waits: dict[Key, int] = {}  # How often a trial met trouble that passes
        self._losses: dict[Key, int] = {}  # How often it was preempted or lost its node
        self._later: list[tuple[float, Job]] = []  # When a trial begins again
        executor.report = self._report
        for job in plan.resumed:
            self.running[job.key] = job
            display.start(job, executor.place(job))

    def run(self) -> None:
        """Returns when no trial is left to this process. Raises SweepAborted, NoRoom after a trial
        found the disk full and those beside it have ended, and lets signals through; no process is
        left behind."""
        try:
            while self._begin_trials() or self.running or self._later:
                for job in list(self.running.values()):
                    self._check(job)
                while self.executor.notes:
                    self.display.line(self.executor.notes.pop(0))
                if self.finishing():
                    self._later.clear()  # The next start queues them
                if self.running or self._later:
                    time.sleep(PAUSE)
        except BaseException:
            self._stop_all()
            raise
        finally:
            self.executor.close()
        if self._full:
            raise NoRoom(f"{self._full}; what has finished is kept: run it again then")

    def _begin_trials(self) -> bool:
        """Begin trials where there is room; True if one was begun."""
        new: list[Job] = []
        began = False
        for due in [entry for entry in self._later if entry[0] <= time.monotonic()]:
            self._later.remove(due)
            self._enqueue(due[1])
            self._nothing_waits = False
        while len(self.running) < self.executor.at_once and not self.finishing():
            if (job := self._next_job()) is None:
                break
            began = True
            self.running[job.key] = job
            if (earlier := read_outcome(job)) is not None:
                self.display.start(job)
                self._end(job, Outcome(earlier))
                continue
            self.display.start(job, self.executor.place(job))
            new.append(job)
        if new:
            self.executor.submit(new)
        return began

    def _next_job(self) -> Job | None:
        if self._full or self._nothing_waits:
            return None  # Nor has anything ended since it was asked last
        request = self.plan.request
        trained = [job.key for job in self.running.values() if job.kind == "trained"]
        training = {request.adapter(key) for key in trained}
        with abort_on_lost_storage(self.plan.folder):
            job = self.plan.claim(training)
            if job is None and queue_extensions(self.plan, self.failures.keys() | self._drawn):
                job = self.plan.claim(training)
        self._nothing_waits = job is None
        return job

    def _check(self, job: Job) -> None:
        outcome = self.executor.poll(job)
        if outcome is not None:
            self._end(job, outcome)
            return
        text, share = self.executor.progress(job)
        if text:
            self._report(job, text, share)

    def _report(self, job: Job, text: str, share: float) -> None:
        self.display.progress(job, text, share)
        with abort_on_lost_storage(self.plan.folder):
            self.plan.on_progress(job, text)

    def _end(self, job: Job, outcome: Outcome) -> None:
        result = outcome.result
        with abort_on_lost_storage(self.plan.folder):
            if outcome.preempted:
                self._give_out_again(job, outcome.reason)
            elif result is None:
                self._fail(job, outcome.reason)
            elif drawn := result.get("drawn"):
                text = end_drawn(self.plan, job, drawn)
                self._succeeded = True
                self._drawn.add(job.key)
                self.failures.pop(job.key, None)
                self.display.finish(job, text, sum(result.get("seconds", {}).values()))
            elif result.get("pruned"):
                return_trial(self.plan, job, "KILLED", "pruned")
                self.plan.on_pruned(job)
                self.display.drop(job, f"{job.name}: pruned")
            else:
                try:
                    value, seconds = finish_trial(self.plan, job, result)
                except ResultError as error:
                    self._fail(job, describe_error(error))
                else:
                    self._succeeded = True
                    self.failures.pop(job.key, None)
                    headline = self.plan.request.sweep.headline
                    self.display.finish(job, f"{headline} {value:.3f}", seconds)
        del self.running[job.key]
        self._nothing_waits = False
        identical = len(self._reasons) >= MAX_IDENTICAL_FAILURES and len(set(self._reasons)) == 1
        if identical and not self._succeeded and not self.plan.done():
            raise SweepAborted(
                f"the first {len(self._reasons)} attempts all failed with: {self._reasons[0]}; "
                "nothing else was tried"
            )

    def _fail(self, job: Job, reason: str) -> None:
        if self._wait_for(job, reason):
            return
        if reason.startswith(DiskFull.__name__):
            # Of no fault of its own: it waits for room, as all others do
            self._full = reason.partition(": ")[2]
            return_trial(self.plan, job, "KILLED", reason)
            self.display.drop(job, f"{job.name} stopped: {self._full}; no other is begun")
            return
        final = comes_again(reason)
        return_trial(self.plan, job, "FAILED", reason, final)
        tries = self._tries[job.key] = self._tries.get(job.key, 0) + 1
        self._reasons.append(reason)
        retries = self.plan.request.config.retries
        how = f"try {tries} of {retries + 1}"
        if final and retries:
            how = "not tried again: it would fail in the same way"
        line = f"{job.name} failed ({how}): {reason}; log: {job.folder / 'log.txt'}"
        if tries <= retries and not final:
            self._enqueue(job)
            self.display.retry(job, line)
        else:
            self.failures[job.key] = reason
            update_cell(self.plan, job.cell.text)
            self.display.drop(job, line)

    def _wait_for(self, job: Job, reason: str) -> bool:
        """Trouble that passes is no try: its trial begins again after a while. False for other
        trouble, and for what has not passed after long."""
        if not passes(reason):
            return False
        count = self._waits[job.key] = self._waits.get(job.key, 0) + 1
        if (pause := pause_after(count)) is None:
            return False
        return_trial(self.plan, job, "KILLED", reason)
        self._later.append((time.monotonic() + pause, job))
        when = format_duration(pause)
        self.display.retry(job, f"{job.name} ended: {reason}; it begins again in {when}")
        return True

    def _give_out_again(self, job: Job, reason: str) -> None:
        """What was preempted, or lost its node, has not failed: it is no try, and goes on from its
        checkpoint."""
        count = self._losses[job.key] = self._losses.get(job.key, 0) + 1
        if count > MOST_LOSSES:
            self._fail(job, f"{reason}, for the {count}th time")
            return
        return_trial(self.plan, job, "KILLED", reason)
        self._enqueue(job)
        self.display.retry(job, f"{job.name} {reason}; it goes on from its last checkpoint")

    def _enqueue(self, job: Job) -> None:
        again = {} if job.extends is None else {"extends": job.extends}
        self.plan.enqueue(job.key, **again)

    def _stop_all(self) -> None:
        """Stop what runs; its trials go back into the queue, except those whose result is there:
        the next start counts them."""
        self.executor.stop(list(self.running.values()))
        for job in list(self.running.values()):
            if read_outcome(job) is None:
                try:
                    return_trial(self.plan, job, "KILLED", "stopped by a person or the system")
                except Exception as error:  # The next start finds that this process is gone
                    reason = describe_error(error)
                    self.display.line(f"{job.name}: could not be marked as stopped: {reason}")
            del self.running[job.key]


@contextmanager
def abort_on_lost_storage(folder: Path) -> Iterator[None]:
    """A full disk, a lost database or server ends the sweep in one line (SweepAborted). What is not
    written down now is written at the next start. ``folder``: where that is."""
    try:
        with named_when_full(folder):
            yield
    except (ResultError, PlanError):
        raise
    except DiskFull as error:
        raise NoRoom(f"{error}; what has finished is kept: run it again then") from error
    except (StorageError, StoreUnavailable) as error:
        raise SweepAborted(
            f"{error}; what has finished is kept: put that right and run it again"
        ) from error
    except Exception as error:
        libraries = ("mlflow", "sqlalchemy", "optuna", "sqlite3")
        if not isinstance(error, OSError) and not type(error).__module__.startswith(libraries):
            raise
        reason = describe_error(error).partition(" [SQL:")[0]
        raise SweepAborted(
            f"the state of the sweep cannot be written: {reason}; put that right and run it again"
        ) from error
