"""Settings from files and the command line into one plain dataclass, resolved once and checked.

The order is schema < `base.yaml` < group files < the sweep's own settings < command line; a group
named on the command line (but the method) takes the place of the sweep's settings of that group. A
group (`backbone`, `method`, …) given a bare name picks `conf/<group>/<name>.yaml` (a backbone may
be a folder or hub id, too); the last layer that names one decides. A dotted key sets one value.
Whatever is wrong ends in one `ConfigError` line: the key, its value and where it came from, what is
expected, and the nearest match.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.describe import Shape, describe, nearest, show
from conf.own_backbone import is_own, settings_of
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
    "write",
]

FOLDER = Path(__file__).parent
R = TypeVar("R", bound=Run)


class ConfigError(ValueError):
    """A setting that cannot be used, said in one line."""


@overload
def load(argv: Sequence[str], preset: Mapping[str, Any] | None = None) -> Sweep: ...
@overload
def load(argv: Sequence[str], preset: Mapping[str, Any] | None = None, *, schema: type[R]) -> R: ...
def load(
    argv: Sequence[str], preset: Mapping[str, Any] | None = None, *, schema: type[Run] = Sweep
) -> Run:
    """The settings of a command: `argv` holds its `key=value` words, `preset` the sweep's own
    (dotted keys, or groups by file name).

    Raises `ConfigError`.
    """
    shape = describe(schema)
    return _finish(*_merge(argv, preset or {}, shape), shape)


def replace(config: R, overrides: Mapping[str, Any], source: str = "override") -> R:
    """A checked copy of `config` with dotted keys set anew, or a whole group by the name of its
    file.

    Raises `ConfigError`, which names `source` as the place where a bad value stands.
    """
    shape = describe(type(config))
    parts = {key.partition(".")[0] for key in overrides}
    whole = not parts <= set(shape.groups)
    if whole:
        node = OmegaConf.structured(config)
    else:  # a whole config takes OmegaConf tens of milliseconds, and a catalogue of sweeps asks hundreds of times
        node = OmegaConf.create(
            {part: OmegaConf.structured(getattr(config, part)) for part in parts}
        )
    for group in overrides.keys() & set(shape.groups):
        node[group] = OmegaConf.structured(shape.nodes[group])
    origin = _compose(node, [(source, overrides)], shape)
    if whole:
        return _finish(node, origin, shape)
    _complete(node, shape)
    changed = dataclasses.replace(config, **_object(node))
    _check(
        changed, origin, shape, [key for key in shape.settings if key.partition(".")[0] in parts]
    )
    return changed


def read_run(path: Path | str) -> Run:
    """The resolved settings of one trial, as `write` left them. Raises `ConfigError`."""
    shape = describe(Run)
    node = OmegaConf.structured(Run)
    return _finish(node, _compose(node, [(str(path), _read(Path(path), shape))], shape), shape)


def write(config: Run, path: Path | str) -> None:
    """Every setting as YAML; a reader sees the old file or the whole new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(OmegaConf.to_yaml(OmegaConf.structured(config)), encoding="utf-8")
    draft.replace(path)


def as_run(config: Run) -> Run:
    """What one trial needs of a sweep's settings."""
    return Run(**{item.name: getattr(config, item.name) for item in dataclasses.fields(Run)})


def to_dict(config: Run) -> dict[str, Any]:
    """Nested plain dictionaries, lists and scalars."""
    return dataclasses.asdict(config)


def lookup(config: Run, key: str) -> Any:
    """The value of a dotted key."""
    return operator.attrgetter(key)(config)


