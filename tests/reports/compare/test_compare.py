from __future__ import annotations

import copy
import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.image_results import SUCCESS, make_results
from scipy import stats

from reports.compare import name_sides, write_comparison
from reports.compare.answer import conclude_comparison
from reports.compare.content import explain_method
from reports.compare.differences import Comparison, compare
from reports.compare.tables import (
    change_table,
    comparison_csv,
    facts_table,
    headline_table,
    settings_table,
)
from reports.results import ReportedMetric, ReportError, SweepResults
from reports.verdicts import POOLED

MEMORY = "memory:"


@pytest.fixture
def version(changeable: Any) -> Any:
    """Another version of a sweep: numbers of cells shifted, settings ``section__key`` changed."""

    def make(name: str, shift: dict[str, float] | None = None, **config: Any) -> SweepResults:
        other, rng = changeable(name), np.random.default_rng(1)
        for cell in other.cells:
            for trial in cell.trials.values():
                for key in trial.metrics:
                    trial.metrics[key] += (shift or {}).get(cell.label, 0.0) + rng.normal(0, 0.002)
        for setting, value in config.items():
            section, key = setting.split("__")
            other.config[section][key] = value
        return other

    return make


def compare_versions(old: SweepResults, new: SweepResults) -> Comparison:
    return compare(("old", old), ("new", new))


def success(cell: Any) -> np.ndarray:
    return np.array(list(cell.per_seed("success").values()))


def test_trials_of_other_content_do_not_pair(results: Any, version: Any) -> None:
    def read(found: SweepResults, **contents: str) -> SweepResults:
        for _, trial in found.trials():
            trial.contents = contents
        return found

    same = {"weights=/my/model": "a", "data.root=/my/data (train)": "b"}
    a, again = read(results("eight"), **same), read(version("eight"), **same)
    assert not compare_versions(a, again).unpaired
    for name in same:
        other = read(version("eight"), **same | {name: "c"})
        assert f"other content of {name}" in compare_versions(a, other).unpaired
    # Another part of the same data has another digest
    part = same | {"data.root=/my/data (train)": "c"}
    less = read(version("eight", data__train_images=7), **part)
    assert "content" not in compare_versions(a, less).unpaired
    assert "content" not in compare_versions(a, read(version("eight"))).unpaired


def test_pairs_are_compared_seed_by_seed(results: Any, version: Any) -> None:
    a, b = results("eight"), version("eight", {"0.6": -0.08}, trainer__steps=120)
    found = compare_versions(a, b)
    assert not found.unpaired and "settings of data and evaluation alone" in found.by
    d = next(d for d in found.headline_differences if d.cell.label == "0.6")
    for interval, level in ((d.plain, 0.95), (d.verdict, 0.975)):
        expected = stats.ttest_rel(success(b.levels[-1]), success(a.levels[-1]))
        bounds = expected.confidence_interval(level)
        assert interval is not None
        assert (interval.low, interval.high) == pytest.approx((bounds.low, bounds.high))
    assert d.holm == pytest.approx(2 * 2 / 2**8)
    untouched = next(d for d in found.differences if d.cell.untouched)
    assert untouched.wide is None and untouched.holm is None
    text = conclude_comparison(found)
    assert text.startswith("Compared with old, success of new is worse at threshold=0.6 (−0.08")
    assert "n = 8 paired seeds" in text
    # +0.1 became +0.02
    both = "differs: better in old, differs, by less than matters in new"
    assert f"threshold=0.6 ({both}; the effect" in text
    assert "the effect itself changes by −0.08" in text
    table = headline_table(found)
    assert "p (Holm)" in table.columns and table.rows[-1][-3] == "0.016"
    assert table.rows[-1][-1] == "differs: worse"
    settings = settings_table(found)
    assert settings is not None and settings.rows == [["trainer.steps", "60", "120"]]


def test_a_changed_claim_comes_with_the_change_of_the_effect(results: Any, version: Any) -> None:
    a, b = results("eight"), version("eight", {"0.6": -0.1})
    found = compare_versions(a, b)
    effects = [success(side.levels[1]) - success(side.levels[0]) for side in (a, b)]
    assert found.changes[0].change.mean == pytest.approx((effects[1] - effects[0]).mean())
    text = conclude_comparison(found)
    assert (
        "threshold=0.6 (differs: better in old, no difference that matters in new; the effect "
        "itself changes by −0.1" in text
    )
    assert "which excludes zero)" in text
    table = change_table(found)
    assert table is not None and table.rows[0][1].startswith("differs: better\n+0.1")
    assert table.rows[0][2].startswith("no difference that matters\n")


