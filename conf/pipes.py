"""Commands whose reader goes away, as `head` does once it has its lines."""

from __future__ import annotations

import functools
import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar

__all__ = ["ends_with_reader"]

P = ParamSpec("P")
T = TypeVar("T")


def ends_with_reader(main: Callable[P, T]) -> Callable[P, T]:
    """The ``main`` of a command, which ends without a word, and with status 1, where nobody reads
    what it prints any more (Python's documentation, "Note on SIGPIPE"). Broken pipes to others are
    raised as they are."""

    @functools.wraps(main)
    def call(*args: P.args, **named: P.kwargs) -> T:
        try:
            try:
                result = main(*args, **named)
            except SystemExit:
                _flush()
                raise
            _flush()
            return result
        except BrokenPipeError:
            if not _discard_unread():
                raise
            raise SystemExit(1) from None

    return call


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _discard_unread() -> bool:
    """Whether a standard stream has no reader; what is left for it then goes nowhere."""
    found = False
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # None, closed, or no file of the system
            # Asked, not tried again: a text that is longer than the buffer is tried only once
            looked = select.poll()
            looked.register(stream.fileno(), 0)
            if looked.poll(0):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
                found = True
    return found
