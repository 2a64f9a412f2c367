from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.image_sweeps import SCORE, make_sweep

from reports import variances
from reports.figures.variance import draw_variance, merge_sources
from reports.image_tables import build_table
from reports.statistics import Variances, compare_cells, variance_table
from reports.tables import compare_cells as compare_all
from reports.tables import verdicts_of
from reports.variances import Parts, Spending, advise, state_spending

# MS_cs, MS_cp, MS_csp .083333, .083333, .138889 at 3 seeds and 4 prompts
GOLDEN = np.array(
    [
        [[1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 0, 1]],
        [[1, 0, 1, 0], [0, 1, 0, 0], [1, 1, 0, 1]],
        [[0, 0, 1, 1], [1, 1, 0, 1], [1, 1, 0, 1]],
    ],
    dtype=float,
)
FACTORS = {"head": ["x", "y"], "stage": ["p", "q", "r"]}


def make_grid(skip: tuple[Any, ...] = ()) -> Any:
    rng = np.random.default_rng(0)
    levels = {
        (a, b): rng.random((3, 12)) + (0.5 if a == "y" else 0) + 0.1 * "pqr".index(b)
        for b in "rqp"  # Not the order of the plan
        for a in "xy"
        if (a, b) not in skip
    }
    return make_sweep(
        levels, ("x", "p"), factors=FACTORS, metric=SCORE, untouched=rng.random((3, 12))
    )


def read_images(results: Any) -> dict[str, dict[int, np.ndarray]]:
    return build_table(results, results.headline).y


def explain(results: Any) -> Any:
    return variances.explain_variance(results, verdicts_of(compare_all(results), results.headline))


def test_a_full_grid_has_a_source_for_each_factor_and_interaction() -> None:
    results = make_grid()
    y = read_images(results)
    sources = variances.list_sources(results, y)
    table = np.array([[[y[f"{a} / {b}"][s] for s in range(3)] for b in "pqr"] for a in "xy"])
    expected = {v.source: v for v in variance_table(table, ["head", "stage"])}
    names = [
        "head",
        "stage",
        "head × stage",
        "cell × seed",
        "cell × prompt",
        "image",
        "seed",
        "prompt",
    ]
    assert [s.name for s in sources] == [*names, "noise"]
    for source in sources:
        like = expected["seed × prompt" if source.name == "noise" else source.name]
        assert (source.variance, source.share, source.df) == (like.variance, like.share, like.df)
    assert sources[0].share > 0.2 and math.fsum(s.share for s in sources) == pytest.approx(1)
    assert merge_sources(sources)[2] == ("interactions", sources[2].share)


def test_a_grid_with_gaps_has_one_source_for_all_cells() -> None:
    found = explain(make_grid(skip=(("y", "r"),)))
    assert [s.name for s in found.sources][:2] == ["cell (head and stage)", "cell × seed"]
    assert found.sources[0].df == 4


def test_prompts_of_each_seed_are_not_told_from_noise() -> None:
    rng = np.random.default_rng(0)
    results = make_sweep({"a": rng.random((3, 9)), "b": rng.random((3, 9))}, "a", metric=SCORE)
    y = read_images(results)
    plain = {s.name: s for s in variances.list_sources(results, y)}
    own = {s.name: s for s in variances.list_sources(results, y, own_prompts=True)}
    assert "noise" not in own and own["prompt"].df == plain["prompt"].df + plain["noise"].df
    assert own["prompt"].share == pytest.approx(plain["prompt"].share + plain["noise"].share)


def test_a_difference_is_split_as_its_mean_squares_say() -> None:
    """MS_cp .083333 and MS_csp .138889: prompts have none; F .6: trainings have none."""
    parts = variances.split_difference(compare_cells(GOLDEN, 0, binary=True), 4)
    assert parts is not None and (parts.seeds, parts.prompts) == (3, 4)
    assert parts.variances.image == pytest.approx(2 * 0.138889, abs=1e-5)
    assert parts.shares == {"trainings": 0, "prompts": 0, "images": 1}
    assert variances.split_difference(compare_cells(GOLDEN[:, :1], 0), 4) is None
    # 2 (.01/4 + .02/10 + .4/40) = .005 + .004 + .02
    known = Parts(Variances(0.02, 0.04, 0.8), 4, 10)
    assert known.total == pytest.approx(0.029)
    shares = {"trainings": 5 / 29, "prompts": 4 / 29, "images": 20 / 29}
    assert known.shares == pytest.approx(shares)