def test_a_difference_without_spread_claims_nothing(results: Any, changeable: Any) -> None:
    b = changeable("eight")
    for trial in b.levels[-1].trials.values():
        trial.metrics["success"] += 0.25
    text = conclude_comparison(compare_versions(results("eight"), b))
    assert "success of new: open at threshold=0.6 (+0.250, without spread" in text
    assert "better" not in text and "Against its own control" not in text


def test_only_common_seeds_count_on_either_side(results: Any, version: Any) -> None:
    b = version("eight")
    for cell in b.cells:
        cell.trials = {seed: trial for seed, trial in cell.trials.items() if seed < 2}
    d = compare_versions(results("eight"), b).differences[0]
    assert d.left.n == d.right.n == d.plain.n == 2
    assert d.plain.mean == pytest.approx(d.right.mean - d.left.mean)


def test_without_a_common_seed_welch_compares(results: Any, version: Any) -> None:
    a, b = results("eight"), version("eight")
    for cell in b.cells:
        cell.trials = {seed + 8: trial for seed, trial in cell.trials.items()}
    b.seeds = [seed + 8 for seed in a.seeds]
    found = compare_versions(a, b)
    assert found.unpaired == "no seed of a common cell has finished on both sides"
    d = found.headline_differences[-1]
    expected = stats.ttest_ind(success(b.levels[-1]), success(a.levels[-1]), equal_var=False)
    bounds = expected.confidence_interval(0.95)
    assert (d.plain.low, d.plain.high) == pytest.approx((bounds.low, bounds.high))
    assert d.pairs is None and d.effect is None
    assert "n = 8 and 8 seeds, not paired" in conclude_comparison(found)
    table = headline_table(found)
    assert "p (Holm)" not in table.columns and table.rows[-1][-2] == "8 and 8"
    assert "Welch" in explain_method(found)[0]


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ({"evaluation__guidance": 7.5}, "evaluation.guidance differ"),
        ({"data__train_images": 64}, "data.train_images differ"),
        ({"backbone__resolution": 512}, "backbone.resolution is 64 and 512"),
        ({"trainer__steps": 9}, ""),
    ],
)
def test_settings_decide_whether_seeds_pair_where_images_were_not_recorded(
    results: Any, version: Any, setting: dict[str, Any], why: str
) -> None:
    found = compare_versions(results("eight"), version("eight", **setting))
    assert found.unpaired.startswith(why) and bool(found.unpaired) == bool(why)


def test_recorded_prompts_and_noise_decide_before_settings(results: Any, version: Any) -> None:
    found = compare_versions(results("threshold"), version("threshold", evaluation__guidance=7.5))
    assert not found.unpaired and "every image was recorded with" in found.by
    other = version("threshold")
    other.cells[2].trials[1].samples.noise[5] += 1
    found = compare_versions(results("threshold"), other)
    assert found.unpaired.startswith("seed 1 gave the two sides other prompts")


def test_metrics_measured_in_different_ways_are_refused(changeable: Any, version: Any) -> None:
    a, b = changeable("threshold"), version("threshold")
    for side, n in ((a, 112), (b, 3000)):
        for _, trial in side.trials():
            trial.facts = {"fid": {"extractor": "judge", "n_fake": n}, "recall": {"images": n}}
    found = compare_versions(a, b)
    assert found.refused == {"FID": "measured in different ways (n_fake 112 and 3000)"}
    assert "fid" not in {d.metric.key for d in found.differences}
    assert found.counts == {"Recall": "images 112 and 3000"}
    assert "different numbers of images" in found.unpaired
    rows = csv.DictReader(io.StringIO(comparison_csv(found)))
    assert [row["why_not"] for row in rows if row["why_not"]] == list(found.refused.values())


def test_nothing_in_common_is_one_line(results: Any, version: Any) -> None:
    b = version("eight")
    for cell in b.cells:
        cell.name = f"other {cell.name}"
    with pytest.raises(ReportError, match="no cell in common.*old has baseline: .*; new has other"):
        compare_versions(results("eight"), b)
    c = version("eight")
    c.metrics = [ReportedMetric("other", "Other", "higher", "")]
    c.headline = c.metrics[0]
    with pytest.raises(ReportError, match="nothing to compare between old and new: no metric"):
        compare_versions(results("eight"), c)


def test_the_same_numbers_are_reported_as_the_same(results: Any) -> None:
    found = compare_versions(results("eight"), results("eight"))
    text = conclude_comparison(found)
    assert text.startswith("new gives the same numbers as old in every common cell")
    assert settings_table(found) is None
    rows = {row[0]: row[2] for row in facts_table(found).rows}
    assert rows["Commit"] == rows["Data"] == "the same"


