"""What the schema allows, in code and in words: the source of every check, error message and help
page."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import inspect
import itertools
import math
import operator
import textwrap
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conf.fields import Place

__all__ = ["SchemaIndex", "Setting", "describe", "nearest", "show", "show_count"]

KINDS = {
    int: "an integer",
    float: "a number",
    str: "text",
    bool: "true or false",
    list: "a list [a, b]",
    dict: "a mapping {key: value}",
}
LIMITS = {
    "minimum": ("of at least", operator.ge),
    "maximum": ("of at most", operator.le),
    "above": ("above", operator.gt),
    "below": ("below", operator.lt),
}


@dataclass(frozen=True)
class Setting:
    """One dotted key of the schema."""

    owner: type
    name: str
    type: Any
    choices: tuple[str, ...]
    limits: Mapping[str, float]
    unread: bool = False  # Its parts stay as they were written
    place: Place | None = None
    expands: bool = False  # ~ in it is the home of a user
    # The part of the embedded world ("data", "backbone") that the default fits alone; "": all
    embedded: str = ""
    # The default with other parts, as a tuple of one; empty: it has to be given
    elsewhere: tuple[Any, ...] = ()
    log: bool = False  # Searched on a logarithmic scale
    # Settings of the section -> the values with one of which this one is read, or is not
    only_if: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    unless: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    # Those with one of which images depend on it, and not only what they are measured against
    draws_if: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @property
    def comment(self) -> str:
        return _comments(self.owner).get(self.name, "")

    @property
    def optional(self) -> bool:
        return isinstance(self.type, types.UnionType)

    @property
    def kind(self) -> Any:
        """The plain type of a value: ``float | None`` is float, ``list[str]`` is list."""
        inner = typing.get_args(self.type)[0] if self.optional else self.type
        return typing.get_origin(inner) or inner

    @property
    def expected(self) -> str:
        if self.choices:
            return "one of " + ", ".join(self.choices)
        limits = " and ".join(
            f"{LIMITS[name][0]} {_show_limit(limit)}" for name, limit in self.limits.items()
        )
        return " ".join(
            filter(None, [KINDS[self.kind], limits, "or null" if self.optional else ""])
        )

    def allows(self, value: Any) -> bool:
        """Whether a value of the right type lies within choices and limits."""
        if value is None:
            return self.optional
        if isinstance(value, float) and not math.isfinite(value):
            return False
        return (not self.choices or value in self.choices) and all(
            LIMITS[name][1](value, limit) for name, limit in self.limits.items()
        )


@dataclass(frozen=True)
class SchemaIndex:
    """The dotted keys of a schema, in its order."""

    schema: type
    settings: dict[str, Setting]  # Keys that take a value
    nodes: dict[str, type]  # Keys that only hold others

    @property
    def groups(self) -> list[str]:
        """The keys that a file of ``conf/<group>/`` fills."""
        folder = Path(__file__).parent
        return [node for node in self.nodes if "." not in node and (folder / node).is_dir()]

    @property
    def names(self) -> list[str]:
        return [*self.nodes, *self.settings]


def describe(schema: type, prefix: str = "") -> SchemaIndex:
    """The settings of a dataclass and of the dataclasses in it."""
    return _index(schema, prefix)


@functools.cache
def _index(schema: type, prefix: str) -> SchemaIndex:
    index, hints = SchemaIndex(schema, {}, {}), typing.get_type_hints(schema)
    for item in dataclasses.fields(schema):
        key, hint = prefix + item.name, hints[item.name]
        if dataclasses.is_dataclass(hint):
            inner = describe(typing.cast(type, hint), key + ".")
            index.nodes.update({key: inner.schema, **inner.nodes})
            index.settings.update(inner.settings)
        else:
            index.settings[key] = Setting(
                schema,
                item.name,
                hint,
                item.metadata.get("choices", ()),
                item.metadata.get("limits", {}),
                item.metadata.get("unread", False),
                item.metadata.get("place"),
                item.metadata.get("expands", False),
                item.metadata.get("embedded", ""),
                (item.metadata["elsewhere"],) if "elsewhere" in item.metadata else (),
                item.metadata.get("log", False),
                item.metadata.get("only_if", {}),
                item.metadata.get("unless", {}),
                item.metadata.get("draws_if", {}),
            )
    return index


@functools.cache
def _comments(schema: type) -> dict[str, str]:
    """Field -> the comment lines above it in the source (or behind it), inherited ones included."""
    comments: dict[str, str] = {}
    for owner in schema.__mro__[-2::-1]:  # From the eldest ancestor below ``object``
        try:
            source = textwrap.dedent(inspect.getsource(owner))
        except (OSError, TypeError):  # Composed by ``make_dataclass``: it has no source
            continue
        lines = source.splitlines()
        for node in typing.cast(ast.ClassDef, ast.parse(source).body[0]).body:
            if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
                continue
            above = itertools.takewhile(
                lambda line: line.lstrip().startswith("#"), reversed(lines[: node.lineno - 1])
            )
            comment = " ".join(line.lstrip("# ") for line in reversed([*above]))
            behind = lines[(node.end_lineno or 1) - 1].encode()[node.end_col_offset :].decode()
            comments[node.target.id] = comment or behind.lstrip("# ")
    return comments


def nearest(word: str, names: Iterable[str]) -> str:
    """ "; did you mean …?" with the name most like ``word``, as a whole and in its last part, small
    letters as large ones; empty where none is similar."""
    word = word.lower()

    def likeness(name: str) -> float:
        name = name.lower()
        pairs = ((word, name), (word.rpartition(".")[2], name.rpartition(".")[2]))
        return sum(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)

    best = max(names, key=likeness, default="")
    return f"; did you mean {best}?" if best and likeness(best) > 1.2 else ""


def show(value: Any) -> str:
    """A value as one would type it, on one line."""
    if isinstance(value, list):
        return "[" + ", ".join(map(show, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {show(item)}" for key, item in value.items()) + "}"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else " ".join(str(value).split())


def _show_limit(limit: float) -> str:
    return f"{limit:,}" if isinstance(limit, int) else f"{limit:,.10g}"


def show_count(n: int, noun: str, plural: str = "") -> str:
    """1 trial, 2 trials; ``plural`` where that is not the noun and an s."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"
