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
import operator
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.custom_backbone import is_custom, read_backbone
from conf.describe import SchemaIndex, describe, nearest, show
from conf.files import write_atomically
from conf.renamed import current
from conf.schema import MISSING, Run, Sweep

__all__ = [
    "ConfigError",
    "as_run",
    "digest",
    "help_text",
    "load",
    "lookup",
    "read_run",
    "replace",
    "to_dict",
    "with_eval_overrides",
    "write",
]

FOLDER = Path(__file__).parent
R = TypeVar("R", bound=Run)


class ConfigError(ValueError):
    """A setting that cannot be used; the message is one line."""


@overload
def load(argv: Sequence[str], preset: Mapping[str, Any] | None = None) -> Sweep: ...
@overload
def load(argv: Sequence[str], preset: Mapping[str, Any] | None = None, *, schema: type[R]) -> R: ...
def load(
    argv: Sequence[str], preset: Mapping[str, Any] | None = None, *, schema: type[Run] = Sweep
) -> Run:
    """The settings of a command: ``argv`` holds its ``key=value`` words, ``preset`` the sweep's own
    settings (dotted keys, or groups by file name).

    Raises ``ConfigError``.
    """
    index = describe(schema)
    return _finish(*_merge(argv, preset or {}, index), index)


def replace(config: R, overrides: Mapping[str, Any], source: str = "override") -> R:
    """A checked copy of ``config`` with some dotted keys changed, or a whole group by the name of
    its file.

    Raises ``ConfigError``, which names ``source`` as the origin of a bad value.
    """
    index = describe(type(config))
    parts = {key.partition(".")[0] for key in overrides}
    whole = not parts <= set(index.groups)
    if whole:
        node = OmegaConf.structured(config)
    else:
        # A whole config takes OmegaConf tens of milliseconds, and the catalogue of sweeps needs
        # hundreds of copies.
        node = OmegaConf.create(
            {part: OmegaConf.structured(getattr(config, part)) for part in parts}
        )
    for group in overrides.keys() & set(index.groups):
        node[group] = OmegaConf.structured(index.nodes[group])
    origin = _compose(node, [(source, overrides)], index)
    if whole:
        return _finish(node, origin, index)
    _require_all(node, index)
    changed = dataclasses.replace(config, **_object(node))
    _check(
        changed, origin, index, [key for key in index.settings if key.partition(".")[0] in parts]
    )
    return changed


def read_run(path: Path | str) -> Run:
    """The resolved settings of one trial, as ``write`` left them. Raises ``ConfigError``."""
    index = describe(Run)
    node = OmegaConf.structured(Run)
    return _finish(node, _compose(node, [(str(path), _read(Path(path), index))], index), index)


def write(config: Run, path: Path | str) -> None:
    """Every setting as YAML, atomically."""
    write_atomically(path, OmegaConf.to_yaml(OmegaConf.structured(config)))


def as_run(config: Run) -> Run:
    """The part of a sweep's settings that one trial needs."""
    return Run(**{item.name: getattr(config, item.name) for item in dataclasses.fields(Run)})


def to_dict(config: Run) -> dict[str, Any]:
    """Nested plain dictionaries, lists and scalars."""
    return dataclasses.asdict(config)


def lookup(config: Run, key: str) -> Any:
    """The value of a dotted key."""
    return operator.attrgetter(key)(config)


def with_eval_overrides(config: R) -> R:
    """The settings after training: those of ``evaluate_with`` in place."""
    return replace(config, config.evaluate_with) if config.evaluate_with else config


