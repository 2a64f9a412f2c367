"""What signals mean for a sweep that runs."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Signals", "Stopped"]


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end at once."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Signals:
    """The first Ctrl-C lets running trials finish and begins no others; the second, or another
    signal, stops at once (``Stopped``)."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self.working = False  # Whether there are trials that could finish

    @contextmanager
    def handle(self) -> Iterator[Signals]:
        """Signals come here for the body's time."""
        names = [
            name for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
        ]
        numbers = [getattr(signal, name) for name in names]  # Windows does not have the last two
        before = {number: signal.getsignal(number) for number in numbers}
        try:
            for number in numbers:
                signal.signal(number, self._receive)
            yield self
        finally:
            for number in numbers:
                signal.signal(number, before[number])

    def _receive(self, number: int, _: FrameType | None) -> None:
        self.received.append(number)
        if number != signal.SIGINT or len(self.received) > 1 or not self.working:
            raise Stopped(number)
        note = "finishing the trials that run, beginning no others; Ctrl-C again stops at once"
        print(f"\n{note}", file=sys.stderr, flush=True)
