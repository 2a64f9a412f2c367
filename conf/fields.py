"""Kinds of settings: fields of a dataclass whose values are checked when settings are read, and
where their defaults hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from typing import Any

__all__ = [
    "Place",
    "Values",
    "choice",
    "conditional",
    "embedded",
    "folder",
    "number",
    "place",
    "places",
    "unread",
]


@dataclass(frozen=True)
class Place:
    """What a setting that may name a file or a folder stands for: ``shipped`` maps words to folders
    of the package's assets; of a folder only ``files`` count, all where none are given."""

    shipped: Mapping[str, str]
    files: tuple[str, ...] = ()


# Another setting -> some of its values: one of the same section by its name, any by its whole key,
# "data.kind" for the kind of the data (`conf.spec.data_kind`). In a text * stands for anything
Values = Mapping[str, Sequence[Any]]


def conditional(
    setting: Any,
    only_if: Values | None = None,
    unless: Values | None = None,
    draws_if: Values | None = None,
) -> Any:
    """The field ``setting``, read only where the settings ``only_if`` have one of their values
    there, and those ``unless`` none of theirs; images depend on it only where those ``draws_if``
    have one of theirs (see ``conf.conditions``)."""
    default = {
        name: value
        for name in ("default", "default_factory")
        if (value := getattr(setting, name)) is not MISSING
    }
    given = {"only_if": only_if, "unless": unless, "draws_if": draws_if}
    conditions = {name: values or {} for name, values in given.items()}
    return field(**default, metadata={**setting.metadata, **conditions})


def place(default: str | None, *, files: tuple[str, ...] = (), **shipped: str) -> Any:
    """A field of text that may name a file or a folder (see ``Place``): what results depend on is
    what lies there, not its name."""
    return field(default=default, metadata={"place": Place(shipped, files), "expands": True})


def places() -> Any:
    """A field of several such texts, none by default."""
    return field(default_factory=list, metadata={"place": Place({}), "expands": True})


def folder(default: str | None) -> Any:
    """A field of text that names a place to read or write, in which ``~`` is the home of a user;
    results do not depend on it, or say by themselves what lay there."""
    return field(default=default, metadata={"expands": True})


def choice(
    default: str, *others: str, only_if: Values | None = None, unless: Values | None = None
) -> Any:
    """A field of text that must be one of these values; the first is the default. ``only_if`` and
    ``unless`` are as of `conditional`."""
    return conditional(
        field(default=default, metadata={"choices": (default, *others)}), only_if, unless
    )


def number(
    default: float | None,
    *,
    log: bool = False,
    only_if: Values | None = None,
    unless: Values | None = None,
    **limits: float,
) -> Any:
    """A field of a number with limits: ``minimum`` and ``maximum`` are allowed themselves,
    ``above`` and ``below`` are not.

    ``log`` where factors matter and not differences, as of a rate or a weight: a search looks at it
    on a logarithmic scale. ``only_if`` and ``unless`` are as of `conditional`.
    """
    metadata = {"limits": limits, "log": log}
    return conditional(field(default=default, metadata=metadata), only_if, unless)


def unread() -> Any:
    """A field, empty by default, whose values stay as they were written (``conf.values.Written``):
    what type they have is known later, to whom uses them."""
    return field(default=None, metadata={"unread": True})


def embedded(part: str, setting: Any, **elsewhere: Any) -> Any:
    """The field ``setting``, whose default fits the embedded ``part`` ("data" or "backbone") alone.

    With any other it is ``elsewhere=``, a value or a function of the settings, or has to be given
    where there is none (`conf.defaults`).
    """
    if part not in ("data", "backbone") or elsewhere.keys() - {"elsewhere"}:
        raise ValueError(f"embedded({part!r}, …): expected data or backbone, and elsewhere=VALUE")
    default = {
        name: value
        for name in ("default", "default_factory")
        if (value := getattr(setting, name)) is not MISSING
    }
    return field(**default, metadata={**setting.metadata, "embedded": part, **elsewhere})
