"""Settings of data that were given and that nothing would read."""

from __future__ import annotations

from collections.abc import Iterable

from conf.describe import describe, show
from conf.load import lookup
from conf.schema import Data, Run
from conf.spec import data_sets

__all__ = ["check_read", "explain_unread"]

# What only prompts made of concepts have
COMPOSED = ("objects", "concept_draw", "joins", "article")


def explain_unread(config: Run) -> dict[str, str]:
    """``data.key`` -> one line on why its value, which is not the default, changes nothing."""
    spec, data, schema = data_sets()[config.data.name], config.data, Data()
    unread = {name: f"data={data.name}" for name in spec.unread(config)}
    if not data.concepts:
        unread |= dict.fromkeys(COMPOSED, "data.concepts=[]")
    lines = {}
    for name, why in unread.items():
        key = f"data.{name}"
        if (value := lookup(config, key)) == getattr(schema, name):
            continue
        comment = describe(Run).settings[key].comment
        lines[key] = (
            f"{key}={show(value)} with {why}: nothing reads it there ({comment}); leave it out"
        )
    return lines


def check_read(configs: Iterable[Run]) -> None:
    """Raises ValueError for a setting of the data that none of these runs reads."""
    lines = [explain_unread(config) for config in configs]
    for key in lines[0] if lines else ():
        if all(key in other for other in lines):
            raise ValueError(lines[0][key])
