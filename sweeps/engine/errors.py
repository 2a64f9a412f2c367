"""What can go wrong with a sweep; each message is one line."""

from __future__ import annotations

__all__ = [
    "Declined",
    "LaunchError",
    "NoRoom",
    "PlanError",
    "ResultError",
    "StorageError",
    "SweepAborted",
]


class PlanError(ValueError):
    """A sweep that cannot be planned."""


class Declined(PlanError):
    """A sweep that the embedded world has nothing to show of."""


class LaunchError(ValueError):
    """Devices, workers and launcher that do not go together."""


class StorageError(ValueError):
    """A queue that cannot be used."""


class ResultError(ValueError):
    """A result that does not say what the sweep asks."""


class SweepAborted(Exception):
    """The sweep cannot go on; what has finished is kept."""


class NoRoom(SweepAborted):
    """The disk is full: nothing else below the same output could go on, either."""