def test_one_seed_cannot_tell(changeable: Any) -> None:
    sides = [changeable("eight"), changeable("eight")]
    for shift, side in enumerate(sides):
        for cell in side.cells:
            cell.trials = {0: copy.deepcopy(cell.trials[0])}
            cell.trials[0].metrics["success"] += 0.1 * shift
    text = conclude_comparison(compare_versions(*sides))
    assert text.startswith("One seed cannot tell") and "is +0.100 at threshold=0.5" in text


def test_the_three_ways_to_name_two_sweeps() -> None:
    assert name_sides(("a", "runs"), ("b", "runs")) == ("a", "b")
    assert name_sides(("a", "runs"), ("a", "/data/old/")) == ("runs:a", "old:a")
    assert name_sides(("a", "/x/runs"), ("a", "/y/runs")) == ("/x/runs:a", "/y/runs:a")


@pytest.mark.usefixtures("memory", "coarse")
def test_a_comparison_is_a_report(tmp_path: Path, words_of: Any) -> None:
    sides = [(name, "runs", MEMORY) for name in ("threshold", "broken")]
    pdf = write_comparison((sides[0], sides[1]), tmp_path)
    stem, forms = "threshold-vs-broken", ("pdf", "json", "csv", "md", "tex", "svg", "png")
    assert pdf == tmp_path / f"{stem}.pdf" and pdf.read_bytes().startswith(b"%PDF")
    assert {path.name for path in tmp_path.iterdir()} == {f"{stem}.{form}" for form in forms}
    text = words_of(tmp_path / f"{stem}.json")
    for part in (
        "Unfinished: broken (3 of 12 trials missing)",
        "Made by different code (0123456789ab and c0ffee00 / 0b501e7e)",
        "Seeds do not pair: seed 0 gave the two sides other prompts",
        "Cells of threshold only threshold=0.3, threshold=0.7",
        "threshold=0.6, seed 2: failed",
        "The MLflow runs behind the common cells.",
    ):
        assert part in text, part
    answer = json.loads((tmp_path / f"{stem}.json").read_text(encoding="utf-8"))["answer"]
    assert answer.startswith("Compared with threshold in success of broken: open at threshold=0.4")
    rows = list(csv.DictReader((tmp_path / f"{stem}.csv").open(encoding="utf-8")))
    assert {row["paired"] for row in rows} == {"no"}
    assert {row["cell"] for row in rows} >= {"threshold=0.4", "threshold=0.5"}
    markdown = (tmp_path / f"{stem}.md").read_text(encoding="utf-8")
    assert answer.split("(n =")[0].strip()[-20:] in markdown


@pytest.mark.slow
@pytest.mark.usefixtures("memory")
def test_the_same_comparison_gives_the_same_bytes(tmp_path: Path) -> None:
    sides = ("threshold", "runs", MEMORY), ("broken", "runs", MEMORY)
    first, again = (write_comparison(sides, tmp_path / name).parent for name in ("a", "b"))
    for path in first.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def of_images(shift: float) -> SweepResults:
    """Three cells whose images share their luck, the last one better by a share of ``shift``."""
    draws = np.random.default_rng(3).random((3, 120))
    shares = {"a": 0.5, "b": 0.5, "c": 0.5 + shift}
    tables = {label: {"success": (draws < share).astype(float)} for label, share in shares.items()}
    for i, own in enumerate(tables.values()):  # A few images of each cell's own
        rng = np.random.default_rng([i, int(100 * shift)])
        own["success"][:, i::40] = rng.random((3, 3)) > 0.5
    return make_results(tables, "a", SUCCESS)


def test_sides_are_compared_by_their_images_as_one_family() -> None:
    found = compare_versions(of_images(0.0), of_images(0.2))
    assert not found.unpaired
    verdicts = {d.cell.name: d.verdict for d in found.headline_differences}
    assert {v.rule for v in verdicts.values()} == {POOLED}
    assert {v.family for v in verdicts.values()} == {3}
    assert verdicts["c"].images.rho == 0, "several controls"
    for d in found.headline_differences:
        assert d.verdict.mean == pytest.approx(d.plain.mean)
    text = conclude_comparison(found)
    assert text.startswith("Compared with old, success of new is better at c (+0.")
    assert "; no difference that matters at a and b" in text or "at b and a" in text
    change = next(change for change in found.changes if change.cell.name == "c")
    assert change.change.low > 0 and change.change.half < 0.15
    assert "goes by images: one family of 3 common cells" in " ".join(explain_method(found))
