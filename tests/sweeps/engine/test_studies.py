"""Which settings part results from each other."""

from __future__ import annotations

import pytest

from conf import load as conf
from sweeps.engine.resolve import resolve
from sweeps.engine.studies import result_settings
from sweeps.methods import SWEEP as METHODS
from sweeps.sweep import Sweep
from sweeps.threshold import SWEEP


def settings(sweep: Sweep, *words: str) -> dict[str, object]:
    request = resolve(sweep, conf.load(words, sweep.preset), words)
    return result_settings(request.sweep, request.config)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            [],
            ["seed=3", "seeds=1", "retries=4", "output=elsewhere", "workers=2", "mode=one_factor"],
        ),
        ([], ["evaluation.draw_only=true"]),
        ([], ["levels=[0.1,0.9]", "trainer.log_every=7", "data.workers=1"]),
        (["trainer.batch=16"], ["trainer.batch=8", "trainer.devices=2"]),
    ],
)
def test_what_changes_no_number_parts_nothing(one: list[str], other: list[str]) -> None:
    assert settings(SWEEP, *one) == settings(SWEEP, *other)


def test_settings_of_another_method_part_nothing() -> None:
    """As those of a method that is added later."""
    one, other = (conf.load(w, SWEEP.preset) for w in ([], ["method.masks.lambda_m=0.2"]))
    assert result_settings(SWEEP, one) == result_settings(SWEEP, other)


@pytest.mark.parametrize(
    "word", ["trainer.batch=8", "trainer.devices=2", "evaluation.steps=9", "when=evaluate"]
)
def test_what_changes_a_number_parts_studies(word: str) -> None:
    assert settings(SWEEP, word) != settings(SWEEP)


def test_so_does_what_levels_stand_for() -> None:
    before, after = settings(METHODS), settings(METHODS, "method.gate.threshold=0.4")
    assert before.keys() >= {"levels of recipe", "trainer.steps"} and before != after
    assert "method.masks.lambda_m" in before
