"""What a command changes of the defaults, and which file or word says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from conf.describe import describe, show
from conf.layers import lookup, merge
from conf.load import load
from conf.schema import Run, Sweep

__all__ = ["Change", "list_changes"]

ELSEWHERE = "the default with this data or backbone"


class Change(NamedTuple):
    """A setting that is not its default, and where its ``value`` comes from."""

    key: str
    value: Any
    default: Any
    origin: str

    def describe(self) -> str:
        """``trainer.steps=9  (default 60; command line)``."""
        return f"{self.key}={show(self.value)}  (default {show(self.default)}; {self.origin})"


def list_changes(
    argv: Sequence[str], preset: Mapping[str, Any] | None = None, schema: type[Run] = Sweep
) -> list[Change]:
    """The settings of a command that differ from those of one without words and preset, in the
    order of the schema. Raises ConfigError."""
    index = describe(schema)
    config = load(argv, preset, schema=schema, required=False)
    plain, layers = merge([], {}, index), merge(argv, preset or {}, index)
    layers.resolve()
    changes = []
    for key in index.settings:
        value, default = lookup(config, key), plain.values[key]
        if value != default:
            moved = value != layers.values[key]
            origin = ELSEWHERE if moved else layers.origin.get(key, "schema")
            changes.append(Change(key, value, default, origin))
    return changes
