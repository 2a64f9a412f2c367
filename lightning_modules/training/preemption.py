"""What SIGTERM and SIGUSR1 (SLURM's warning) mean for a run: a training ends after the step that it
is in, with a checkpoint, everything else at once; the run is then *preempted*, which is no failure.

A preempted run raises `Preempted`. Its process exits with ``STATUS``, and a trial's folder holds
``PREEMPTED`` and no result: the same command goes on from the checkpoint. Imports nothing heavy.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = [
    "PREEMPTED",
    "SIGNALS",
    "STATUS",
    "Notice",
    "Preempted",
    "noticing_signals",
    "raising_preempted",
]

# In the folder of a trial that was preempted: {"reason"}
PREEMPTED = "preempted.json"
# Of a process that was preempted; EX_TEMPFAIL of sysexits.h, "try again"
STATUS = 75
# Windows does not have the second
SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]


class Preempted(SystemExit):
    """A signal asked a run to make room. It counts for nothing: no result, no failure."""

    def __init__(self, number: int) -> None:
        super().__init__(STATUS)
        self.number = number

    def __str__(self) -> str:
        return f"preempted by {signal.Signals(self.number).name}"


class Notice:
    """The signal that came, once one has."""

    def __init__(self) -> None:
        self.number = 0  # Of the signal; 0 before one came
        self._process = os.getpid()

    def install(self) -> None:
        """Signals come here from now on; also once more, after a library has set its own
        handlers."""
        _install(self._receive)

    def _receive(self, number: int, _: FrameType | None) -> None:
        if os.getpid() == self._process:  # A forked loader worker has this handler too
            self.number = number


@contextmanager
def raising_preempted() -> Iterator[None]:
    """Signals raise `Preempted` for the body's time, where this process has no other use for
    them."""
    process = os.getpid()

    def receive(number: int, _: FrameType | None) -> None:
        if os.getpid() == process:
            raise Preempted(number)

    with _restored():
        _install(receive, only_default=True)
        yield


@contextmanager
def noticing_signals() -> Iterator[Notice]:
    """Signals are only noticed for the body's time. If it raises nothing, one that came is passed
    on at its end to who handled it before; `Preempted` is raised if they let it pass."""
    notice = Notice()
    with _restored():
        notice.install()
        yield notice
    if notice.number:
        if callable(signal.getsignal(notice.number)):
            signal.raise_signal(notice.number)
        raise Preempted(notice.number)


@contextmanager
def _restored() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if _is_main_thread():
                # None: set by other code than Python's
                signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _install(handler: Callable[[int, FrameType | None], None], only_default: bool = False) -> None:
    for number in SIGNALS:
        handles = signal.getsignal(number)
        taken = handles == signal.SIG_IGN or (only_default and handles != signal.SIG_DFL)
        # Python delivers signals to the main thread alone, and lets no other ask for them
        if _is_main_thread() and not taken:
            signal.signal(number, handler)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