def test_what_doubling_does() -> None:
    """Without scatter of trainings twice the prompts are worth 1/√2 but for the quantile; of 30 s
    a training and .2 s an image, 100 prompts cost 20 s: (30 + 40) / (30 + 20)."""
    images = Parts(Variances(0, 0.5, 1), 3, 100)
    spending = advise(images, 4, 0.5, (30, 0.2))
    assert spending is not None and spending.prompts_width == pytest.approx(
        math.sqrt(0.5), rel=0.02
    )
    assert spending.prompts_cost == pytest.approx(1.4) and spending.seeds_cost == 2
    assert spending.seeds_width > spending.prompts_width  # It does not help with what prompts do
    assert spending.first == "prompts"
    assert [*Parts(Variances(1, 0, 1), 3, 100, trained=False).shares][0] == "seeds"
    trainings = Parts(Variances(1, 0, 1), 3, 100)
    assert [*trainings.shares][0] == "trainings"
    other = advise(trainings, 4, 0.5, (30, 0.2))
    assert other is not None and other.first == "seeds" and other.prompts_width > 0.95
    unknown = advise(trainings, 4, 0.5, None)
    assert unknown is not None and unknown.first == "" and math.isnan(unknown.prompts_cost)
    assert advise(Parts(Variances(0, 0, 0), 3, 100), 4, 0.5, None) is None


@pytest.mark.parametrize(
    ("spending", "first"),
    [
        (Spending(0.7, 2.0, 0.7, 1.9), "either"),
        (Spending(0.7, 2.0, 0.7, 1.3), "prompts"),
        (Spending(0.6, 2.0, 0.95, 1.9), "seeds"),
        (Spending(0.7, 2.0, 0.7, 1.0), "prompts"),  # Images that cost nothing
        (Spending(0.7, 2.0, 0.7, math.nan), ""),
    ],
)
def test_what_narrows_most_at_the_same_cost_comes_first(spending: Spending, first: str) -> None:
    assert spending.first == first
    text = state_spending(Parts(Variances(0.02, 0.04, 0.8), 4, 10), spending)
    assert f"{spending.seeds_width:.2f} times" in text and "17 % from trainings" in text
    assert ("compute" in text) == bool(first) or "2.00 times the compute" in text
    order = text.index("twice as many seeds") < text.index("twice as many prompts")
    assert order == (first == "seeds")


def test_without_two_cells_that_differ_nothing_is_advised() -> None:
    rng = np.random.default_rng(0)
    base = rng.random((3, 20))
    same = explain(make_sweep({"a": base, "b": base.copy()}, "a", metric=SCORE))
    alone = explain(make_sweep({"a": base[:1], "b": base[1:2]}, "a", metric=SCORE))
    for found in (same, alone):
        assert found.parts is None and "open" in found.advice
    assert not alone.sources
    results = make_sweep({"a": base, "b": base + 0.1}, "a", metric=SCORE)
    for cell in results.cells:
        for trial in cell.trials.values():
            trial.samples = replace(trial.samples, columns={})
    assert explain(results) is None
    assert variances.variance_blocks(None, None) == []


def test_the_bars_show_the_shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = explain(make_grid())
    picture = draw_variance(found, tmp_path)
    assert picture is not None and (tmp_path / picture.file).is_file()
    share = next(s.share for s in found.sources if s.name == "head")
    assert f"head {variances.show_share(share)}" in picture.alt
    assert draw_variance(None, tmp_path) is None
    blocks = variances.variance_blocks(found, picture)
    assert [block["kind"] for block in blocks] == ["heading", "text", "picture", "table"]


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0 %"), (0.0002, "< 0.1 %"), (0.031, "3.1 %"), (0.52, "52 %"), (math.nan, "–")],
)
def test_shares_as_text(share: float, text: str) -> None:
    assert variances.show_share(share) == text


def test_the_table_goes_into_text_files_too() -> None:
    results = make_grid()
    verdicts = verdicts_of(compare_all(results), results.headline)
    [table] = variances.variance_tables(results, verdicts)
    assert [row[0] for row in table.rows][:3] == ["head", "stage", "head × stage"]
    assert all(row[2].endswith("%") for row in table.rows)
