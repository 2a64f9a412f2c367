"""The help page of a command that takes settings."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from conf.describe import Setting, describe, show
from conf.layers import merge
from conf.schema import Run, Sweep
from conf.sources import FOLDER, group_file, list_group

__all__ = ["help_text"]


def help_text(
    title: str, command: str, preset: Mapping[str, Any] | None = None, schema: type[Run] = Sweep
) -> str:
    """The help page of ``command``: usage, groups with their files, then every key with its
    default, meaning and allowed values."""
    index = describe(schema)
    layers = merge([], preset or {}, index)
    defaults, origin = layers.values, layers.origin
    lines = [
        title,
        "",
        f"usage: {command} [group=file] [key=value] …",
        "",
        "groups (group=file; * marks the default)",
    ]
    for group in index.groups:
        for name in list_group(group):
            file = group_file(group, name)
            text = (FOLDER.parent / file).read_text(encoding="utf-8")
            head = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
            about = " ".join(line.lstrip("# ") for line in head)
            lines.append(
                f"  {'*' if origin.get(group) == file else ' '} {group + '=' + name:<22}  {about}"
            )
    unread = "what no trial reads with the others is refused"
    lines += ["", f"settings (key=default; ??? has to be given; {unread})"]
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
