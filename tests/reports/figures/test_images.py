from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reports import prose
from reports.figures import images, maps, style


def test_prompts_are_selected_by_the_stated_rule() -> None:
    cells = ["11100010", "11001010", "10001010", "11010010"]
    outcomes = np.array([[int(right) for right in cell] for cell in cells])
    splits = ["val"] * 4 + ["heldout"] * 4
    # Share right: 1, .75, .25, .25, .5, 0, 1, 0 -> disagreement highest at 4, then 1, 2, 3 in order
    # 4 and 1 by disagreement, 0 and 5 the first left of each split
    assert images.select_prompts(outcomes, splits, 4) == [0, 1, 4, 5]
    assert images.select_prompts(outcomes, splits, 2) == [0, 4]
    # Nobody disagrees: the first of each split
    assert images.select_prompts(np.ones((3, 3)), ["a", "a", "b"], 2) == [0, 2]
    assert images.select_prompts(np.ones((3, 1)), ["a"], 6) == [0]


def test_the_caption_names_rule_and_seed(results: Any, tmp_path: Path, written: Any) -> None:
    picture = images.draw_image_grid(results("threshold"), tmp_path)
    assert picture is not None and "(seed 0)" in picture.caption
    assert "among the 12 prompts" in picture.caption and "Outlines" not in picture.caption
    assert "3 on which the cells disagree most" in picture.caption
    texts = [text for _, _, text in written]
    assert texts.count("✓") + texts.count("✗") == 6 * 6


def test_where_cells_agree_the_caption_says_so(changeable: Any, tmp_path: Path) -> None:
    results = changeable("threshold")
    for _, trial in results.trials():
        trial.samples.success[:] = [True] * len(trial.samples.success)
    picture = images.draw_image_grid(results, tmp_path)
    assert picture is not None and "0 on which" not in picture.caption
    assert "the first of each split, since the cells disagree on none" in picture.caption


def test_marks_say_whether_the_image_above_is_right(
    results: Any, tmp_path: Path, written: Any
) -> None:
    threshold = results("threshold")
    trial = threshold.control.trials[0]
    with style.new_canvas(2.0) as (_, axes):
        for key in trial.samples.ids[:6]:
            images.draw_sample(axes, threshold, trial, key, 0.0, 0.0, 1.0)
    marks = [text == "✓" for _, _, text in written]
    assert marks == trial.samples.success[:6] and len(axes.images) == 6
    left, right, bottom, top = axes.images[0].get_extent()
    assert left < right and top < bottom  # Y runs downwards


def test_many_cells_are_shown_in_bands_and_targets_outlined(
    results: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outlined: list[np.ndarray] = []
    monkeypatch.setattr(images, "draw_outline", lambda axes, mask, extent: outlined.append(mask))
    picture = images.draw_image_grid(results("grid"), tmp_path)
    # Two prompts in each of three bands
    assert picture is not None and "1 on which the cells disagree most" in picture.caption
    assert picture.caption.endswith("Outlines: where the objects should be.")
    assert len(outlined) == 2 * 19 and all(set(np.unique(m)) == {0, 1, 2} for m in outlined)
    shown = Image.open(tmp_path / "images.png")
    assert shown.width == round(60 * style.WIDTH) and shown.height < 60 * 9.5  # A page


def test_an_outline_lies_where_its_object_ends() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[10:30, 5:25] = 2
    with style.new_canvas(2.0) as (_, axes):
        images.draw_outline(axes, mask, (1.0, 2.0, 1.0, 0.0))
        points = np.concatenate([path.vertices for c in axes.collections for path in c.get_paths()])
    low, high = points.min(axis=0), points.max(axis=0)
    assert low == pytest.approx([1 + 5 / 64, 10 / 64], abs=0.01)
    assert high == pytest.approx([1 + 25 / 64, 30 / 64], abs=0.01)


def test_without_images_or_maps_there_are_no_pictures(results: Any, tmp_path: Path) -> None:
    clear = results("clear")
    assert images.draw_image_grid(clear, tmp_path) is None
    assert maps.copy_gate_maps(clear, tmp_path) is None
    assert maps.draw_attention_maps(results("threshold"), tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_without_a_judge_images_have_no_marks(
    changeable: Any, tmp_path: Path, written: Any
) -> None:
    results = changeable("threshold")
    for _, trial in results.trials():
        trial.samples.success[:] = [None] * 32
    picture = images.draw_image_grid(results, tmp_path)
    assert picture is not None and "✓" not in picture.caption
    assert not {text for _, _, text in written} & {"✓", "✗"}


def test_a_cell_without_the_seed_is_named(changeable: Any, tmp_path: Path, written: Any) -> None:
    results = changeable("threshold")
    del results.levels[0].trials[0]
    for seed, cell in enumerate(results.levels[1:4]):
        del cell.trials[seed]
    picture = images.draw_image_grid(results, tmp_path)
    assert picture is not None and "(seed 1)" in picture.caption  # The first that most cells have
    assert [text for _, _, text in written].count("seed 1\nmissing") == 6


def test_gate_maps_are_those_of_the_control(results: Any, tmp_path: Path) -> None:
    threshold = results("threshold")
    picture = maps.copy_gate_maps(threshold, tmp_path)
    assert picture is not None and "control level 0.5, seed 0" in picture.caption
    assert "N = 2 prompts" in picture.caption
    logged = threshold.fetch(threshold.control.trials[0], "gates.png")
    assert (tmp_path / "gates.png").read_bytes() == logged.read_bytes()


def test_attention_maps_stand_side_by_side_under_their_names(
    results: Any, tmp_path: Path, written: Any
) -> None:
    grid = results("grid")
    picture = maps.draw_attention_maps(grid, tmp_path)
    assert picture is not None and "seed 0" in picture.caption and "N = 1" in picture.caption
    names = [text.replace("\n", " ") for _, _, text in written]
    assert names == ["untouched backbone", prose.name_cell(grid, grid.control)]
    shown = np.asarray(Image.open(tmp_path / "maps.png").convert("L"), dtype=float)
    middle = shown.shape[1] // 2
    for half in (shown[20:, :middle], shown[20:, middle:]):
        assert half.std() > 10  # Both are there


def test_a_long_name_stands_above_its_maps(
    results: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "separate_weight=1.0, enhance_weight=0.5, distillation_weight=1.0, side=16, sigma=0.5"
    monkeypatch.setattr(prose, "name_cell", lambda *_: name)
    assert maps.draw_attention_maps(results("grid"), tmp_path) is not None
    shown = np.asarray(Image.open(tmp_path / "maps.png").convert("L"), dtype=float)
    assert shown[:4].min() == 255, "the name is cut off at the top"
    assert shown[:120].min() < 100
