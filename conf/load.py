"""Settings from files and the command line, merged into one plain dataclass and checked.

The order is schema < ``base.yaml`` < group files < the sweep's own settings < command line. A group
named on the command line (except the method) replaces the sweep's settings of that group. A group
(``backbone``, ``method``, …) with a bare name picks ``conf/<group>/<name>.yaml`` (a backbone may be
a folder or hub id, too); the last layer that names a group wins. A dotted key sets one value.
Every mistake ends in a ``ConfigError`` of one line: the key, its value and where it came from, what
was expected, and the nearest match.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import itertools
import json
import operator
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.custom_backbone import is_custom, read_backbone
from conf.defaults import defaults_elsewhere, foreign_parts
from conf.describe import SchemaIndex, Setting, describe, nearest, show
from conf.devices import runs_on_cpu
from conf.files import write_atomically
from conf.renamed import current
from conf.schema import MISSING, Data, Run, Sweep
from conf.spec import data_sets
from conf.values import PERHAPS_NOTHING, Misread, Written, dump, expand_home, parse, read

__all__ = [
    "ConfigError",
    "MissingDefault",
    "as_run",
    "digest",
    "given_keys",
    "help_text",
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

FOLDER = Path(__file__).parent
ESCAPED = re.compile(r"(\\*)\$\{")
R = TypeVar("R", bound=Run)


class ConfigError(ValueError):
    """A setting that cannot be used; the message is one line."""


class MissingDefault(ConfigError):
    """A setting has no default outside the embedded world, and was not given."""


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
    config = _merge(argv, preset or {}, describe(schema)).finish()
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
    return replace(config, _map_text(_escape, changes), "defaults") if changes else config


def given_keys(words: Sequence[str], preset: Mapping[str, Any], *more: Mapping[str, Any]) -> set:
    """The dotted keys that a command sets, in its ``words``, in the settings ``more``, and by the
    files that they name. Those that the ``preset`` sets count where it names data of its own: else
    it is one for the embedded world."""
    index = describe(Sweep)
    layers = [_words(words, index), *more]
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
        for key in _read_group(group, name, "sweep", index)
    } - preset.keys()
    for layer in layers:
        for key, value in layer.items():
            given |= (
                _read_group(key, value, "command line", index).keys()
                if key in index.groups
                else {key}
            )
    return given


def replace(config: R, overrides: Mapping[str, Any], source: str = "override") -> R:
    """A checked copy of ``config`` with some dotted keys changed, or a whole group by the name of
    its file.

    Raises ``ConfigError``, which names ``source`` as the origin of a bad value.
    """
    index = describe(type(config))
    layers = _Layers(index, {key: lookup(config, key) for key in index.settings})
    for group in overrides.keys() & set(index.groups):
        layers.values |= _defaults(index.nodes[group], group + ".")
    layers.compose([(source, overrides)])
    parts = {key.partition(".")[0] for key in overrides}
    return layers.finish([key for key in index.settings if key.partition(".")[0] in parts])


def read_run(path: Path | str) -> Run:
    """The resolved settings of one trial, as ``write`` left them. Raises ``ConfigError``."""
    index = describe(Run)
    layers, content = _Layers(index), _read(Path(path), index)
    layers.compose([(str(path), content)])
    config: Run = layers.finish()
    foreign = foreign_parts(config)
    return with_defaults(config, given_keys([], {}, content), foreign) if foreign else config


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
    texts = {key: value for key, value in places.items() if "~" in str(value)}
    return replace(config, _map_text(_escape, texts), "settings") if texts else config


def as_run(config: Run) -> Run:
    """The part of a sweep's settings that one trial needs."""
    return Run(**{item.name: getattr(config, item.name) for item in dataclasses.fields(Run)})


def to_dict(config: Run) -> dict[str, Any]:
    """Nested plain dictionaries, lists and scalars."""
    return dataclasses.asdict(config)


