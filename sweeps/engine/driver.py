"""Claims trials, runs them in slots, and writes down how each ended: in the queue, in MLflow and for the person who looks.

Everything happens in one thread, so that a signal or an error finds nothing half done that the next start could not put right.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lightning_modules.tracking.mlflow import describe_error
from lightning_modules.tracking.store import StoreUnavailable
from sweeps.engine.launch import Inline, Outcome, Slot
from sweeps.engine.plan import ResultError
from sweeps.engine.resolve import PlanError
from sweeps.engine.storage import StorageError

if TYPE_CHECKING:
    from sweeps.engine.display import View
    from sweeps.engine.plan import Job, Plan
    from sweeps.engine.study import Key

__all__ = ["Driver", "Halted", "guarded"]

PAUSE = 0.2  # seconds between two looks at the trials
REFRESH = 20.0  # seconds between two looks at the queue while a slot is idle
ALIVE = 5.0  # seconds between two signs of life to a server
HOPELESS = 3  # so many trials that fail alike, and none that does not, end a sweep


class Halted(Exception):
    """The sweep cannot go on, said in one line; what has finished is kept."""


class Driver:
    """Runs what waits in `plan` until nothing does. `failures` are the trials that failed for good in this process."""

    def __init__(self, plan: Plan, slots: Sequence[Slot], shown: View, finishing: Callable[[], bool] = lambda: False) -> None:
        """Once `finishing` is true no trial is begun any more."""
        self.plan, self.slots, self.shown, self.finishing = plan, list(slots), shown, finishing
        self.running: dict[int, Job] = {}  # number of the slot -> its trial
        self.failures: dict[Key, str] = {}
        self._tried: dict[Key, int] = {}
        self._reasons: list[str] = []  # of attempts that failed before any succeeded
        self._succeeded = False
        self._asked = -math.inf
        self._refreshed = time.monotonic()

    def run(self) -> None:
        """Returns when no trial is left to this process. Raises Halted, and lets signals through; no process is left behind."""
        try:
            while self._fill() or self.running:
                for number in list(self.running):
                    self._watch(number)
                self._say_alive()
                if self.running:
                    time.sleep(PAUSE)
        except BaseException:
            self._abandon()
            raise
        finally:
            for slot in self.slots:
                slot.close()

    def _fill(self) -> bool:
        """Begin trials in idle slots; True where one was begun."""
        began = False
        idle = [number for number in range(len(self.slots)) if number not in self.running]
        for number in idle:
            if self.finishing():
                break
            job = self._next()
            if job is None:
                break
            began = True
            self._start(number, job)
        return began

    def _next(self) -> Job | None:
        if self.running and time.monotonic() < self._asked + REFRESH:
            return None  # nothing waited when it was asked last, and nothing has ended since
        training = {self.plan.group(job.key) for job in self.running.values() if job.kind == "trained"}
        with guarded():
            job = self.plan.claim(training)
            if job is None and self.plan.adopt():  # another driver may have died, and left a trial behind
                job = self.plan.claim(training)
        if job is None:
            self._asked = time.monotonic()
        return job

    def _start(self, number: int, job: Job) -> None:
        self.running[number] = job
        slot = self.slots[number]
        self.shown.start(job, slot.device)
        if isinstance(slot, Inline):
            slot.told = lambda text, share: self._told(job, text, share)
        stored = self.plan.stored(job)
        if stored is not None:
            self._end(number, Outcome(stored))
            return
        try:
            slot.start(job)
        except OSError as error:
            self._end(number, Outcome(None, describe_error(error)))

    def _watch(self, number: int) -> None:
        slot, job = self.slots[number], self.running[number]
        outcome = slot.poll()
        if outcome is not None:
            self._end(number, outcome)
            return
        text, share = slot.progress()
        if text:
            self._told(job, text, share)

    def _say_alive(self) -> None:
        if time.monotonic() - self._refreshed > ALIVE:
            self._refreshed = time.monotonic()
            self.plan.study.refresh()  # false while the server is away: it is asked again

    def _told(self, job: Job, text: str, share: float) -> None:
        self.shown.progress(job, text, share)
        self._say_alive()
        with guarded():
            self.plan.told(job, text)

    def _end(self, number: int, outcome: Outcome) -> None:
        job = self.running[number]
        with guarded():
            if outcome.result is not None and outcome.result.get("pruned"):
                self.plan.pruned(job)
                self.shown.drop(job, f"{job.name}: pruned")
            elif outcome.result is None:
                self._failed(job, outcome.reason)
            else:
                try:
                    self._finished(job, outcome.result)
                except ResultError as error:
                    self._failed(job, describe_error(error))
        del self.running[number]
        self._asked = -math.inf
        self._check_hope()

    def _finished(self, job: Job, result: dict) -> None:
        value, seconds = self.plan.finish(job, result)
        self._succeeded = True
        self.failures.pop(job.key, None)
        self.shown.finish(job, f"{self.plan.sweep.headline} {value:.3f}", seconds)

    def _failed(self, job: Job, reason: str) -> None:
        if not self.plan.give_back(job, "FAILED", reason):
            self.shown.drop(job, f"{job.name} was taken over by another process")
            return
        self._tried[job.key] = self._tried.get(job.key, 0) + 1
        self._reasons.append(reason)
        tries = f"try {self._tried[job.key]} of {self.plan.config.retries + 1}"
        line = f"{job.name} failed ({tries}): {reason}; log: {job.folder / 'log.txt'}"
        if self._tried[job.key] <= self.plan.config.retries:
            self.plan.enqueue(job.key)
            self.shown.retry(job, line)
        else:
            self.failures[job.key] = reason
            self.plan.give_up(job)
            self.shown.drop(job, line)

    def _check_hope(self) -> None:
        alike = len(self._reasons) >= HOPELESS and len(set(self._reasons)) == 1
        if alike and not self._succeeded and not self.plan.done():
            raise Halted(f"the first {len(self._reasons)} attempts all failed with: {self._reasons[0]}; nothing else was tried")

    def _abandon(self) -> None:
        """Stop what runs; its trials go back into the queue, but those whose result is there: the next start counts them."""
        for number in self.running:
            self.slots[number].tell_to_stop()
        for number, job in list(self.running.items()):
            self.slots[number].stop()
            if not (job.folder / "result.json").exists():
                try:
                    self.plan.give_back(job, "KILLED", "stopped by a person or the system")
                except Exception as error:  # the next start finds that this process is gone
                    self.shown.say(f"{job.name}: could not be marked as stopped: {describe_error(error)}")
            del self.running[number]


@contextmanager
def guarded() -> Iterator[None]:
    """A full disk, a lost database or server ends the sweep in one line (Halted). What is not written down now is at the next start."""
    try:
        yield
    except (ResultError, PlanError):
        raise
    except (StorageError, StoreUnavailable) as error:
        raise Halted(f"{error}; what has finished is kept: put that right and run it again") from error
    except Exception as error:
        if not isinstance(error, OSError) and not type(error).__module__.startswith(("mlflow", "sqlalchemy", "optuna", "sqlite3")):
            raise
        said = describe_error(error).partition(" [SQL:")[0]
        raise Halted(f"the state of the sweep cannot be written: {said}; put that right and run it again") from error
