"""Settings from files and the command line, merged into one plain dataclass and checked.

The order is schema < ``base.yaml`` < group files < the sweep's own settings < command line. A group
named on the command line (except the method) replaces the sweep's settings of that group. A group
(``backbone``, ``method``, …) with a bare name picks ``conf/<group>/<name>.yaml`` (a backbone may be
a folder or hub id, too); the last layer that names a group wins. A dotted key sets one value.
Every mistake ends in a ``ConfigError`` of one line: the key, its value and where it came from, what
was expected, and the nearest match.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

from conf.defaults import defaults_elsewhere, foreign_parts
from conf.describe import describe
from conf.files import write_atomically
from conf.layers import (
    Layers,
    escape,
    literal,
    lookup,
    map_text,
    merge,
    replace,
    with_eval_overrides,
)
from conf.schema import Data, Run, Sweep
from conf.sources import ConfigError, MissingDefault, read_file, read_group, read_words
from conf.spec import data_sets
from conf.values import dump

__all__ = [
    "ConfigError",
    "MissingDefault",
    "as_run",
    "digest",
    "given_keys",
    "keys_by_hand",
    "literal",
    "load",
    "lookup",
    "read_run",
    "replace",
    "to_dict",
    "with_defaults",
    "with_eval_overrides",
    "with_homes",
    "write",
]

R = TypeVar("R", bound=Run)


@overload
def load(
    argv: Sequence[str], preset: Mapping[str, Any] | None = None, *, required: bool = ...
) -> Sweep: ...
@overload
def load(
    argv: Sequence[str],
    preset: Mapping[str, Any] | None = None,
    *,
    schema: type[R],
    required: bool = ...,
) -> R: ...
def load(
    argv: Sequence[str],
    preset: Mapping[str, Any] | None = None,
    *,
    schema: type[Run] = Sweep,
    required: bool = True,
) -> Run:
    """The settings of a command: ``argv`` holds its ``key=value`` words, ``preset`` the sweep's own
    settings (dotted keys, or groups by file name).

    Raises ``ConfigError``, where ``required`` also for settings that have no default outside the
    embedded world (``MissingDefault``).
    """
    config = merge(argv, preset or {}, describe(schema)).finish()
    foreign = foreign_parts(config)
    if not foreign:
        return config
    return with_defaults(config, given_keys(argv, preset or {}), foreign, required)


def with_defaults(
    config: R, given: Collection[str], parts: Collection[str], required: bool = True
) -> R:
    """The settings in which nothing is a default of the embedded world's ``parts``, except what is
    ``given`` (see `conf.defaults`). Raises ``MissingDefault``."""
    index = describe(type(config))
    try:
        given = {*given, *config.evaluate_with}
        changes = defaults_elsewhere(config, given, index, parts, required)
    except ValueError as error:
        raise MissingDefault(str(error)) from None
    return replace(config, map_text(escape, changes), "defaults") if changes else config


def given_keys(words: Sequence[str], preset: Mapping[str, Any], *more: Mapping[str, Any]) -> set:
    """The dotted keys that a command sets, in its ``words``, in the settings ``more``, and by the
    files that they name. Those that the ``preset`` sets count where it names data of its own: else
    it is one for the embedded world."""
    index = describe(Sweep)
    layers = [read_words(words, index), *more]
    own = Data(
        name=preset.get("data.name", preset.get("data", Data.name)),
        root=preset.get("data.root", Data.root),
    )
    known = data_sets().get(own.name)
    if known is None or not known.embedded(Run(data=own)):
        layers.append(preset)
    given = {
        key
        for group, name in preset.items()
        if group in index.groups
        for key in read_group(group, name, "sweep", index)
    } - preset.keys()
    for layer in layers:
        for key, value in layer.items():
            given |= (
                read_group(key, value, "command line", index).keys()
                if key in index.groups
                else {key}
            )
    return given


def read_run(path: Path | str) -> Run:
    """The resolved settings of one trial, as ``write`` left them. Raises ``ConfigError``."""
    index = describe(Run)
    layers, content = Layers(index), read_file(Path(path), index)
    layers.compose([(str(path), content)])
    config: Run = layers.finish()
    foreign = foreign_parts(config)
    return with_defaults(config, given_keys([], {}, content), foreign) if foreign else config


def keys_by_hand(path: Path | str) -> list[str]:
    """The dotted keys of the settings that a file names, empty where these are nearly all, since
    ``write`` wrote it, perhaps before some setting was there. Raises ``ConfigError``."""
    index = describe(Run)
    keys = [key for key in read_file(Path(path), index) if key in index.settings]
    return keys if len(keys) < 0.9 * len(index.settings) else []


def check_whole(path: Path | str) -> None:
    """Raises ConfigError for a file that ``write`` wrote and that was cut off since: what is left
    may be settings all the same, and others would have their defaults."""
    last = dataclasses.fields(Run)[-1].name
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    if not text.endswith("\n") or f"\n{last}:" not in text:
        raise ConfigError(
            f"{path} is damaged: it ends before its last setting, {last}; the run in MLflow has a "
            "whole one"
        )


def write(config: Run, path: Path | str) -> None:
    """Every setting as YAML, atomically."""
    write_atomically(path, dump(literal(to_dict(config))))


def with_homes(config: R) -> R:
    """``config``, made in code, with ``~`` in places as the homes of users. Raises ConfigError."""
    index = describe(type(config))
    places = {key: lookup(config, key) for key, one in index.settings.items() if one.expands}
    texts = {key: value for key, value in places.items() if "~" in str(value) or _is_blank(value)}
    return replace(config, map_text(escape, texts), "settings") if texts else config


def _is_blank(value: Any) -> bool:
    return isinstance(value, str) and value.isspace()


def as_run(config: Run) -> Run:
    """The part of a sweep's settings that one trial needs."""
    return Run(**{item.name: getattr(config, item.name) for item in dataclasses.fields(Run)})


def to_dict(config: Run) -> dict[str, Any]:
    """Nested plain dictionaries, lists and scalars."""
    return dataclasses.asdict(config)


def digest(mapping: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits of the content; the order of keys does not matter."""
    text = json.dumps(mapping, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