def lookup(config: Run, key: str) -> Any:
    """The value of a dotted key."""
    return operator.attrgetter(key)(config)


def literal(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values whose texts are taken as they stand: ``${`` in them is no reference."""
    return _map_text(_escape, values)


def with_eval_overrides(config: R) -> R:
    """The settings after training: those of ``evaluate_with`` in place."""
    if not config.evaluate_with:
        return config
    before = dataclasses.replace(config, evaluate_with={})
    late = replace(before, literal(config.evaluate_with), "evaluate_with")
    return dataclasses.replace(late, evaluate_with=config.evaluate_with)


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
    layers = _merge([], preset or {}, index)
    defaults, origin = layers.values, layers.origin
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
            text = (FOLDER.parent / file).read_text(encoding="utf-8")
            head = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
            about = " ".join(line.lstrip("# ") for line in head)
            lines.append(
                f"  {'*' if origin.get(group) == file else ' '} {group + '=' + name:<22}  {about}"
            )
    lines += ["", "settings (key=default; ??? has to be given)"]
    for key, setting in index.settings.items():
        allowed = setting.expected + _elsewhere(setting)
        lines.append(f"  {key + '=' + show(defaults[key]):<38}  {setting.comment} ({allowed})")
    return "\n".join(lines)


def _elsewhere(setting: Setting) -> str:
    """What a default of the embedded world is with other data, or with another backbone."""
    if not setting.embedded:
        return ""
    if not setting.elsewhere:
        return f"; other {setting.embedded}: to be given"
    value = setting.elsewhere[0]
    return f"; other {setting.embedded}: {'its name' if callable(value) else show(value)}"


# --- layers: dotted keys from files and words, put onto the schema in order -----------------------


class _Layers:
    """Every setting of a schema as a dotted key with its value so far, and where that came from."""

    def __init__(self, index: SchemaIndex, values: Mapping[str, Any] | None = None) -> None:
        self.index = index
        self.values = dict(_defaults(index.schema) if values is None else values)
        self.origin: dict[str, str] = {}
        self.references: set[str] = set()  # Keys whose value holds ${…}

    def compose(self, layers: list[tuple[str, Mapping[str, Any]]]) -> None:
        """Puts on ``layers`` of (source, settings), group files right after the first of several
        layers."""
        _refuse_renamed(layers, self.index)
        picked = {
            key: (source, str(name))
            for source, layer in layers
            for key, name in layer.items()
            if key in self.index.groups
        }
        files = [
            (_file(group, name), _read_group(group, name, source, self.index))
            for group, (source, name) in picked.items()
        ]
        self.origin |= {group: _file(group, name) for group, (_, name) in picked.items()}
        first = 1 if len(layers) > 1 else 0
        for source, layer in layers[:first] + files + layers[first:]:
            for key, value in layer.items():
                if key not in self.index.groups:
                    self.assign(key, value, source)
        asked = not self.origin.get("backbone.dtype", "").startswith("conf/backbone/")
        launched = self.values.get("launch") is not None
        if not asked and not launched and runs_on_cpu(self.values["trainer.accelerator"]):
            # As it is stored, or as it is meant for GPUs, it would take hours
            self.values["backbone.dtype"] = "float32"

    def assign(self, key: str, value: Any, source: str) -> None:
        """Raises ConfigError for a key that does not exist, or a value of another type."""
        if key not in self.index.settings:
            raise ConfigError(_unknown(key, value, source, self.index))
        self.origin[key] = source
        if _holds_reference(value):
            self.references.add(key)
            self.values[key] = value
            return
        self.references.discard(key)
        self.values[key] = value if value == MISSING else self.read(key, value)

    def read(self, key: str, value: Any) -> Any:
        """``value`` by the type of its setting; in a mapping, what is named like a setting by the
        type of that one."""
        setting, source = self.index.settings[key], self.origin.get(key, "schema")
        if setting.unread and isinstance(value, list | tuple):
            return list(value)
        if setting.kind is dict and isinstance(value, Mapping):
            value = {name: self.read_named(key, name, item) for name, item in value.items()}
        try:
            plain = read(setting.type, value)
            return _map_text(expand_home, plain) if setting.expands else plain
        except Misread as error:
            raise ConfigError(_invalid(key, value, source, self.index, str(error))) from None

    def read_named(self, key: str, name: str, value: Any) -> Any:
        if name in self.index.nodes:
            return str(value) if isinstance(value, str) else value
        if name not in self.index.settings or self.index.settings[name].kind is dict:
            return _map_text(str, value)
        try:
            plain = read(self.index.settings[name].type, value)
            return _map_text(expand_home, plain) if self.index.settings[name].expands else plain
        except Misread as error:
            raise ConfigError(_invalid(name, value, key, self.index, str(error))) from None

    def resolve(self) -> None:
        """Puts values in the place of ``${key}``. Raises ConfigError."""
        if not self.references:
            return
        nested: dict[str, Any] = {}
        for key, value in self.values.items():
            *parents, name = key.split(".")
            node = nested
            for parent in parents:
                node = node.setdefault(parent, {})
            node[name] = _map_text(str if key in self.references else _escape, value)
        try:
            whole = OmegaConf.create(nested)
            for key in self.references:
                one = OmegaConf.select(whole, key, throw_on_missing=True)
                plain = (
                    OmegaConf.to_container(one, resolve=True) if OmegaConf.is_config(one) else one
                )
                self.values[key] = self.read(key, plain)
        except OmegaConfBaseException as error:
            where = error.full_key or ", ".join(sorted(self.references))
            raise ConfigError(f"{where}: {str(error).splitlines()[0]}") from None
        self.references.clear()

    def finish(self, keys: Iterable[str] | None = None) -> Any:
        """The settings as a dataclass, those of ``keys`` (all) checked. Raises ConfigError."""
        self.resolve()
        self.require_all()
        config = _build(self.index, self.values)
        keys = self.index.settings if keys is None else keys
        for key in keys:
            if not self.index.settings[key].allows(value := self.values[key]):
                source = self.origin.get(key, "schema")
                raise ConfigError(_invalid(key, value, source, self.index))
        if config.evaluate_with and "evaluate_with" in keys:
            with_eval_overrides(config)
        return config

    def require_all(self) -> None:
        """Raises ConfigError where a value is missing that the user has to give."""
        missing = [key for key, value in self.values.items() if value == MISSING]
        if missing:
            raise ConfigError(
                "; ".join(
                    f"{key}=<{setting.expected}> is missing: {setting.comment}"
                    for key, setting in self.index.settings.items()
                    if key in missing
                )
            )


def _defaults(schema: type, prefix: str = "") -> dict[str, Any]:
    """The dotted settings of a schema with their defaults."""
    config = schema()
    return {prefix + key: lookup(config, key) for key in describe(schema).settings}


def _build(index: SchemaIndex, values: Mapping[str, Any], prefix: str = "") -> Any:
    """The dataclass of a node of the schema."""
    schema = index.nodes[prefix.rstrip(".")] if prefix else index.schema
    fields = {}
    for item in dataclasses.fields(schema):
        key = prefix + item.name
        inner = key in index.nodes
        fields[item.name] = (
            _build(index, values, key + ".") if inner else copy.deepcopy(values[key])
        )
    return schema(**fields)


def _merge(argv: Sequence[str], preset: Mapping[str, Any], index: SchemaIndex) -> _Layers:
    base = _read(FOLDER / "base.yaml", index)
    words = _words(argv, index)
    # A group on the command line replaces the sweep's settings of it, except those of the method:
    # they are what the sweep is about.
    replaced = tuple(f"{group}." for group in index.groups if group in words and group != "method")
    preset = {key: value for key, value in preset.items() if not key.startswith(replaced)}
    layers = _Layers(index)
    layers.compose([("conf/base.yaml", base), ("sweep", preset), ("command line", words)])
    return layers


def _holds_reference(value: Any) -> bool:
    """Whether a text in it holds ``${…}``."""
    if isinstance(value, str):
        return "${" in value
    parts = value.values() if isinstance(value, Mapping) else value
    return isinstance(value, list | tuple | Mapping) and any(map(_holds_reference, parts))


def _escape(text: str) -> str:
    """The text in which ``${`` is no reference."""
    return ESCAPED.sub(lambda found: 2 * found[1] + "\\${", text)


def _map_text(change: Callable[[str], str], value: Any) -> Any:
    """A copy of containers in which each text is changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _map_text(change, item) for key, item in value.items()}
    return [_map_text(change, item) for item in value] if isinstance(value, list | tuple) else value


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


def _words(argv: Sequence[str], index: SchemaIndex) -> dict[str, Any]:
    """``key=value`` words of a command line, each value parsed as its key expects."""
    _refuse_blanks(argv)
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


def _refuse_blanks(argv: Sequence[str]) -> None:
    """Raises ConfigError with the right form of ``key = value``, ``key= value``, ``key =value``."""
    for number, word in enumerate(argv):
        key, equals, text = word.partition("=")
        before, after = argv[:number][-1:], argv[number + 1 :][:1]
        if not equals:
            continue
        if not key.strip() and before and "=" not in before[0]:
            parts = [before[0], text or "".join(after)]
        elif not text.strip() and after and not re.match(r"-|\w[\w.]*=", after[0]):
            parts = [key.strip(), after[0]]
        elif key and key != key.strip():
            parts = [key.strip(), text.strip()]
        else:
            continue
        if all(parts):
            right = f"{parts[0]}={shlex.quote(parts[1])}"
            raise ConfigError(f"{parts[0]} = {parts[1]}: no blanks around =: write {right}")


def _parse(key: str, text: str, index: SchemaIndex) -> Any:
    """Lists and mappings are YAML, everything else is the text itself; "null" in quotes is the
    text null."""
    if key not in index.settings or index.settings[key].kind not in (list, dict):
        quoted = text[:1] in ("'", '"') and text[-1:] == text[:1]
        return text[1:-1] if quoted and text[1:-1] in PERHAPS_NOTHING else Written(text)
    try:
        return parse(text)
    except yaml.YAMLError:
        raise ConfigError(
            _invalid(key, text, "command line", index) + "; quote it if it holds blanks"
        ) from None


def _read(path: Path, index: SchemaIndex, prefix: str = "") -> dict[str, Any]:
    """Dotted keys of a YAML file, all below ``prefix``."""
    try:
        content = parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (yaml.YAMLError, OSError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(
            f"{path}: cannot be read as YAML: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(content or {}, dict):
        raise ConfigError(f"{path}: expected key: value lines")
    try:
        return _flatten(content or {}, index, prefix)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _flatten(content: Mapping[Any, Any], index: SchemaIndex, prefix: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in content.items():
        key = f"{prefix}{name}"
        inner = (
            _flatten(value, index, key + ".")
            if key in index.nodes and isinstance(value, dict)
            else {key: value}
        )
        if twice := sorted(inner.keys() & values.keys()):
            raise ConfigError(f"{twice[0]} is given twice: keep one of them")
        values.update(inner)
    return values


def _read_group(group: str, name: Any, source: str, index: SchemaIndex) -> dict[str, Any]:
    if group == "backbone" and name not in _files(group) and is_custom(name):
        try:
            return read_backbone(expand_home(name))
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


def _invalid(key: str, value: Any, source: str, index: SchemaIndex, readings: str = "") -> str:
    setting = index.settings[key]
    return (
        f"{key}={show(value)} ({source}): expected "
        f"{setting.expected}{nearest(str(value), setting.choices)}"
        f"{'; ' if readings else ''}{readings}"
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
