"""Defaults of the embedded world apply to nothing else.

A setting whose default fits the embedded data or the embedded backbone alone is declared so
(`conf.fields.embedded`). With other data or another backbone it takes what the data set declares
(``DataSpec.defaults``), else the value that the setting has ``elsewhere``, else it has to be given.
Values that a sweep sets for the embedded world count as such defaults, too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf.custom_backbone import read_backbone
from conf.describe import SchemaIndex, Setting, show
from conf.schema import SHIPPED
from conf.spec import data_sets, reads_trainer, unread_sections

if TYPE_CHECKING:
    from conf.schema import Run

__all__ = ["defaults_elsewhere", "foreign_parts"]

FOLDER = Path(__file__).parent
EMBEDDED = "embedded"  # The backbone, and the files of settings for the embedded world


def foreign_parts(config: Run) -> set[str]:
    """Which of "data" and "backbone" are not the embedded world's."""
    data = data_sets()[config.data.name].embedded(config)
    parts = {"data": data, "backbone": _is_embedded_backbone(config, data)}
    return {part for part, is_embedded in parts.items() if not is_embedded}


def _is_embedded_backbone(config: Run, data: bool) -> bool:
    """Whether it is the shipped one or, on embedded data, a folder of one that was made like it."""
    path = config.backbone.path
    if path in SHIPPED or not (data and Path(path).is_dir()):
        return path in SHIPPED
    try:
        return read_backbone(path)["backbone.resolution"] == 64
    except ValueError:
        return False


def defaults_elsewhere(
    config: Run,
    given: Collection[str],
    index: SchemaIndex,
    parts: Collection[str],
    required: bool = True,
) -> dict[str, Any]:
    """The defaults that hold in place of those of the embedded ``parts``, for all keys that are not
    ``given``.

    Raises ValueError, in one line, for those that have none, unless they are not ``required``.
    """
    declared = data_sets()[config.data.name].defaults
    changes: dict[str, Any] = {}
    missing: dict[str, Setting] = {}
    for key, setting in index.settings.items():
        if setting.embedded not in parts or key in given:
            continue
        if key in declared:
            changes[key] = declared[key]
        elif setting.elsewhere:
            value = setting.elsewhere[0]
            changes[key] = value(config) if callable(value) else value
        elif _is_read(config, key, given):
            missing[key] = setting
    if missing and required:
        raise ValueError(_explain(config, missing, parts))
    return changes


def _is_read(config: Run, key: str, given: Collection[str]) -> bool:
    """Whether these settings look at ``key`` at all."""
    group = key.partition(".")[0]
    late = config.evaluate_with.get("evaluation.prompts", config.evaluation.prompts)
    if group == "evaluation":
        return late != 0
    if group == "trainer":
        return reads_trainer(config, key)
    unread = (f"method.{section}." for section in unread_sections(config.method.name))
    return not key.startswith(tuple(unread))


def _explain(config: Run, missing: Mapping[str, Setting], parts: Collection[str]) -> str:
    backbone = config.backbone.name if config.backbone.name != EMBEDDED else config.backbone.path
    other = {"data": f"data={config.data.name}", "backbone": f"backbone={backbone}"}
    named = " and ".join(other[part] for part in ("backbone", "data") if part in parts)
    listed = ", ".join(f"{key} ({show(attrgetter(key)(config))})" for key in missing)
    groups = dict.fromkeys(key.partition(".")[0] for key in missing if key[:9] != "backbone.")
    files = [
        f"{group}={' or '.join(names)}"
        for group in groups
        if (names := sorted(f.stem for f in (FOLDER / group).glob("*.yaml") if f.stem != EMBEDDED))
    ]
    cure = f"give each, or a file that does: {'; '.join(files)}" if files else "give each"
    if "backbone.resolution" in missing:
        cure += f"; backbone={config.backbone.path} reads the size of a model"
    return (
        f"with {named} these settings have no default, since theirs fit the embedded world alone: "
        f"{listed}; {cure}"
    )
