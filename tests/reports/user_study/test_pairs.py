from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reports.results import CellResults, ReportError
from reports.user_study.pairs import (
    fetch_pairs,
    find_cell,
    list_pairs,
    read_pixels,
    shuffle_pairs,
)

Cells = tuple[CellResults, CellResults]


@pytest.fixture
def cells(results: Any) -> Cells:
    names = ("0.4", "untouched backbone")
    left, right = (find_cell(results("threshold"), "left", name) for name in names)
    return left, right


def test_cells_are_named_as_in_the_report(results: Any) -> None:
    single, grid = results("threshold"), results("grid")
    assert find_cell(single, "left", "0.4") is find_cell(single, "left", "threshold=0.4")
    assert find_cell(single, "left", "untouched backbone").untouched
    combined = find_cell(grid, "left", "bias=2.0, surrogate=released, protect=bos")
    assert combined is find_cell(grid, "left", "2.0 / released / bos")
    with pytest.raises(ReportError, match="left=0.45: no such cell.* untouched backbone; 0.3; 0.4"):
        find_cell(single, "left", "0.45")
    with pytest.raises(ReportError, match="bias=0.0, surrogate=released, protect=none; "):
        find_cell(grid, "right", "")


def test_pairs_are_of_one_prompt_noise_and_seed(cells: Cells) -> None:
    pairs = list_pairs(*cells)
    assert len(pairs) == 3 * 2 * 6  # Seeds, splits, images kept of each
    for pair in pairs:
        rows = []
        for cell in cells:
            samples = cell.trials[pair.seed].samples
            assert samples is not None
            i = samples.ids.index(pair.sample)
            rows.append((samples.images[i], samples.prompts[i], samples.noise[i]))
        images, prompts, noise = zip(*rows, strict=True)
        assert images == pair.images and set(prompts) == {pair.prompt} and len(set(noise)) == 1


@pytest.mark.parametrize(("column", "value"), [("noise", -1), ("prompts", "?"), ("images", None)])
def test_what_only_one_cell_has_is_no_pair(column: str, value: Any, cells: Cells) -> None:
    left, right = cells
    trial = left.trials[1]
    other = list(getattr(trial.samples, column))
    other[1] = value
    samples = replace(trial.samples, **{column: other})  # type: ignore[type-var]
    changed = replace(left, trials=left.trials | {1: replace(trial, samples=samples)})
    lost = set(list_pairs(left, right)) - set(list_pairs(changed, right))
    assert [(pair.seed, pair.sample) for pair in lost] == [(1, samples.ids[1])]
    alone = replace(left, trials={1: trial})
    assert {pair.seed for pair in list_pairs(alone, right)} == {1}


def test_the_draw_takes_splits_in_turn_and_each_prompt_before_any_again(cells: Cells) -> None:
    pairs = list_pairs(*cells)
    first, again, other = (shuffle_pairs(pairs, random.Random(seed)) for seed in (1, 1, 2))
    assert Counter(first) == Counter(pairs) and first != pairs
    assert first == again != other
    assert {pair.split for pair in first[::2]} != {pair.split for pair in first[1::2]}
    for split in ("val", "heldout"):
        prompts = [pair.prompt for pair in first if pair.split == split]
        different = len(set(prompts))
        assert len(set(prompts[:different])) == different


def test_files_and_equal_pixels(results: Any, tmp_path: Path) -> None:
    grid = results("grid")
    left, right = (find_cell(grid, "left", f"{x} / released / bos") for x in ("2.0", "4.0"))
    files = next(fetch_pairs(grid, left, right, list_pairs(left, right)))
    assert files.masks is not None and not files.have_equal_pixels()
    first = read_pixels(files.images[0])
    assert first.shape == (64, 64, 3)
    again = tmp_path / "again.webp"  # Another file, the same pixels
    Image.fromarray(first).save(again, lossless=True)
    assert replace(files, images=(files.images[0], again)).have_equal_pixels()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(again)
    assert not replace(files, images=(files.images[0], again)).have_equal_pixels()
    missing = replace(files.pair, images=("samples/none.png", files.pair.images[1]))
    with pytest.raises(ReportError, match="lacks the artifact samples/none.png"):
        next(fetch_pairs(grid, left, right, [missing]))
