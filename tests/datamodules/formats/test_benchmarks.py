"""Benchmarks as they were published, and even draws of their prompts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from helpers.benchmark_files import GENEVAL_TASKS, write_color_val, write_geneval

from datamodules.formats.benchmarks import GENEVAL, draw_evenly, order_evenly, t2i_compbench
from datamodules.formats.prompt_files import read_prompts


def test_what_was_published():
    assert GENEVAL.tasks == GENEVAL_TASKS and GENEVAL.prompts == 553 and GENEVAL.images == 4
    color = t2i_compbench("color_val")
    assert color is not None and (color.prompts, color.images) == (300, 10)
    assert t2i_compbench("color_val_unseen") == color
    # Its scores are of the validation prompts alone
    assert t2i_compbench("color_train") is None and t2i_compbench("color") is None


def test_files_of_a_benchmark_are_recognised_and_read_whole(tmp_path: Path):
    geneval = read_prompts(write_geneval(tmp_path / "evaluation_metadata.jsonl"))
    assert len(geneval) == 553 and {record.benchmark for record in geneval} == {GENEVAL}
    assert Counter(record.task for record in geneval) == GENEVAL_TASKS
    color = read_prompts(write_color_val(tmp_path / "color_val.txt"))
    # Repeated lines count in the benchmark's score
    assert len(color) == 300 and len({record.text for record in color}) == 295
    assert {record.benchmark for record in color} == {t2i_compbench("color_val")}
    (tmp_path / "mine.txt").write_text("a lake\na lake\n")
    mine = read_prompts(tmp_path / "mine.txt")
    assert len(mine) == 1 and mine[0].benchmark is None


@pytest.mark.parametrize("count", [6, 7, 56, 100, 300, 552])
def test_a_draw_has_every_stratum_in_proportion(count: int):
    strata = [task for task, size in GENEVAL_TASKS.items() for _ in range(size)]
    drawn = draw_evenly(strata, count)
    assert len(drawn) == len(set(drawn)) == count and drawn == sorted(drawn)
    counts = Counter(strata[i] for i in drawn)
    for task, size in GENEVAL_TASKS.items():
        assert abs(counts[task] - count * size / 553) < 1
    assert drawn == draw_evenly(strata, count, seed=0)
    assert any(drawn != draw_evenly(strata, count, seed) for seed in range(1, 5))


def test_a_draw_reaches_over_the_whole_of_a_stratum():
    # Seen combinations first
    drawn = draw_evenly(["color"] * 300, 56)
    assert sum(i < 200 for i in drawn) in (37, 38)
    assert max(b - a for a, b in zip(drawn, drawn[1:], strict=False)) <= 11


@pytest.mark.parametrize("seed", [0, 3])
def test_fewer_are_the_first_of_more(seed: int):
    strata = [task for task, size in GENEVAL_TASKS.items() for _ in range(size)] + ["rare"]
    order = order_evenly(strata, seed)
    assert sorted(order) == list(range(len(strata)))
    for count in (1, 6, 7, 28, 56, 112, 200, 553):
        assert draw_evenly(strata, count, seed) == sorted(order[:count])
        assert {*draw_evenly(strata, count, seed)} < {*draw_evenly(strata, count + 1, seed)}
    assert "rare" in {strata[i] for i in order[:7]}, "each has one as soon as it can"


def test_small_and_whole_draws():
    strata = ["a"] * 100 + ["b"] * 2 + ["c"]
    assert draw_evenly(strata, 103) == draw_evenly(strata, 999) == list(range(103))
    assert Counter(strata[i] for i in draw_evenly(strata, 3)) == {"a": 1, "b": 1, "c": 1}
    assert len(draw_evenly(strata, 2)) == 2 and draw_evenly(strata, 0) == []
    assert draw_evenly([], 0) == draw_evenly([], 5) == []


@pytest.mark.parametrize(
    ("tasks", "reason"),
    [
        (GENEVAL_TASKS, ""),
        (dict.fromkeys(GENEVAL_TASKS, 3), ""),
        ({"single_object": 56}, "no prompts of two_object, counting, colors, position, color_attr"),
        (GENEVAL_TASKS | {"colors": 95}, "colors: more prompts than it has"),
        (GENEVAL_TASKS | {"pets": 1}, "pets: more prompts than it has"),
    ],
)
def test_a_score_bears_the_name_of_a_benchmark_whose_tasks_it_has(tasks: dict, reason: str):
    assert GENEVAL.why_not(tasks) == reason
