"""An old name of a setting is refused with its new name, wherever it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf import load as conf
from conf import renamed
from conf.describe import describe
from conf.load import ConfigError
from conf.schema import Run, Sweep

SETTINGS = describe(Sweep).settings


@pytest.mark.parametrize(("old", "new"), renamed.KEYS.items())
def test_an_old_key_is_refused_with_the_new_one(old: str, new: str) -> None:
    assert new in SETTINGS and old not in SETTINGS
    with pytest.raises(ConfigError, match=rf"{old}=x \(command line\) is now {new}=x"):
        conf.load([f"{old}=x"])


@pytest.mark.parametrize("key", renamed.GONE)
def test_a_setting_that_went_is_refused_with_what_does_its_work(key: str) -> None:
    assert key not in SETTINGS
    with pytest.raises(ConfigError, match=f"^{key} .command line. is no setting any more: ") as no:
        conf.load([f"{key}=postgresql://me:secret@host/db"])
    assert renamed.GONE[key] in str(no.value) and "secret" not in str(no.value)


@pytest.mark.parametrize(("key", "old", "new"), [(*at, new) for at, new in renamed.VALUES.items()])
def test_an_old_value_is_refused_with_the_new_one(key: str, old: str, new: str) -> None:
    assert key == "method" or new in SETTINGS[key].choices
    with pytest.raises(ConfigError, match=f"{key}={old}.* is now {key}={new}"):
        conf.load([f"{key}={old}"])


def test_old_names_are_refused_in_files_presets_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("method: {name: baseline, gate: {surrogate: secant, signal: masks}}\n")
    with pytest.raises(ConfigError) as caught:
        conf.read_run(path)
    text = str(caught.value)
    assert str(path) in text and "\n" not in text
    for now in ("name=untouched", "gate.gradient=finite_difference", "gate.supervision=masks"):
        assert f"is now method.{now}" in text
    old = {"method.gate.surrogate": "renormalised"}
    for refuse in (
        lambda: conf.load([], old),
        lambda: conf.replace(Run(), old),
        lambda: conf.replace(Run(), {"method": "baseline"}),
        lambda: conf.load(["evaluate_with={method.gate.signal: none}"]),
    ):
        with pytest.raises(ConfigError, match="is now method"):
            refuse()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_no_number_is_no_old_name(number: float) -> None:
    key, expected = "method.gate.threshold", "expected a number"
    for refuse in (
        lambda: conf.replace(Run(), {key: number}, "adapter.json"),
        lambda: conf.load([], {key: number}),
        lambda: conf.with_eval_overrides(Run(evaluate_with={key: number})),
    ):
        with pytest.raises(ConfigError) as caught:
            refuse()
        text = str(caught.value)
        assert f"{key}={number}" in text and expected in text and "renamed" not in text, text
