"""Trials on this machine: each slot, a slice of its devices, holds one trial at a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from conf.files import named_when_full
from lightning_modules.tracking.mlflow import describe_error
from sweeps.engine.slots import InlineSlot, Outcome, Slot

if TYPE_CHECKING:
    from sweeps.engine.executors.base import Report
    from sweeps.engine.plan import Job
    from sweeps.engine.trials import Key

__all__ = ["LocalExecutor"]


class LocalExecutor:
    """See `base.Executor`."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self.slots = list(slots)
        self.report: Report = lambda job, text, share: None
        self._held: dict[Key, Slot] = {}
        self._unable: dict[Key, str] = {}  # Why a trial did not begin

    @property
    def at_once(self) -> int:
        return len(self.slots)

    def resume(self, job: Job) -> bool:
        return False  # A trial dies with the process that started it

    def place(self, job: Job) -> str:
        held = list(self._held.values())
        self._held[job.key] = slot = next(slot for slot in self.slots if slot not in held)
        return slot.device

    def submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            slot = self._held[job.key]
            if isinstance(slot, InlineSlot):
                slot.on_progress = partial(self.report, job)
            try:
                with named_when_full(job.folder):
                    slot.start(job)
            except OSError as error:
                self._unable[job.key] = describe_error(error)

    def poll(self, job: Job) -> Outcome | None:
        outcome: Outcome | None
        if job.key in self._unable:
            outcome = Outcome(None, self._unable.pop(job.key))
        else:
            outcome = self._held[job.key].poll()
        if outcome is not None:
            del self._held[job.key]
        return outcome

    def progress(self, job: Job) -> tuple[str, float]:
        return self._held[job.key].progress()

    def stop(self, jobs: Sequence[Job]) -> None:
        held = [self._held.pop(job.key) for job in jobs if job.key in self._held]
        for slot in held:
            slot.ask_to_stop()
        for slot in held:
            slot.stop()

    def close(self) -> None:
        for slot in self.slots:
            slot.stop()
