"""Dotted keys from files and words, put onto a schema in order, checked, and made its dataclass."""

from __future__ import annotations

import copy
import dataclasses
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.describe import SchemaIndex, describe
from conf.devices import runs_on_cpu
from conf.schema import MISSING, Run
from conf.sources import (
    FOLDER,
    ConfigError,
    describe_invalid,
    describe_unknown,
    group_file,
    read_file,
    read_group,
    read_words,
    refuse_renamed,
)
from conf.values import Misread, expand_home, read

__all__ = [
    "Layers",
    "escape",
    "literal",
    "lookup",
    "map_text",
    "merge",
    "replace",
    "with_eval_overrides",
]

ESCAPED = re.compile(r"(\\*)\$\{")
R = TypeVar("R", bound=Run)


class Layers:
    """Every setting of a schema as a dotted key with its value so far, and where that came from."""

    def __init__(self, index: SchemaIndex, values: Mapping[str, Any] | None = None) -> None:
        self.index = index
        self.values = dict(_defaults(index.schema) if values is None else values)
        self.origin: dict[str, str] = {}
        self.references: set[str] = set()  # Keys whose value holds ${…}

    def compose(self, layers: list[tuple[str, Mapping[str, Any]]]) -> None:
        """Puts on ``layers`` of (source, settings), group files right after the first of several
        layers."""
        refuse_renamed(layers, self.index)
        picked = {
            key: (source, str(name))
            for source, layer in layers
            for key, name in layer.items()
            if key in self.index.groups
        }
        files = [
            (group_file(group, name), read_group(group, name, source, self.index))
            for group, (source, name) in picked.items()
        ]
        self.origin |= {group: group_file(group, name) for group, (_, name) in picked.items()}
        first = 1 if len(layers) > 1 else 0
        for source, layer in layers[:first] + files + layers[first:]:
            for key, value in layer.items():
                if key not in self.index.groups:
                    self.assign(key, value, source)
        asked = not self.origin.get("backbone.dtype", "").startswith("conf/backbone/")
        # By programs, or on nodes, that may have other devices than this machine
        launched = self.values.get("launch") is not None
        launched |= self.values.get("executor", "local") != "local"
        if not asked and not launched and runs_on_cpu(self.values["trainer.accelerator"]):
            # As it is stored, or as it is meant for GPUs, it would take hours
            self.values["backbone.dtype"] = "float32"

    def assign(self, key: str, value: Any, source: str) -> None:
        """Raises ConfigError for a key that does not exist, or a value of another type."""
        if key not in self.index.settings:
            raise ConfigError(describe_unknown(key, value, source, self.index))
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
            if setting.expands and plain == "" and _defaults(self.index.schema)[key]:
                raise Misread("it is empty, which names no place")
            return map_text(expand_home, plain) if setting.expands else plain
        except Misread as error:
            raise ConfigError(
                describe_invalid(key, value, source, self.index, str(error))
            ) from None

    def read_named(self, key: str, name: str, value: Any) -> Any:
        if name in self.index.nodes:
            return str(value) if isinstance(value, str) else value
        if name not in self.index.settings or self.index.settings[name].kind is dict:
            return map_text(str, value)
        try:
            plain = read(self.index.settings[name].type, value)
            return map_text(expand_home, plain) if self.index.settings[name].expands else plain
        except Misread as error:
            raise ConfigError(describe_invalid(name, value, key, self.index, str(error))) from None

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
            node[name] = map_text(str if key in self.references else escape, value)
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
                raise ConfigError(describe_invalid(key, value, source, self.index))
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


def merge(argv: Sequence[str], preset: Mapping[str, Any], index: SchemaIndex) -> Layers:
    base = read_file(FOLDER / "base.yaml", index)
    words = read_words(argv, index)
    # A group on the command line replaces the sweep's settings of it, except those of the method:
    # they are what the sweep is about.
    replaced = tuple(f"{group}." for group in index.groups if group in words and group != "method")
    preset = {key: value for key, value in preset.items() if not key.startswith(replaced)}
    layers = Layers(index)
    layers.compose([("conf/base.yaml", base), ("sweep", preset), ("command line", words)])
    return layers


def _holds_reference(value: Any) -> bool:
    """Whether a text in it holds ``${…}``."""
    if isinstance(value, str):
        return "${" in value
    parts = value.values() if isinstance(value, Mapping) else value
    return isinstance(value, list | tuple | Mapping) and any(map(_holds_reference, parts))


def escape(text: str) -> str:
    """The text in which ``${`` is no reference."""
    return ESCAPED.sub(lambda found: 2 * found[1] + "\\${", text)


def map_text(change: Callable[[str], str], value: Any) -> Any:
    """A copy of containers in which each text is changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: map_text(change, item) for key, item in value.items()}
    return [map_text(change, item) for item in value] if isinstance(value, list | tuple) else value


def replace(config: R, overrides: Mapping[str, Any], source: str = "override") -> R:
    """A checked copy of ``config`` with some dotted keys changed, or a whole group by the name of
    its file.

    Raises ``ConfigError``, which names ``source`` as the origin of a bad value.
    """
    index = describe(type(config))
    layers = Layers(index, {key: lookup(config, key) for key in index.settings})
    for group in overrides.keys() & set(index.groups):
        layers.values |= _defaults(index.nodes[group], group + ".")
    layers.compose([(source, overrides)])
    parts = {key.partition(".")[0] for key in overrides}
    return layers.finish([key for key in index.settings if key.partition(".")[0] in parts])


def lookup(config: Run, key: str) -> Any:
    """The value of a dotted key."""
    return operator.attrgetter(key)(config)


def literal(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values whose texts are taken as they stand: ``${`` in them is no reference."""
    return map_text(escape, values)


def with_eval_overrides(config: R) -> R:
    """The settings after training: those of ``evaluate_with`` in place."""
    if not config.evaluate_with:
        return config
    before = dataclasses.replace(config, evaluate_with={})
    late = replace(before, literal(config.evaluate_with), "evaluate_with")
    return dataclasses.replace(late, evaluate_with=config.evaluate_with)
