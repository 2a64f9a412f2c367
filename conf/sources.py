"""Where settings are written down: words of a command line and YAML files, read into dotted keys;
and what is said of a key or a value that does not exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from conf.custom_backbone import is_custom, read_backbone
from conf.describe import SchemaIndex, nearest, show
from conf.renamed import GONE, current
from conf.values import PERHAPS_NOTHING, Written, expand_home, parse

__all__ = [
    "FOLDER",
    "ConfigError",
    "MissingDefault",
    "describe_invalid",
    "describe_unknown",
    "group_file",
    "list_group",
    "read_file",
    "read_group",
    "read_words",
    "refuse_renamed",
    "suggest_word",
]

FOLDER = Path(__file__).parent


class ConfigError(ValueError):
    """A setting that cannot be used; the message is one line."""


class MissingDefault(ConfigError):
    """A setting has no default outside the embedded world, and was not given."""


def refuse_renamed(layers: list[tuple[str, Mapping[str, Any]]], index: SchemaIndex) -> None:
    """Raises ConfigError with the new names of all settings and values that were renamed, and for
    those that went."""
    old = []
    for source, layer in layers:
        for key, value in layer.items():
            if key in GONE and key not in index.settings:
                raise ConfigError(f"{key} ({source}) is no setting any more: {GONE[key]}")
            new, new_value = current(key, value)
            # Not !=, by which a NaN would differ from itself
            if (new != key and key not in index.settings) or new_value is not value:
                old.append(f"{key}={show(value)} ({source}) is now {new}={show(new_value)}")
    if old:
        raise ConfigError("renamed: " + "; ".join(old))


def read_words(argv: Sequence[str], index: SchemaIndex) -> dict[str, Any]:
    """``key=value`` words of a command line, each value parsed as its key expects."""
    _refuse_blanks(argv)
    values = {}
    for number, word in enumerate(argv):
        key, equals, text = word.partition("=")
        if key in index.settings and equals and not text:
            nothing = f"; {key}=null for none" if index.settings[key].optional else ""
            raise ConfigError(f"{word} has no value: expected key=value{nothing}")
        if word.startswith("-") or not (equals and key and text):
            near = suggest_word(argv[number:], index) or nearest(key.lstrip("-"), index.names)
            raise ConfigError(f"{word}: expected key=value, --help lists all keys{near}")
        values[key] = _parse(key, text, index)
    return values


def suggest_word(argv: Sequence[str], index: SchemaIndex) -> str:
    """ "; write seeds=1" where the first word names a setting in another form, as --seeds=1,
    seeds:1 or, with the second, seeds 1; else empty."""
    name, between, value = re.split(r"([=:]|$)", argv[0].lstrip("-"), maxsplit=1)
    name = name.replace("-", "_")
    if name not in index.names:
        return ""
    if not between and not value and argv[1:] and "=" not in argv[1]:
        value = argv[1]
    return f"; write {name}={shlex.quote(value) if value else '…'}"


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
            describe_invalid(key, text, "command line", index) + "; quote it if it holds blanks"
        ) from None


def read_file(path: Path, index: SchemaIndex, prefix: str = "") -> dict[str, Any]:
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


def read_group(group: str, name: Any, source: str, index: SchemaIndex) -> dict[str, Any]:
    if group == "backbone" and name not in list_group(group) and is_custom(name):
        try:
            return read_backbone(expand_home(name))
        except ValueError as error:
            raise ConfigError(f"backbone={name} ({source}): {error}") from None
    if name not in list_group(group):
        where = f"conf/{group}/ holds {', '.join(list_group(group))}"
        raise ConfigError(
            f"{group}={show(name)} ({source}): no such file; "
            f"{where}{nearest(str(name), list_group(group))}"
        )
    values = read_file(FOLDER / group / f"{name}.yaml", index, group + ".")
    # A section that is named like another group is that group's
    for other in index.groups:
        section = values.pop(f"{group}.{other}", {})
        values |= {f"{other}.{key}": value for key, value in section.items()}
    return values


def list_group(group: str) -> list[str]:
    return sorted(path.stem for path in (FOLDER / group).glob("*.yaml"))


def group_file(group: str, name: str) -> str:
    return f"conf/{group}/{name}.yaml"


def describe_invalid(
    key: str, value: Any, source: str, index: SchemaIndex, readings: str = ""
) -> str:
    setting = index.settings[key]
    return (
        f"{key}={show(value)} ({source}): expected "
        f"{setting.expected}{nearest(str(value), setting.choices)}"
        f"{'; ' if readings else ''}{readings}"
    )


def describe_unknown(key: str, value: Any, source: str, index: SchemaIndex) -> str:
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