def digest(mapping: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits of the content, whatever the order of its keys."""
    text = json.dumps(mapping, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def help_text(
    title: str, command: str, preset: Mapping[str, Any] | None = None, schema: type[Run] = Sweep
) -> str:
    """The help page of `command`: usage, groups with their files, then every key with its default,
    meaning and allowed values."""
    shape = describe(schema)
    node, origin = _merge([], preset or {}, shape)
    defaults = _flatten(_plain(node), shape)
    lines = [
        title,
        "",
        (f"usage: {command} [group=file] [key=value] …"),
        "",
        "groups (group=file; * marks the default)",
    ]
    for group in shape.groups:
        for name in _files(group):
            file = _file(group, name)
            about = (
                (FOLDER.parent / file).read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
            )
            lines.append(
                f"  {'*' if origin.get(group) == file else ' '} {group + '=' + name:<22}  {about}"
            )
    lines += ["", "settings (key=default; ??? must be given)"]
    for key, setting in shape.settings.items():
        lines.append(
            f"  {key + '=' + show(defaults[key]):<38}  {setting.comment} ({setting.expected})"
        )
    return "\n".join(lines)


# Layers: dotted keys from files and words, put onto the schema in order.


def _merge(
    argv: Sequence[str], preset: Mapping[str, Any], shape: Shape
) -> tuple[DictConfig, dict[str, str]]:
    node = OmegaConf.structured(shape.schema)
    base = _read(FOLDER / "base.yaml", shape)
    words = _words(argv, shape)
    # A recipe that is named goes over the sweep's own, whose settings of a method are what it asks
    # about.
    named = tuple(f"{group}." for group in shape.groups if group in words and group != "method")
    preset = (
        {key: value for key, value in preset.items() if not key.startswith(named)}
        if named
        else preset
    )
    return node, _compose(
        node, [("conf/base.yaml", base), ("sweep", preset), ("command line", words)], shape
    )


def _compose(
    node: DictConfig, layers: list[tuple[str, Mapping[str, Any]]], shape: Shape
) -> dict[str, str]:
    """Put `layers` of (source, keys) onto `node`, the files of groups after the first of several;
    returns where each key came from."""
    chosen = {
        key: (source, name)
        for source, layer in layers
        for key, name in layer.items()
        if key in shape.groups
    }
    files = [
        (_file(group, name), _read_group(group, name, source, shape))
        for group, (source, name) in chosen.items()
    ]
    origin = {group: _file(group, name) for group, (_, name) in chosen.items()}
    first = 1 if len(layers) > 1 else 0
    for source, layer in layers[:first] + files + layers[first:]:
        for key, value in layer.items():
            if key not in shape.groups:
                _assign(node, key, value, source, shape)
                origin[key] = source
    return origin


def _assign(node: DictConfig, key: str, value: Any, source: str, shape: Shape) -> None:
    if key not in shape.settings:
        raise ConfigError(_unknown(key, value, source, shape))
    try:
        OmegaConf.update(node, key, value, merge=False)
    except OmegaConfBaseException:
        raise ConfigError(_wrong(key, value, source, shape)) from None


def _finish(node: DictConfig, origin: Mapping[str, str], shape: Shape) -> Any:
    """`node` as a plain dataclass, once nothing is missing and every value is allowed."""
    _complete(node, shape)
    config: Any = _object(node)
    _check(config, origin, shape, shape.settings)
    if config.evaluate_with:
        replace(
            dataclasses.replace(config, evaluate_with={}), config.evaluate_with, "evaluate_with"
        )
    return config


def _complete(node: DictConfig, shape: Shape) -> None:
    """Raises ConfigError where a value is missing that a person must give."""
    missing = {key for key, value in _flatten(_plain(node), shape).items() if value == MISSING}
    wanted = [
        (f"{key}=<{setting.expected}> is missing: {setting.comment}")
        for key, setting in shape.settings.items()
        if key in missing
    ]
    if wanted:
        raise ConfigError("; ".join(wanted))


def _object(node: DictConfig) -> Any:
    try:
        return OmegaConf.to_object(node)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}") from None


def _check(config: Run, origin: Mapping[str, str], shape: Shape, keys: Iterable[str]) -> None:
    """Raises ConfigError where the value of one of `keys` is not allowed."""
    for key in keys:
        value = lookup(config, key)
        if not shape.settings[key].allows(value):
            raise ConfigError(_wrong(key, value, origin.get(key, "schema"), shape))


def _words(argv: Sequence[str], shape: Shape) -> dict[str, Any]:
    """`key=value` words of a command line, each value read as what its key takes."""
    values = {}
    for word in argv:
        key, equals, text = word.partition("=")
        if word.startswith("-") or not (equals and key and text):
            raise ConfigError(
                f"{word}: expected key=value, --help lists all "
                f"keys{nearest(key.lstrip('-'), shape.names)}"
            )
        values[key] = _parse(key, text, shape)
    return values


def _parse(key: str, text: str, shape: Shape) -> Any:
    # Text is taken as it stands: as YAML, the commit 12e4 would become a number.
    if key not in shape.settings or (shape.settings[key].kind is str and text != "null"):
        return text
    try:
        return _plain(OmegaConf.from_dotlist([f"value={text}"]))["value"]
    except yaml.YAMLError:
        raise ConfigError(
            _wrong(key, text, "command line", shape) + "; quote it if it holds blanks"
        ) from None


def _read(path: Path, shape: Shape, prefix: str = "") -> dict[str, Any]:
    """Dotted keys of a YAML file whose keys stand below `prefix`."""
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
    return _flatten(content, shape, prefix)


def _plain(node: Any) -> Any:
    """Without OmegaConf's containers; `${…}` and "???" stay as text."""
    return OmegaConf.to_container(node)


def _flatten(content: Mapping[Any, Any], shape: Shape, prefix: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in content.items():
        key = f"{prefix}{name}"
        values.update(
            _flatten(value, shape, key + ".")
            if key in shape.nodes and isinstance(value, dict)
            else {key: value}
        )
    return values


def _read_group(group: str, name: Any, source: str, shape: Shape) -> dict[str, Any]:
    if group == "backbone" and name not in _files(group) and is_own(name):
        try:
            return settings_of(name)
        except ValueError as error:
            raise ConfigError(f"backbone={name} ({source}): {error}") from None
    if name not in _files(group):
        where = f"conf/{group}/ holds {', '.join(_files(group))}"
        raise ConfigError(
            f"{group}={show(name)} ({source}): no such file; "
            f"{where}{nearest(str(name), _files(group))}"
        )
    return _read(FOLDER / group / f"{name}.yaml", shape, group + ".")


def _files(group: str) -> list[str]:
    return sorted(path.stem for path in (FOLDER / group).glob("*.yaml"))


def _file(group: str, name: str) -> str:
    return f"conf/{group}/{name}.yaml"


# Words for what went wrong.


def _wrong(key: str, value: Any, source: str, shape: Shape) -> str:
    setting = shape.settings[key]
    return (
        f"{key}={show(value)} ({source}): expected "
        f"{setting.expected}{nearest(str(value), setting.choices)}"
    )


def _unknown(key: str, value: Any, source: str, shape: Shape) -> str:
    parent = key
    while parent not in shape.nodes and parent:
        parent = parent.rpartition(".")[0]
    names = [name for name in shape.names if name.rpartition(".")[0] == parent]
    below = ", ".join(name.rpartition(".")[2] for name in names)
    if key == parent:
        return f"{key}={show(value)} ({source}): not a single value; {key} holds {below}"
    return (
        f"{key}={show(value)} ({source}): no such setting; {parent or 'the top level'} "
        f"holds {below}{nearest(key, shape.names)}"
    )
