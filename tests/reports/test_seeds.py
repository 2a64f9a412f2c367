"""What is said of seeds follows what cells differ in, and what was recorded of images."""

from __future__ import annotations

import dataclasses
from typing import Any

from reports.results import SweptFactor
from reports.seeds import describe_noise, explain_seeds


def test_a_seed_fixes_what_cells_do_not_differ_in(changeable: Any) -> None:
    results = changeable("threshold")
    alike = "training order, noise of training, noise of images and prompts alike in every cell"
    assert alike in explain_seeds(results) and "All seeds" not in explain_seeds(results)
    results.config |= {"data_seed": 0, "init_seed": 7, "sampling_seed": None, "prompt_seed": 3}
    fixed = "All seeds had init_seed=7 (initial weights) and data_seed=0 (training order):"
    assert fixed in explain_seeds(results)
    factor: SweptFactor = dataclasses.replace(results.factors[0], key="data_seed")
    results.factors[:] = [factor]
    text = explain_seeds(results)
    assert "fixes noise of training, noise of images and prompts alike" in text
    assert "init_seed=7" in text and "data_seed=" not in text


def test_noise_is_the_same_unless_a_record_says_otherwise(changeable: Any) -> None:
    results = changeable("threshold")
    assert describe_noise(results) == "same noise"
    samples = results.levels[-1].trials[1].samples
    samples.noise[3] = None
    assert describe_noise(results) == "same noise"
    for cell in results.cells:
        cell.trials[1].samples.noise[:] = range(32)
    assert describe_noise(results) == "same noise"
    samples.noise[3] = 999
    assert describe_noise(results) == "noise of each cell's own"
