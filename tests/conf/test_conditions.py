"""Which settings are read where, and which are searched on a logarithmic scale."""

from __future__ import annotations

from typing import Any

import pytest

from conf import load as conf
from conf.conditions import deciding_keys, why_unread
from conf.describe import describe
from conf.schema import Run

SETTINGS = describe(Run).settings


@pytest.mark.parametrize(
    ("words", "key", "why"),
    [
        ({}, "method.gate.threshold", ""),
        ({"method.gate.mode": "topk"}, "method.gate.threshold", "method.gate.mode=topk"),
        ({"method.gate.mode": "soft"}, "method.gate.threshold", "method.gate.mode=soft"),
        ({}, "method.gate.keep", "method.gate.mode=hard"),
        ({"method.gate.mode": "topk"}, "method.gate.keep", ""),
        ({}, "method.masks.lambda_m", "method.name=maskattn"),
        ({"method": "mcgm"}, "method.masks.lambda_m", ""),
        ({"method.separate.kernel": 1}, "method.separate.sigma", "method.separate.kernel=1"),
        # What decides on it is itself not read
        (
            {"method.gate.supervision": "masks"},
            "method.gate.supervision_density",
            "method.gate.supervision=masks",
        ),
        ({}, "trainer.lr", ""),
        ({}, "recipe", ""),
    ],
)
def test_a_setting_is_unread_by_another(words: dict[str, Any], key: str, why: str) -> None:
    assert why_unread(conf.replace(Run(), words), key) == why


def test_what_is_read_after_training_alone_is_read() -> None:
    config = conf.replace(Run(), {"method.gate.mode": "topk"})
    config.evaluate_with = {"method.gate.mode": "hard"}
    assert why_unread(config, "method.gate.threshold") == ""


def test_conditions_name_settings_and_values_that_there_are() -> None:
    count = 0
    for key, setting in SETTINGS.items():
        for name, values in [*setting.only_if.items(), *setting.unless.items()]:
            other = SETTINGS[f"{key.rpartition('.')[0]}.{name}"]
            assert other.name in [k.rpartition(".")[2] for k in deciding_keys(key)]
            assert values and all(other.allows(value) for value in values), (key, name)
            count += 1
    assert count > 10


def test_rates_and_weights_are_logarithmic_and_nothing_else() -> None:
    def is_rate_or_weight(name: str) -> bool:
        return name in ("lr", "weight_decay", "lambda_m") or name.endswith(("_weight", "_lr"))

    for key, setting in SETTINGS.items():
        numeric = setting.kind in (int, float)
        assert setting.log == (numeric and is_rate_or_weight(setting.name)), key
        if setting.log:
            assert {*setting.limits} & {"minimum", "above"} and min(setting.limits.values()) == 0
