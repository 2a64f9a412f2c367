"""Kinds of settings: fields of a dataclass whose values are checked when settings are read."""

from __future__ import annotations

from dataclasses import field
from typing import Any

__all__ = ["choice", "number", "unread"]


def choice(default: str, *others: str) -> Any:
    """A field of text that must be one of these values; the first is the default."""
    return field(default=default, metadata={"choices": (default, *others)})


def number(default: float, **limits: float) -> Any:
    """A field of a number with limits: ``minimum`` and ``maximum`` are allowed themselves,
    ``above`` and ``below`` are not."""
    return field(default=default, metadata={"limits": limits})


def unread() -> Any:
    """A field, empty by default, whose values stay as they were written (``conf.values.Written``):
    what type they have is known later, to whom uses them."""
    return field(default=None, metadata={"unread": True})