def digest(mapping: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits of the content; the order of keys does not matter."""
    text = json.dumps(mapping, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def help_text(
    title: str, command: str, preset: Mapping[str, Any] | None = None, schema: type[Run] = Sweep
) -> str:
    """The help page of ``command``: usage, groups with their files, then every key with its
    default, meaning and allowed values."""
    index = describe(schema)
    node, origin = _merge([], preset or {}, index)
    defaults = _flatten(_plain(node), index)
    lines = [
        title,
        "",
        f"usage: {command} [group=file] [key=value] …",
        "",
        "groups (group=file; * marks the default)",
    ]
    for group in index.groups:
        for name in _files(group):
            file = _file(group, name)
            about = (
                (FOLDER.parent / file).read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
            )
            lines.append(
                f"  {'*' if origin.get(group) == file else ' '} {group + '=' + name:<22}  {about}"
            )
    lines += ["", "settings (key=default; ??? has to be given)"]
    for key, setting in index.settings.items():
        lines.append(
            f"  {key + '=' + show(defaults[key]):<38}  {setting.comment} ({setting.expected})"
        )
    return "\n".join(lines)


# --- layers: dotted keys from files and words, put onto the schema in order -----------------------


def _merge(
    argv: Sequence[str], preset: Mapping[str, Any], index: SchemaIndex
) -> tuple[DictConfig, dict[str, str]]:
    node = OmegaConf.structured(index.schema)
    base = _read(FOLDER / "base.yaml", index)
    words = _words(argv, index)
    # A group on the command line replaces the sweep's settings of it, except those of the method:
    # they are what the sweep is about.
    replaced = tuple(f"{group}." for group in index.groups if group in words and group != "method")
    preset = {key: value for key, value in preset.items() if not key.startswith(replaced)}
    return node, _compose(
        node, [("conf/base.yaml", base), ("sweep", preset), ("command line", words)], index
    )


def _compose(
    node: DictConfig, layers: list[tuple[str, Mapping[str, Any]]], index: SchemaIndex
) -> dict[str, str]:
    """Puts ``layers`` of (source, settings) onto ``node``, group files right after the first of
    several layers; returns the origin of each key."""
    _refuse_renamed(layers, index)
    picked = {
        key: (source, name)
        for source, layer in layers
        for key, name in layer.items()
        if key in index.groups
    }
    files = [
        (_file(group, name), _read_group(group, name, source, index))
        for group, (source, name) in picked.items()
    ]
    origin = {group: _file(group, name) for group, (_, name) in picked.items()}
    first = 1 if len(layers) > 1 else 0
    for source, layer in layers[:first] + files + layers[first:]:
        for key, value in layer.items():
            if key not in index.groups:
                _assign(node, key, value, source, index)
                origin[key] = source
    return origin


def _refuse_renamed(layers: list[tuple[str, Mapping[str, Any]]], index: SchemaIndex) -> None:
    """Raises ConfigError with the new names of all settings and values that were renamed."""
    old = []
    for source, layer in layers:
        for key, value in layer.items():
            new, new_value = current(key, value)
            if (new, new_value) != (key, value) and key not in index.settings or value != new_value:
                old.append(f"{key}={show(value)} ({source}) is now {new}={show(new_value)}")
    if old:
        raise ConfigError("renamed: " + "; ".join(old))


def _assign(node: DictConfig, key: str, value: Any, source: str, index: SchemaIndex) -> None:
    if key not in index.settings:
        raise ConfigError(_unknown(key, value, source, index))
    try:
        OmegaConf.update(node, key, value, merge=False)
    except OmegaConfBaseException:
        raise ConfigError(_invalid(key, value, source, index)) from None


def _finish(node: DictConfig, origin: Mapping[str, str], index: SchemaIndex) -> Any:
    """``node`` as a plain dataclass, checked. Raises ConfigError."""
    _require_all(node, index)
    config: Any = _object(node)
    _check(config, origin, index, index.settings)
    if config.evaluate_with:
        replace(
            dataclasses.replace(config, evaluate_with={}), config.evaluate_with, "evaluate_with"
        )
    return config


def _require_all(node: DictConfig, index: SchemaIndex) -> None:
    """Raises ConfigError where a value is missing that the user has to give."""
    missing = {key for key, value in _flatten(_plain(node), index).items() if value == MISSING}
    if missing:
        raise ConfigError(
            "; ".join(
                f"{key}=<{setting.expected}> is missing: {setting.comment}"
                for key, setting in index.settings.items()
                if key in missing
            )
        )


def _object(node: DictConfig) -> Any:
    try:
        return OmegaConf.to_object(node)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}") from None


def _check(config: Run, origin: Mapping[str, str], index: SchemaIndex, keys: Iterable[str]) -> None:
    """Raises ConfigError where the value of one of ``keys`` is not allowed."""
    for key in keys:
        value = lookup(config, key)
        if not index.settings[key].allows(value):
            raise ConfigError(_invalid(key, value, origin.get(key, "schema"), index))


def _words(argv: Sequence[str], index: SchemaIndex) -> dict[str, Any]:
    """``key=value`` words of a command line, each value parsed as its key expects."""
    values = {}
    for word in argv:
        key, equals, text = word.partition("=")
        if word.startswith("-") or not (equals and key and text):
            raise ConfigError(
                f"{word}: expected key=value, --help lists all "
                f"keys{nearest(key.lstrip('-'), index.names)}"
            )
        values[key] = _parse(key, text, index)
    return values


def _parse(key: str, text: str, index: SchemaIndex) -> Any:
    # Text is not parsed: as YAML, the commit 12e4 would become a number.
    if key not in index.settings or (index.settings[key].kind is str and text != "null"):
        return text
    try:
        return _plain(OmegaConf.from_dotlist([f"value={text}"]))["value"]
    except yaml.YAMLError:
        raise ConfigError(
            _invalid(key, text, "command line", index) + "; quote it if it holds blanks"
        ) from None


def _read(path: Path, index: SchemaIndex, prefix: str = "") -> dict[str, Any]:
    """Dotted keys of a YAML file, all below ``prefix``."""
    try:
        content = _plain(OmegaConf.load(path))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: cannot be read as YAML: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected key: value lines")
    return _flatten(content, index, prefix)


def _plain(node: Any) -> Any:
    """Plain containers; ``${…}`` and "???" stay text."""
    return OmegaConf.to_container(node)


def _flatten(content: Mapping[Any, Any], index: SchemaIndex, prefix: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in content.items():
        key = f"{prefix}{name}"
        values.update(
            _flatten(value, index, key + ".")
            if key in index.nodes and isinstance(value, dict)
            else {key: value}
        )
    return values


def _read_group(group: str, name: Any, source: str, index: SchemaIndex) -> dict[str, Any]:
    if group == "backbone" and name not in _files(group) and is_custom(name):
        try:
            return read_backbone(name)
        except ValueError as error:
            raise ConfigError(f"backbone={name} ({source}): {error}") from None
    if name not in _files(group):
        where = f"conf/{group}/ holds {', '.join(_files(group))}"
        raise ConfigError(
            f"{group}={show(name)} ({source}): no such file; "
            f"{where}{nearest(str(name), _files(group))}"
        )
    return _read(FOLDER / group / f"{name}.yaml", index, group + ".")


def _files(group: str) -> list[str]:
    return sorted(path.stem for path in (FOLDER / group).glob("*.yaml"))


def _file(group: str, name: str) -> str:
    return f"conf/{group}/{name}.yaml"


# --- messages -------------------------------------------------------------------------------------


def _invalid(key: str, value: Any, source: str, index: SchemaIndex) -> str:
    setting = index.settings[key]
    return (
        f"{key}={show(value)} ({source}): expected "
        f"{setting.expected}{nearest(str(value), setting.choices)}"
    )


def _unknown(key: str, value: Any, source: str, index: SchemaIndex) -> str:
    parent = key
    while parent not in index.nodes and parent:
        parent = parent.rpartition(".")[0]
    names = [name for name in index.names if name.rpartition(".")[0] == parent]
    below = ", ".join(name.rpartition(".")[2] for name in names)
    if key == parent:
        return f"{key}={show(value)} ({source}): not a single value; {key} holds {below}"
    return (
        f"{key}={show(value)} ({source}): no such setting; {parent or 'the top level'} "
        f"holds {below}{nearest(key, index.names)}"
    )
