from __future__ import annotations

import dataclasses
import re

from conf.describe import describe
from conf.schema import Run, Sweep


def test_every_setting_has_a_help_text() -> None:
    texts = {key: setting.comment for key, setting in describe(Sweep).settings.items()}
    start = re.compile(r'[A-Z0-9"]|[\w= ]+: ')  # A capital letter, or the condition it holds under
    assert [key for key, text in texts.items() if not start.match(text)] == []


def test_help_is_the_comment_above_a_field_in_any_schema() -> None:
    settings = describe(Extended).settings
    assert settings["above"].comment == "Of its own # kept"
    assert settings["two_lines"].comment == "The first line and the second"
    assert settings["none"].comment == ""
    assert settings["seed"].comment == describe(Run).settings["seed"].comment != ""


def test_a_composed_schema_keeps_the_help_of_its_parts() -> None:
    composed = dataclasses.make_dataclass(
        "Composed", [("run", Run, dataclasses.field(default_factory=Run))], bases=(Extended,)
    )
    index = describe(composed)
    assert index.settings["run.seed"].comment == describe(Run).settings["seed"].comment
    assert index.settings["above"].comment == "Of its own # kept"
    assert index.nodes["run"] is Run


@dataclasses.dataclass
class Extended(Run):
    # A line that belongs to no field

    # Of its own # kept
    above: str = "#"
    # The first line
    # and the second
    two_lines: list[str] = dataclasses.field(
        default_factory=lambda: ["# no comment"],
    )

    none: int = 0
