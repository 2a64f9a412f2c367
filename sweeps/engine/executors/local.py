"""Trials on this machine: each slot, a slice of its devices, holds one trial at a time."""

from __future__ import annotations

from collections import defaultdict
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


class DeviceHealth:
    """Which devices fail trials that pass on others: a device that did so twice in a row is left
    out."""

    def __init__(self) -> None:
        self.left_out: set[str] = set()
        self.failed: defaultdict[Key, set[str]] = defaultdict(set)  # Trial -> where it failed
        self._row: defaultdict[str, list[Key]] = defaultdict(list)  # Device -> its last failures
        self._blamed: defaultdict[str, set[Key]] = defaultdict(set)  # Those that passed elsewhere

    def note(self, job: Job, device: str, passed: bool) -> list[str]:
        """A trial has ended on ``device``. Returns lines on devices that are left out by it."""
        if not passed:
            self.failed[job.key].add(device)
            self._row[device].append(job.key)
            return []
        self._row[device].clear()
        lines = []
        for other in self.failed.pop(job.key, set()) - {device}:
            self._blamed[other].add(job.key)
            last = set(self._row[other][-2:])
            if len(last) == 2 and last <= self._blamed[other] and other not in self.left_out:
                self.left_out.add(other)
                lines.append(f"left out: {other}, where two trials failed that passed elsewhere")
        return lines


class LocalExecutor:
    """See `base.Executor`."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self.slots = list(slots)
        self.notes: list[str] = []
        self.report: Report = lambda job, text, share: None
        self._held: dict[Key, Slot] = {}
        self._health = DeviceHealth()
        self._unable: dict[Key, str] = {}  # Why a trial did not begin

    @property
    def at_once(self) -> int:
        return len([slot for slot in self.slots if slot.device not in self._health.left_out])

    def resume(self, job: Job) -> bool:
        return False  # A trial dies with the process that started it

    def place(self, job: Job) -> str:
        held, out = list(self._held.values()), self._health.left_out
        free = [slot for slot in self.slots if slot not in held and slot.device not in out]
        # Where it has failed before comes last
        slot = min(free, key=lambda slot: slot.device in self._health.failed[job.key])
        self._held[job.key] = slot
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
            slot = self._held.pop(job.key)
            if not outcome.preempted and slot.device.startswith("gpu") and len(self.slots) > 1:
                self.notes += self._health.note(job, slot.device, outcome.result is not None)
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
