"""Settings that are read only where others have some values, as their fields declare it with
``only_if`` and ``unless`` (``conf.fields``), and sections that only some methods read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from conf.describe import describe, show
from conf.load import lookup, with_eval_overrides
from conf.schema import Run
from conf.spec import methods, unread_sections

if TYPE_CHECKING:
    from conf.describe import Setting

__all__ = ["deciding_keys", "why_unread"]

METHOD = "method.name"


def deciding_keys(key: str) -> list[str]:
    """The dotted keys of the settings that decide whether ``key`` is read; empty for one that
    always is, and for what is no setting."""
    setting = describe(Run).settings.get(key)
    if setting is None:
        return []
    section = [METHOD] if _of_a_method(key) else []
    return [*section, *dict.fromkeys(name for name, _, _ in _conditions(key, setting))]


def why_unread(config: Run, key: str) -> str:
    """The setting of ``config`` by which ``key`` is read neither in training nor afterwards, as
    KEY=VALUE; empty where it is read."""
    return _why_unread(config, key) and _why_unread(with_eval_overrides(config), key)


def _why_unread(config: Run, key: str) -> str:
    setting = describe(Run).settings.get(key)
    if setting is None:
        return ""
    if _of_a_method(key) and key.split(".")[1] in unread_sections(config.method.name):
        return f"{METHOD}={config.method.name}"
    for name, values, wanted in _conditions(key, setting):
        value = lookup(config, name)
        if (value in values) is not wanted:
            return f"{name}={show(value)}"
        if why := _why_unread(config, name):  # What decides is itself read nowhere
            return why
    return ""


def _conditions(key: str, setting: Setting) -> Iterator[tuple[str, Sequence[Any], bool]]:
    """Key, values, and whether it must or must not have one of them."""
    section = key.rpartition(".")[0]
    for conditions, wanted in ((setting.only_if, True), (setting.unless, False)):
        for name, values in conditions.items():
            yield f"{section}.{name}", values, wanted


def _of_a_method(key: str) -> bool:
    sections = {section for method in methods().values() for section in method.settings}
    return key.startswith(tuple(f"method.{section}." for section in sections))
