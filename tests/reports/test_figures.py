from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reports import figures, forest, images
from reports.tables import entries, listed


def test_prompts_are_chosen_by_the_stated_rule() -> None:
    cells = ["11100010", "11001010", "10001010", "11010010"]
    outcomes = np.array([[int(right) for right in cell] for cell in cells])
    splits = ["val"] * 4 + ["heldout"] * 4
    #   share right: 1, .75, .25, .25, .5, 0, 1, 0 -> disagreement highest at 4, then 1, 2, 3 in order
    assert images.choose_prompts(outcomes, splits, 4) == [
        0,
        1,
        4,
        5,
    ]  # 4 and 1 by disagreement, 0 and 5 the first left of each split
    assert images.choose_prompts(outcomes, splits, 2) == [0, 4]
    assert images.choose_prompts(np.ones((3, 3)), ["a", "a", "b"], 2) == [
        0,
        2,
    ]  # nobody disagrees: the first of each split
    assert images.choose_prompts(np.ones((3, 1)), ["a"], 6) == [0]


def test_the_caption_says_rule_and_seed(study: Callable[[str], Any], tmp_path: Path) -> None:
    picture = images.image_grid(study("threshold"), tmp_path)
    assert picture is not None
    assert (
        "seed 0" in picture.caption
        and "among the 12 prompts" in picture.caption
        and "3 on which the cells disagree most" in picture.caption
    )


def test_maps_before_and_after_stand_under_their_names(
    study: Callable[[str], Any], tmp_path: Path, said: list[str]
) -> None:
    grid = study("grid")
    assert images.attention_maps(grid, tmp_path) is not None
    assert [text.replace("\n", " ") for text in said] == [
        "untouched backbone",
        grid.words(grid.baseline),
    ]


