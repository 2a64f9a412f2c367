"""What happens in a sweep, told as facts to who listens: the lines of --json, or a caller's own
function."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

__all__ = ["json_lines", "listening", "listens", "tell"]

Listener = Callable[[dict[str, Any]], None]
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def tell(event: str, **facts: Any) -> None:
    """Hands {"event": …, **facts} to who listens; facts that are None are left out."""
    if listener := _listener.get():
        known = {key: value for key, value in facts.items() if value is not None}
        listener({"event": event} | known)


def listens() -> bool:
    """Whether anyone does."""
    return _listener.get() is not None


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """``listener`` gets the events of the body."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextlib.contextmanager
def json_lines(active: bool = True) -> Iterator[None]:
    """Events are lines of JSON on standard output, and what is for people goes to standard
    error."""
    if not active:
        yield
        return
    lines = sys.stdout

    def write(event: dict[str, Any]) -> None:
        print(json.dumps(event, ensure_ascii=False), file=lines, flush=True)

    with contextlib.redirect_stdout(sys.stderr), listening(write):
        yield
