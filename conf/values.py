"""Values as people write them, read by the type of their setting.

A file or a command holds text. What it means is for the type of the setting to say, not for its
form: for text it is that text (``2024_06_01``, ``010``, ``12e4``, ``on``), for a number it is a
plain decimal number. YAML 1.1 reads ``010`` as 8, ``12:30`` as 750 and ``on`` as true; where a
number, true or false is expected, such a word is refused with its readings.
"""

from __future__ import annotations

import argparse
import os
import re
import types
import typing
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

__all__ = [
    "PERHAPS_NOTHING",
    "Misread",
    "Written",
    "dump",
    "expand_home",
    "option",
    "parse",
    "path_option",
    "read",
    "read_word",
]

INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
NUMBER = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
TRUE, FALSE = {"yes", "y", "on", "true"}, {"no", "n", "off", "false"}
# Words for nothing: the one that is read as nothing, and those that may be meant so
NULL = "null"
NOTHING = {"", "~", "null", "Null", "NULL"}
PERHAPS_NOTHING = {*NOTHING, "none", "None", "NONE", "nil"}
# A place below the home of a user, also as the address of a file
HOME = re.compile(r"(sqlite:///|file://)?~")
# Text that every reader of YAML takes for text, without quotes
PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./+-]*( [A-Za-z0-9_./+-]+)*")


class Misread(ValueError):
    """A value that a setting cannot take; the message holds its readings where there are several,
    else nothing."""


class Written(str):
    """Text that stood in a file or command without quotes."""


# --- YAML ---------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """Every scalar is text: ``Written`` without quotes, ``str`` with them. A key that stands twice
    is an error, and so is a tag for another type."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        "<": [(tag, rule) for tag, rule in yaml.SafeLoader.yaml_implicit_resolvers["<"]]
    }
    yaml_constructors = {  # noqa: RUF012
        tag: make
        for tag, make in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in ("seq", "map")
    }

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        self.flatten_mapping(node)
        content: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str) or key in content:
                what = (
                    "found a key that is no text" if not isinstance(key, str) else "duplicate key"
                )
                raise yaml.constructor.ConstructorError(
                    None, None, f"{what}: {key}", key_node.start_mark
                )
            content[str(key)] = self.construct_object(value_node, deep=deep)
        return content

    def construct_text(self, node: Any) -> str:
        text: str = self.construct_scalar(node)
        return text if node.style else Written(text)


_Loader.add_constructor("tag:yaml.org,2002:str", _Loader.construct_text)


def parse(text: str) -> Any:
    """Dictionaries and lists of a YAML text, their leaves as text (see ``Written``).

    Raises yaml.YAMLError.
    """
    return yaml.load(text, Loader=_Loader)  # noqa: S506


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        word = PLAIN.fullmatch(text) and not _is_reserved(text)
        return self.represent_scalar("tag:yaml.org,2002:str", str(text), None if word else '"')


_Dumper.add_multi_representer(str, _Dumper.represent_text)
_Dumper.add_representer(str, _Dumper.represent_text)


def dump(content: Mapping[str, Any]) -> str:
    """Plain containers as YAML that every reader of YAML, ``parse`` and ``read`` take alike: what
    is not plainly text stands in quotes."""
    return yaml.dump(
        content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000, indent=2
    )


def _is_reserved(text: str) -> bool:
    return text in PERHAPS_NOTHING or text.lower() in TRUE | FALSE | {"inf", "nan"}


# --- reading --------------------------------------------------------------------------------------


def read(kind: Any, value: Any) -> Any:
    """``value``, from a file, a command or code, as the type ``kind``: ``int``, ``float``, ``str``,
    ``bool``, ``Any``, lists and dictionaries of them, and unions.

    Raises Misread.
    """
    origin, parts = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return _read_union(parts, value)
    if origin is Any:
        return read_word(value) if isinstance(value, Written) else _read_leaves(value)
    if origin is list:
        if not isinstance(value, list | tuple):
            raise Misread(_suggest_list(value))
        return [_read_part(parts[0] if parts else Any, item) for item in value]
    if origin is dict:
        if not isinstance(value, Mapping):
            raise Misread
        inner = parts[1] if parts else Any
        return {str(key): _read_part(inner, item, f"{key}: ") for key, item in value.items()}
    return _READERS[origin](value)