def test_pictures_that_cannot_be_made_are_left_out(
    study: Callable[[str], Any], tmp_path: Path
) -> None:
    clear = study("clear")
    assert images.image_grid(clear, tmp_path) is None and images.gate_maps(clear, tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_gate_maps_are_the_baseline_levels(study: Callable[[str], Any], tmp_path: Path) -> None:
    threshold = study("threshold")
    picture = images.gate_maps(threshold, tmp_path)
    assert (
        picture is not None
        and "baseline level 0.5, seed 0" in picture.caption
        and "N = 2 prompts" in picture.caption
    )
    logged = threshold.fetch(threshold.baseline.trials[0], "gates.png")
    assert logged is not None and (tmp_path / "gates.png").read_bytes() == logged.read_bytes()


def test_attention_maps_stand_side_by_side(study: Callable[[str], Any], tmp_path: Path) -> None:
    picture = images.attention_maps(study("grid"), tmp_path)
    assert picture is not None and "seed 0" in picture.caption and "N = 1" in picture.caption
    shown = np.asarray(Image.open(tmp_path / "maps.png").convert("L"), dtype=float)
    halves = shown[:, : shown.shape[1] // 2], shown[:, shown.shape[1] // 2 :]
    assert all(half[100:].std() > 30 for half in halves), "both are there"
    assert images.attention_maps(study("threshold"), tmp_path / "none") is None


def test_targets_are_outlined(
    study: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    outline = images.draw_outline
    monkeypatch.setattr(
        images,
        "draw_outline",
        lambda axes, path, extent: (drawn.append((path, extent)), outline(axes, path, extent)),
    )
    picture = images.image_grid(study("grid"), tmp_path)
    assert picture is not None and picture.caption.endswith(
        "Outlines: where the objects should be."
    )
    assert len(drawn) >= 2 * 19 and all(path.name.endswith("-mask.png") for path, _ in drawn)
    plain = images.image_grid(study("threshold"), tmp_path / "plain")
    assert plain is not None and "Outlines" not in plain.caption


def test_a_response_curve_needs_not_be_whole(study: Callable[[str], Any], tmp_path: Path) -> None:
    for name in ("broken", "clear", "eight"):
        picture = figures.response(study(name), entries(study(name)), tmp_path / name)
        assert (tmp_path / name / picture.file).stat().st_size > 10_000
    assert "N = 8 seeds" in picture.caption
    bare = [
        dataclasses.replace(c, trials=dict(list(c.trials.items())[:1]))
        for c in study("clear").levels
    ]
    alone = dataclasses.replace(study("clear"), cells=bare)
    assert "N = 1 seed." in figures.response(alone, entries(alone), tmp_path).caption


@pytest.mark.parametrize(
    "levels",
    [
        (0.3, 0.5, 0.5195, 0.5203, 0.7), (0.0, 0.01, 0.05, 0.1), (1.5, 3.0, 5.0, 7.5), (0.0001, 0.001, 0.01, 0.1),
        tuple(round(0.5 + 0.001 * i, 4) for i in range(12)), ("one", "two", "three"),
        ("untouched backbone", "post_softmax", "post_softmax_renormalised", "mcgm without masks"), tuple(f"level {i}" for i in range(11)),
    ],
)  # fmt: skip
def test_no_two_tick_labels_overlap(
    levels: tuple[Any, ...],
    study: Callable[[str], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threshold = study("threshold")
    cell, numeric = threshold.baseline, not isinstance(levels[0], str)
    cells = [
        dataclasses.replace(cell, name=str(x), label=str(x), values={}, baseline=i == 2)
        for i, x in enumerate(levels)
    ]
    factor = dataclasses.replace(threshold.factors[0], levels=levels, numeric=numeric)
    odd = dataclasses.replace(threshold, cells=cells, factors=[factor])
    kept: list[Any] = []
    monkeypatch.setattr(figures, "save", lambda figure, folder, name: kept.append(figure))
    picture = figures.response(odd, entries(odd), tmp_path)
    kept[0].draw_without_rendering()
    kept[0].set_layout_engine(
        "none"
    )  # labels that are hidden for a moment leave the others where they are
    for axes in kept[0].axes:
        labels = [label for label in axes.get_xticklabels() if label.get_text()]
        assert len(axes.get_xticks()) == len(levels) and str(levels[2]) in [
            label.get_text().strip() for label in labels
        ]
        for label in labels:
            label.set_visible(False)
        alone = []
        for label in labels:
            label.set_visible(True)
            alone.append(inked(kept[0], axes.xaxis))
            label.set_visible(False)
        assert all(ink.any() for ink in alone) and np.sum(alone, axis=0).max() == 1
        unnamed = [
            str(level)
            for level in levels
            if str(level) not in {label.get_text().strip() for label in labels}
        ]
        said = f"Without a label, for lack of room: {listed(unnamed)}." if unnamed else ""
        assert said in picture.caption and bool(said) == ("lack of room" in picture.caption)


def inked(figure: Any, axis: Any) -> np.ndarray:
    """Where the visible tick labels of an axis have ink, [H, W]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    renderer = canvas.get_renderer()
    renderer.clear()
    for label in axis.get_ticklabels():
        label.draw(renderer)
    return np.asarray(renderer.buffer_rgba())[..., 3] > 40


def test_long_names_break_where_they_can() -> None:
    assert figures.wrapped("post_softmax_renormalised", 14) == "post_softmax_\nrenormalised"
    assert (
        figures.wrapped("soft", 14) == "soft"
        and figures.wrapped("0, 8, 9, 10, 13, 15", 8) == "0, 8, 9,\n10, 13,\n15"
    )
    assert figures.wrapped("renormalised", 5) == "renormalised" and figures.wrapped("", 5) == ""


def test_combinations_have_a_row_each(study: Callable[[str], Any], tmp_path: Path) -> None:
    from PIL import Image

    grid = study("grid")
    whole = forest.forest(grid, entries(grid), tmp_path)
    assert (
        "combinations of start bias, surrogate and protected tokens" in whole.caption
        and "N = 3 seeds" in whole.caption
    )
    few = dataclasses.replace(
        grid,
        cells=[
            grid.baseline,
            *(c for c in grid.cells if c.values.get("method.gate.bias") == "4.0"),
        ],
    )
    forest.forest(few, entries(few), tmp_path / "few")
    heights = [
        Image.open(folder / "response.png").height for folder in (tmp_path, tmp_path / "few")
    ]
    assert heights[0] - heights[1] == round(200 * forest.ROW * 11)
    bare = [
        dataclasses.replace(c, trials=dict(list(c.trials.items())[: i % 2]))
        for i, c in enumerate(grid.cells)
    ]
    hollow = dataclasses.replace(grid, cells=bare)
    assert "N = 0 to 1 seeds" in forest.forest(hollow, entries(hollow), tmp_path / "hollow").caption


def test_many_cells_are_shown_in_bands(study: Callable[[str], Any], tmp_path: Path) -> None:
    from PIL import Image

    grid = study("grid")
    picture = images.image_grid(grid, tmp_path)
    assert (
        picture is not None and "1 on which the cells disagree most" in picture.caption
    )  # two prompts in each of three bands
    shown = Image.open(tmp_path / "images.png")
    assert shown.width == round(300 * figures.WIDTH) and shown.height < 300 * 9.5  # a page


def test_text_in_figures_is_not_run(
    study: Callable[[str], Any], tmp_path: Path, special: str
) -> None:
    threshold = study("threshold")
    odd = dataclasses.replace(
        threshold, factors=[dataclasses.replace(threshold.factors[0], label=special)]
    )
    figures.response(odd, entries(odd), tmp_path)  # $x$ and \alpha would be parsed as mathematics
