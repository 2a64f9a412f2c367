"""What can go wrong with a sweep; each message is one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from sweeps.engine.locks import Owner

__all__ = [
    "Declined",
    "LaunchError",
    "NoRoom",
    "PlanError",
    "ResultError",
    "StorageError",
    "SweepAborted",
    "SweepBusy",
]


class PlanError(ValueError):
    """A sweep that cannot be planned."""


class Declined(PlanError):
    """A sweep that the embedded world has nothing to show of."""


class LaunchError(ValueError):
    """Devices, workers and launcher that do not go together."""


class StorageError(ValueError):
    """A study that cannot be used."""


class ResultError(ValueError):
    """A result that does not say what the sweep asks."""


class SweepAborted(Exception):
    """The sweep cannot go on; what has finished is kept."""


class SweepBusy(Exception):
    """Another process runs the sweep in ``folder``; ``owner`` says which."""

    def __init__(self, folder: Path, owner: Owner) -> None:
        super().__init__(f"{folder} is run by {owner.describe()}")
        self.folder, self.owner = folder, owner


class NoRoom(SweepAborted):
    """The disk is full: nothing else below the same output could go on, either."""