def expand_home(text: str) -> str:
    """A place, in which ``~`` or ``~name`` at the beginning, also of a file's address, is the home
    of a user. Raises Misread where there is no such user, and for nothing but blanks."""
    if text.isspace():
        raise Misread(f"{text!r} is nothing but blanks, which name no place")
    found = HOME.match(text)
    if found is None:
        return text
    scheme, path = found[1] or "", text[found.end(1) if found[1] else 0 :]
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        user = path.partition("/")[0]
        raise Misread(f"there is no user {user[1:]}: write ./{path} for a folder of that name")
    return scheme + expanded


def read_word(text: str) -> Any:
    """A word whose type nothing tells: a plain number, true, false, null, else text.

    Raises Misread where YAML would read something else than it seems.
    """
    if INTEGER.fullmatch(text):
        return int(text)
    if NUMBER.fullmatch(text):
        return float(text)
    if text in ("true", "false", NULL):
        return {"true": True, "false": False, NULL: None}[text]
    if readings := _readings(text):
        raise Misread(f"{readings}: write that, or put the text in quotes")
    return str(text)


def _read_leaves(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [read(Any, item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): read(Any, item) for key, item in value.items()}
    return value


def _read_part(kind: Any, value: Any, where: str = "") -> Any:
    """Part of a container; an error names it."""
    try:
        return read(kind, value)
    except Misread as error:
        reason = str(error) or f"{_quote(value)} is not allowed there"
        raise Misread(where + reason) from None


def _read_union(parts: tuple[Any, ...], value: Any) -> Any:
    """By the first of several types that fits; text only where no other reading is possible."""
    kinds = [kind for kind in parts if kind is not type(None)]
    if type(None) in parts:
        if value is None or (isinstance(value, Written) and value in (NULL, "")):
            return None
        if isinstance(value, Written) and value in PERHAPS_NOTHING:
            raise Misread(
                f'{value} is nothing, or the text {value}: write null, or "{value}" with the quotes'
            )
    if len(kinds) == 1:
        return read(kinds[0], value)
    if isinstance(value, Written) and str in kinds:
        value = read_word(value)
        kinds = [kind for kind in kinds if kind is not str or isinstance(value, str)]
    for kind in (kind for kind in kinds if kind is type(value)):
        return read(kind, value)
    for kind in kinds:
        try:
            return read(kind, value)
        except Misread:
            continue
    raise Misread


def _read_int(value: Any) -> int:
    if isinstance(value, str):
        if INTEGER.fullmatch(value.strip()):
            return int(value)
        raise Misread(_advise(value.strip(), int))
    if type(value) is int:
        return value
    raise Misread


def _read_float(value: Any) -> float:
    if isinstance(value, str):
        if NUMBER.fullmatch(value.strip()):
            return float(value) + 0.0  # No negative zero
        raise Misread(_advise(value.strip(), float))
    if type(value) in (int, float):
        try:
            return float(value)
        except OverflowError:
            raise Misread from None
    raise Misread


def _read_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        if value.lower() in ("true", "false"):
            return value.lower() == "true"
        raise Misread(_advise(value, bool))
    raise Misread


def _read_text(value: Any) -> str:
    if isinstance(value, Written) and value in NOTHING:
        word = value or "(an empty value)"
        raise Misread(f'{word} is nothing, or the text "{value}": write it with the quotes')
    if isinstance(value, str):
        return str(value)
    if type(value) is int:  # Of code: it has one reading
        return str(value)
    if isinstance(value, bool | float):
        raise Misread(f"{value} is no text in code: put it in quotes")
    raise Misread


_READERS: dict[Any, Any] = {
    int: _read_int,
    float: _read_float,
    bool: _read_bool,
    str: _read_text,
}


def option(
    kind: type, minimum: float | None = None, maximum: float | None = None
) -> Callable[[str], Any]:
    """The ``type=`` of an argparse option that reads ``kind`` as settings do, a number within these
    limits."""

    def read_option(text: str) -> Any:
        try:
            value = read(kind, Written(text))
            if (minimum is None or value >= minimum) and (maximum is None or value <= maximum):
                return value
            raise Misread
        except Misread as error:
            what = {int: "an integer", float: "a number"}.get(kind, kind.__name__)
            ends = {"of at least": minimum, "of at most": maximum}
            limits = [f"{name} {end:,}" for name, end in ends.items() if end is not None]
            what = f"{what} {' and '.join(limits)}".rstrip()
            reason = f"; {error}" if str(error) else ""
            raise argparse.ArgumentTypeError(f"{text}: expected {what}{reason}") from None

    return read_option


def path_option(text: str) -> Path:
    """The ``type=`` of an argparse option that names a file or a folder, as settings name them."""
    try:
        return Path(expand_home(text))
    except Misread as error:
        raise argparse.ArgumentTypeError(str(error)) from None


# --- what a word may mean -------------------------------------------------------------------------


def _advise(text: str, kind: type) -> str:
    """The readings of a word that is refused for ``kind``, and what to write; empty without."""
    plain = NUMBER.fullmatch(text) or text in ("", "true", "false", NULL)
    readings = "" if plain else _readings(text)
    cure = "true or false" if kind is bool else "a plain decimal number"
    return f"{readings}: write {cure}" if readings else ""


def _readings(text: str) -> str:
    """ "010 is 10, or 8 in octal": the readings of a word that YAML 1.1 or code takes for a number,
    true, false or nothing though it is not plainly so; empty for any other."""
    sign, body = (text[:1], text[1:]) if text[:1] in ("-", "+") else ("", text)
    minus = "-" if sign == "-" else ""
    plain = body.replace("_", "")
    if re.fullmatch(r"0[0-9]+", plain):
        decimal = f"{minus}{int(plain)}"
        if re.fullmatch(r"[0-7]+", plain):
            return f"{text} is {decimal}, or {minus}{int(plain, 8)} in octal"
        return f"{text} is {decimal}, or the text {text}"
    for prefix, base, name in (("0x", 16, "hexadecimal"), ("0o", 8, "octal"), ("0b", 2, "binary")):
        digits = "0123456789abcdef"[:base]
        if re.fullmatch(rf"{prefix}[{digits}]+", plain.lower()):
            return f"{text} is {minus}{int(plain[2:], base)} in {name}, or the text {text}"
    if re.fullmatch(r"[0-9]+(:[0-5]?[0-9])+(\.[0-9]*)?", plain):
        total = 0.0
        for part in plain.split(":"):
            total = total * 60 + float(part)
        return f"{text} is {minus}{total:g} in base 60, or the text {text}"
    if NUMBER.fullmatch(sign + plain) or re.fullmatch(r"0[0-9]+\.[0-9]*(e[-+]?[0-9]+)?", plain):
        number = minus + (plain if INTEGER.fullmatch(plain) else f"{float(plain):g}")
        return f"{text} is {number}, or the text {text}"
    if plain.lower() in (".inf", "inf", "infinity", ".nan", "nan"):
        return f"{text} is no finite number, or the text {text}"
    if text.lower() in TRUE | FALSE:
        return f"{text} is {'true' if text.lower() in TRUE else 'false'}, or the text {text}"
    if text in PERHAPS_NOTHING:
        return f"{text or 'an empty value'} is nothing (null), or the text {text or ''}".rstrip()
    return ""


def _suggest_list(value: Any) -> str:
    return f"[{value}] is the list of it" if isinstance(value, str) and value else ""


def _quote(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
