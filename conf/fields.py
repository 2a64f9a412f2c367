"""Kinds of settings: fields of a dataclass whose values are checked when settings are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Place", "choice", "number", "place", "places", "unread"]


@dataclass(frozen=True)
class Place:
    """What a setting that may name a file or a folder stands for: ``shipped`` maps words to folders
    of the package's assets; of a folder only ``files`` count, all where none are given."""

    shipped: Mapping[str, str]
    files: tuple[str, ...] = ()


def place(default: str | None, *, files: tuple[str, ...] = (), **shipped: str) -> Any:
    """A field of text that may name a file or a folder (see ``Place``): what results depend on is
    what lies there, not its name."""
    return field(default=default, metadata={"place": Place(shipped, files)})


def places() -> Any:
    """A field of several such texts, none by default."""
    return field(default_factory=list, metadata={"place": Place({})})


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
