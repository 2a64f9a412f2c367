from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from reports.study import Cell, ReportError, Study
from reports.user_study.pairs import common, drawn, fetched, find_cell, pixels, same_pixels


@pytest.fixture
def sides(study: Callable[[str], Study]) -> tuple[Study, Cell, Cell]:
    found = study("threshold")
    return found, find_cell(found, "left", "0.4"), find_cell(found, "right", "untouched backbone")


def test_cells_are_found_as_the_report_names_them(study: Callable[[str], Study]) -> None:
    single, grid = study("threshold"), study("grid")
    assert find_cell(single, "left", "0.4") is find_cell(single, "left", "threshold=0.4")
    assert find_cell(single, "left", "untouched backbone").reference
    combined = find_cell(grid, "left", "bias=2.0, surrogate=released, protect=bos")
    assert combined is find_cell(grid, "left", "2.0 / released / bos")
    with pytest.raises(
        ReportError,
        match="left=0.45: no such cell in 'threshold'; there are: untouched backbone; 0.3; 0.4; 0.5; 0.6; 0.7",
    ):
        find_cell(single, "left", "0.45")
    with pytest.raises(
        ReportError,
        match="there are: untouched backbone; bias=0.0, surrogate=released, protect=none; ",
    ):
        find_cell(grid, "right", "")


def test_pairs_are_of_one_prompt_noise_and_seed(sides: tuple[Study, Cell, Cell]) -> None:
    _, left, right = sides
    pairs = common(*sides)
    assert len(pairs) == 3 * 2 * 6  # seeds, splits, images kept of each
    for pair in pairs:
        both = [cell.trials[pair.seed].samples for cell in (left, right)]
        places = [samples.ids.index(pair.sample) for samples in both if samples]
        assert [
            samples.images[i] for samples, i in zip(both, places, strict=True) if samples
        ] == list(pair.images)
        assert {samples.prompts[i] for samples, i in zip(both, places, strict=True) if samples} == {
            pair.prompt
        }
        assert (
            len({samples.noise[i] for samples, i in zip(both, places, strict=True) if samples}) == 1
        )


@pytest.mark.parametrize("what", ["noise", "prompts", "images"])
def test_what_only_one_cell_has_is_no_pair(what: str, sides: tuple[Study, Cell, Cell]) -> None:
    study, left, right = sides
    samples = left.trials[1].samples
    assert samples is not None
    other = {"noise": [*samples.noise[:1], -1, *samples.noise[2:]], "prompts": [*samples.prompts[:1], "?", *samples.prompts[2:]],
             "images": [*samples.images[:1], None, *samples.images[2:]]}[what]  # fmt: skip
    changed = replace(
        left,
        trials=left.trials
        | {1: replace(left.trials[1], samples=replace(samples, **{what: other}))},
    )
    lost = set(common(*sides)) - set(common(study, changed, right))
    assert [(pair.seed, pair.sample) for pair in lost] == [(1, samples.ids[1])]
    alone = replace(left, trials={1: left.trials[1]})
    assert {pair.seed for pair in common(study, alone, right)} == {1}


def test_the_draw_takes_splits_in_turn_and_each_prompt_before_any_again(
    sides: tuple[Study, Cell, Cell],
) -> None:
    pairs = common(*sides)
    order = drawn(pairs, random.Random(1))
    assert Counter(order) == Counter(pairs) and order != pairs
    assert order == drawn(pairs, random.Random(1)) != drawn(pairs, random.Random(2))
    assert {order[i].split for i in range(0, 36, 2)} != {order[i].split for i in range(1, 36, 2)}
    for split in ("val", "heldout"):
        prompts = [pair.prompt for pair in order if pair.split == split]
        different = len(set(prompts))
        assert len(set(prompts[:different])) == different


def test_files_and_equal_pixels(study: Callable[[str], Study], tmp_path) -> None:
    found = study("grid")
    cells = (
        find_cell(found, "left", "2.0 / released / bos"),
        find_cell(found, "right", "4.0 / released / bos"),
    )
    pair = next(iter(fetched(found, *cells, common(found, *cells))))
    assert pair.masks is not None and not same_pixels(pair)
    assert pixels(pair.images[0]).shape == (64, 64, 3)
    again = tmp_path / "again.webp"  # another file, the same pixels
    Image.fromarray(pixels(pair.images[0])).save(again, lossless=True)
    assert same_pixels(replace(pair, images=(pair.images[0], again)))
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(again)
    assert not same_pixels(replace(pair, images=(pair.images[0], again)))
    missing = replace(pair.pair, images=("samples/none.png", pair.pair.images[1]))
    with pytest.raises(ReportError, match="lacks the artifact samples/none.png"):
        next(fetched(found, *cells, [missing]))
