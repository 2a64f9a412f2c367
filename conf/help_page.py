"""The help page of a command that takes settings."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from conf.describe import Setting, describe, nearest, show
from conf.layers import Layers, merge
from conf.schema import Run, Sweep
from conf.sources import FOLDER, ConfigError, group_file, list_group

__all__ = ["help_text"]


def help_text(
    title: str,
    command: str,
    preset: Mapping[str, Any] | None = None,
    schema: type[Run] = Sweep,
    first: Sequence[str] = (),
    flags: Mapping[str, str] | None = None,
    part: str = "",
) -> str:
    """The help page of ``command``: usage, the settings and groups named ``first``, flags, groups
    with their files, then every key with its default, meaning and allowed values.

    With ``part`` (``method``, ``method.gate``, ``trainer.steps``) only what is in that one. Raises
    ConfigError for one that is not there.
    """
    index = describe(schema)
    layers = merge([], preset or {}, index)
    keys = [key for key in index.settings if f"{key}.".startswith(f"{part}." if part else "")]
    if not keys:
        raise ConfigError(
            f"--help {part}: no such setting or group{nearest(part, index.names)}; --help alone "
            "lists all"
        )
    unread = "what no trial reads with the others is refused"
    settings = [f"settings (key=default; ??? has to be given; {unread})"]
    settings += [_setting_line(key, index.settings[key], layers) for key in keys]
    files = ["groups (group=file; * marks the default)"]
    for group in index.groups if not part else {part} & {*index.groups}:
        files += [_file_line(group, name, layers) for name in list_group(group)]
    if part:
        return "\n".join([*([*files, ""] if len(files) > 1 else []), *settings])
    lines = [title, "", f"usage: {command} [group=file] [key=value] …"]
    if first:
        lines += ["", "the words that most commands need"]
        for key in first:
            if key in index.groups:
                chosen = [name for name in list_group(key) if _is_chosen(key, name, layers)]
                lines += [_file_line(key, name, layers) for name in chosen]
            else:
                lines.append(_setting_line(key, index.settings[key], layers))
    if flags:
        lines += ["", "flags", *(f"  {flag:<22}  {about}" for flag, about in flags.items())]
    return "\n".join([*lines, "", *files, "", *settings])


def _setting_line(key: str, setting: Setting, layers: Layers) -> str:
    allowed = setting.expected + _elsewhere(setting)
    return f"  {key + '=' + show(layers.values[key]):<38}  {setting.comment} ({allowed})"


def _is_chosen(group: str, name: str, layers: Layers) -> bool:
    return layers.origin.get(group) == group_file(group, name)


def _file_line(group: str, name: str, layers: Layers) -> str:
    text = (FOLDER.parent / group_file(group, name)).read_text(encoding="utf-8")
    head = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    about = " ".join(line.lstrip("# ") for line in head)
    mark = "*" if _is_chosen(group, name, layers) else " "
    return f"  {mark} {group + '=' + name:<22}  {about}"


def _elsewhere(setting: Setting) -> str:
    """What a default of the embedded world is with other data, or with another backbone."""
    if not setting.embedded:
        return ""
    if not setting.elsewhere:
        return f"; other {setting.embedded}: to be given"
    value = setting.elsewhere[0]
    return f"; other {setting.embedded}: {'its name' if callable(value) else show(value)}"
