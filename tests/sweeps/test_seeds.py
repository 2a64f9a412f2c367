"""Seeds set apart as factors of a sweep and as words of a command: what shares an adapter, a study,
a row in MLflow."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from helpers.sweep_states import SWEEP, runs

from conf import load as conf
from conf.schema import MAX_SEED
from conf.seeds import SEEDS, TRAINING_SEEDS, resolve_seeds
from sweeps.command import main
from sweeps.engine.errors import PlanError
from sweeps.engine.request import Request
from sweeps.engine.resolve import resolve
from sweeps.engine.studies import result_settings
from sweeps.sweep import UNTOUCHED, Factor, Sweep


def over(key: str, levels: list[Any], when: str = "train") -> Sweep:
    factor = Factor(key, levels, when=when)
    return dataclasses.replace(SWEEP, factors=[factor], control={key: levels[0]})


def request(sweep: Sweep, *words: str) -> Request:
    return resolve(sweep, conf.load(words, sweep.preset), words)


@pytest.mark.parametrize(
    ("key", "when"),
    [
        *((key, "train") for key in SEEDS),
        ("sampling_seed", "evaluate"),
        ("prompt_seed", "evaluate"),
    ],
)
def test_a_seed_is_a_factor_and_trials_share_what_it_does_not_reach(key: str, when: str) -> None:
    asked = request(over(key, [0, 1, 2], when), "seeds=2")
    cells = [f"{key}={level}" for level in range(3)]
    assert [cell.text for cell in asked.cells] == [UNTOUCHED, *cells]
    adapters = {asked.adapter((cell, seed)) for cell in cells for seed in (0, 1)}
    # The cell whose level is the trial's own seed trains as without it
    assert len(adapters) == (6 if key in TRAINING_SEEDS else 2)
    for cell, level in zip(cells, range(3), strict=True):
        late = conf.with_eval_overrides(asked.run((cell, 1)))
        wanted = dict(zip(SEEDS, (1, 1, 1, 1, None), strict=True)) | {key: level}
        assert dict(zip(SEEDS, resolve_seeds(late), strict=True)) == wanted


@pytest.mark.parametrize("key", TRAINING_SEEDS)
def test_what_training_began_with_is_refused_as_a_factor_of_evaluation(key: str) -> None:
    with pytest.raises(PlanError, match=rf"{key} cannot change after training.*when=train"):
        request(over(key, [0, 1], "evaluate"))


def test_levels_and_words_that_are_no_seed_are_refused() -> None:
    for level in (-1, MAX_SEED + 1, "x"):
        with pytest.raises(conf.ConfigError, match=rf"sampling_seed={level} \(levels\)"):
            request(over("sampling_seed", [0, level]))
    with pytest.raises(PlanError, match="varies seed, which numbers the trials.*sampling_seed"):
        request(over("seed", [0, 1]))
    with pytest.raises(PlanError, match="sampling_seed is what this sweep varies"):
        request(over("sampling_seed", [0, 1]), "sampling_seed=3")


def test_words_hold_for_every_trial_and_make_another_study() -> None:
    plain, fixed = request(SWEEP, "seeds=2"), request(SWEEP, "seeds=2", "sampling_seed=7")
    key = "threshold=0.4", 1
    assert plain.adapter(key) == fixed.adapter(key)
    assert resolve_seeds(fixed.run(key)) == (1, 1, 1, 7, None)
    settings = [result_settings(SWEEP, asked.config) for asked in (plain, fixed)]
    assert settings[1] == settings[0] | {"sampling_seed": 7}
    assert not settings[0].keys() & {*SEEDS}, "as before there were seeds apart"
    # Each seed of the sweep draws the same order of images and of prompts
    shown = request(SWEEP, "seeds=2", "data_seed=7")
    assert [resolve_seeds(shown.run((key[0], seed))).data for seed in (0, 1)] == [7, 7]
    assert plain.adapter(key) != shown.adapter(key)


def test_seeds_that_are_set_apart_are_parameters_in_mlflow(
    output: Path, trainer: Any, reports: list[str], mlflow: Any
) -> None:
    sweep = over("sampling_seed", [0, 1], "evaluate")
    words = [f"output={output}", "seeds=1", "data_seed=4"]
    assert main(sweep, words, train=trainer) == 0
    found = {run.data.tags["cell"]: run.data.params for run in runs(mlflow, "seed")}
    wanted = {"seed": "0", "data_seed": "4", "sampling_seed": "1"}
    assert wanted.items() <= found["sampling_seed=1"].items()
    assert found[UNTOUCHED].keys() & {*SEEDS} == {"data_seed"}
