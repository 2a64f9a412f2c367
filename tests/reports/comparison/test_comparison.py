from __future__ import annotations

import copy
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from reports.comparison import document as compare_document
from reports.comparison.differences import Comparison, compare, side_of
from reports.comparison.document import named, write_comparison
from reports.comparison.text import (
    change_table,
    comparison_csv,
    headline_table,
    made_table,
    sentence,
    settings_table,
)
from reports.study import Metric, ReportError


def version(study: Any, shift: dict[str, float] | None = None, seed: int = 1, **config: Any) -> Any:
    """Another version of a sweep: the numbers of a cell shifted, and each moved a little; settings `section__key` changed."""
    other = copy.copy(study)
    other.cells, other.config = copy.deepcopy(study.cells), copy.deepcopy(study.config)
    rng = np.random.default_rng(seed)
    for cell in other.cells:
        for trial in cell.trials.values():
            for key in trial.metrics:
                trial.metrics[key] += (shift or {}).get(cell.label, 0.0) + float(
                    rng.normal(0, 0.002)
                )
    for name, value in config.items():
        section, key = name.split("__")
        other.config[section][key] = value
    return other


def compared(a: Any, b: Any) -> Comparison:
    return compare(side_of("old", a), side_of("new", b))


def test_pairs_are_compared_seed_by_seed(study: Callable[[str], Any]) -> None:
    a = study("eight")
    b = version(a, {"0.6": -0.08}, trainer__steps=120)
    found = compared(a, b)
    assert not found.unpaired and "settings of data and evaluation alone" in found.by
    d = next(d for d in found.of(found.headline) if d.cell.label == "0.6")
    one, two = (list(side.levels[-1].per_seed("success").values()) for side in (a, b))
    for interval, level in ((d.plain, 0.95), (d.wide, 0.975)):
        theirs = stats.ttest_rel(two, one).confidence_interval(level)
        assert interval is not None and (interval.low, interval.high) == pytest.approx(
            (theirs.low, theirs.high)
        )
    assert d.holm == pytest.approx(2 * 2 / 2**8)
    control = next(d for d in found.differences if d.cell.reference)
    assert control.wide is None and control.holm is None
    said = sentence(found)
    assert (
        said.startswith("Compared with old, success of new is worse at threshold=0.6 (−0.08")
        and "n = 8 paired seeds" in said
    )
    assert (
        "something else of threshold=0.6 (better on both sides; the effect itself changes by −0.08"
        in said
    )  # +0.1 became +0.02
    table = headline_table(found)
    assert "p (Holm)" in table.columns and table.rows[-1][-2] == "0.016"
    settings = settings_table(found)
    assert settings is not None and settings.rows == [["trainer.steps", "60", "120"]]


def test_a_changed_claim_is_said_with_the_change_of_the_effect(study: Callable[[str], Any]) -> None:
    a = study("eight")
    found = compared(a, version(a, {"0.6": -0.1}))
    change = found.changes[0]
    base, level = (np.array(list(cell.per_seed("success").values())) for cell in a.levels)
    new = [
        np.array(list(cell.per_seed("success").values()))
        for cell in version(a, {"0.6": -0.1}).levels
    ]
    assert change.change.mean == pytest.approx(((new[1] - new[0]) - (level - base)).mean())
    assert (
        "something else of threshold=0.6 (better in old, no claim in new; the effect itself changes by −0.1"
        in sentence(found)
    )
    assert "which excludes zero)" in sentence(found)
    table = change_table(found)
    assert (
        table is not None
        and table.rows[0][1].startswith("better\n+0.1")
        and table.rows[0][2].startswith("no claim\n")
    )


def test_a_difference_without_spread_claims_nothing(study: Callable[[str], Any]) -> None:
    a = study("eight")
    b = copy.copy(a)
    b.cells = copy.deepcopy(a.cells)
    for trial in b.levels[-1].trials.values():
        trial.metrics["success"] += 0.25
    said = sentence(compared(a, b))
    assert (
        "No common cell differs" in said
        and "all seeds gave the same difference at threshold=0.6 (+0.250), which has no spread"
        in said
    )
    assert "Against its own baseline" not in said


def test_only_common_seeds_count_on_either_side(study: Callable[[str], Any]) -> None:
    a = study("eight")
    b = version(a)
    for cell in b.cells:
        cell.trials = {seed: trial for seed, trial in cell.trials.items() if seed < 2}
    d = compared(a, b).differences[0]
    assert d.left.n == d.right.n == d.plain.n == 2 and d.plain.mean == pytest.approx(
        d.right.mean - d.left.mean
    )


def test_without_a_common_seed_welch_compares(study: Callable[[str], Any]) -> None:
    a = study("eight")
    b = version(a)
    for cell in b.cells:
        cell.trials = {seed + 8: trial for seed, trial in cell.trials.items()}
    b.seeds = [seed + 8 for seed in a.seeds]
    found = compared(a, b)
    assert found.unpaired == "no seed of a common cell has finished on both sides"
    d = found.of(found.headline)[-1]
    values = [list(cell.per_seed("success").values()) for cell in (a.levels[-1], b.levels[-1])]
    theirs = stats.ttest_ind(values[1], values[0], equal_var=False).confidence_interval(0.95)
    assert (
        (d.plain.low, d.plain.high) == pytest.approx((theirs.low, theirs.high))
        and d.pairs is None
        and d.effect is None
    )
    assert "n = 8 and 8 seeds, not paired" in sentence(found)
    assert (
        "p (Holm)" not in headline_table(found).columns
        and headline_table(found).rows[-1][-1] == "8 and 8"
    )
    assert "Welch" in compare_document.how(found)[0]


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        (
            {"evaluation__guidance": 7.5},
            "evaluation.guidance differ, and with them prompts and noise may",
        ),
        ({"data__train_images": 64}, "data.train_images differ"),
        (
            {"backbone__resolution": 512},
            "backbone.resolution is 64 and 512, so that the same seed does not give the same noise",
        ),
        ({"trainer__steps": 9}, ""),
    ],
)
def test_settings_decide_whether_seeds_pair_where_images_were_not_recorded(
    study: Callable[[str], Any], setting: dict[str, Any], why: str
) -> None:
    found = compared(study("eight"), version(study("eight"), **setting))
    assert found.unpaired.startswith(why) and bool(found.unpaired) == bool(why)


def test_recorded_prompts_and_noise_decide_before_settings(study: Callable[[str], Any]) -> None:
    a = study("threshold")
    found = compared(a, version(a, evaluation__guidance=7.5))
    assert not found.unpaired and "every image was recorded with" in found.by
    other = version(a)
    samples = other.cells[2].trials[1].samples
    samples.noise[5] += 1
    assert compared(a, other).unpaired == "seed 1 gave the two sides other prompts or other noise"


def test_metrics_measured_in_different_ways_are_refused(study: Callable[[str], Any]) -> None:
    a, b = study("threshold"), version(study("threshold"))
    for study_, n in ((a, 112), (b, 3000)):
        for cell in study_.cells:
            cell.trials = {seed: copy.copy(trial) for seed, trial in cell.trials.items()}
            for trial in cell.trials.values():
                trial.facts = {
                    "fid": {"extractor": "judge", "n_fake": n},
                    "recall": {"detector": "judge", "images": n},
                }
    try:
        found = compared(a, b)
    finally:
        for _, trial in a.trials():
            trial.facts = {}
    assert found.refused == {"FID": "measured in different ways (n_fake 112 and 3000)"}
    assert "fid" not in {d.metric.key for d in found.differences}
    assert (
        found.counts == {"Recall": "images 112 and 3000"}
        and "different numbers of images" in found.unpaired
    )
    assert [
        row["why_not"]
        for row in csv.DictReader(io.StringIO(comparison_csv(found)))
        if row["why_not"]
    ] == list(found.refused.values())


def test_nothing_in_common_is_one_line(study: Callable[[str], Any]) -> None:
    b = version(study("eight"))
    for cell in b.cells:
        cell.name = f"other {cell.name}"
    with pytest.raises(
        ReportError, match="no cell in common.*old has baseline: .*; new has other baseline: "
    ):
        compared(study("eight"), b)
    c = version(study("eight"))
    c.metrics = [Metric("other", "Other", "higher", "")]
    c.headline = c.metrics[0]
    with pytest.raises(ReportError, match="nothing to compare between old and new: no metric"):
        compared(study("eight"), c)


def test_the_same_numbers_are_said_to_be_the_same(study: Callable[[str], Any]) -> None:
    found = compared(study("eight"), study("eight"))
    assert sentence(found).startswith(
        "new gives the same numbers as old in every common cell, metric and seed (n = 8 paired seeds)."
    )
    assert settings_table(found) is None
    rows = {row[0]: row[2] for row in made_table(found).rows}
    assert rows["Commit"] == rows["Data"] == "the same"


def test_what_the_two_are_called() -> None:
    assert named((("a", "runs"), ("b", "runs"))) == ("a", "b")
    assert named((("a", "runs"), ("a", "/data/old/"))) == ("runs:a", "old:a")
    assert named((("a", "/x/runs"), ("a", "/y/runs"))) == ("/x/runs:a", "/y/runs:a")


@pytest.fixture(scope="module")
def written(uri: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    write_comparison((uri, uri), ("threshold", "broken"), ("threshold", "broken"), folder)
    return folder


def test_a_comparison_is_a_report(
    written: Path, text_of: Callable[[Path], str], special: str
) -> None:
    stem = "threshold-vs-broken"
    assert {path.name for path in written.iterdir()} == {
        f"{stem}.{form}" for form in ("pdf", "json", "csv", "md", "tex", "svg", "png")
    }
    flat = " ".join(text_of(written / f"{stem}.pdf").split())
    shown = json.loads((written / f"{stem}.json").read_text(encoding="utf-8"))
    for part in (
        "Unfinished: broken (3 of 12 trials are missing)", "Made by different code (0123456789ab and c0ffee00 / 0b501e7e)",
        "Seeds do not pair: seed 0 gave the two sides other prompts", "Cells of threshold only threshold=0.3, threshold=0.7",
        "threshold=0.6, seed 2: failed", "The MLflow runs behind the common cells.", "Figure 1.", shown["answer"],
    ):  # fmt: skip
        assert part in flat, part
    assert shown["answer"].startswith(
        "No common cell differs in success by more than its interval: the largest difference, broken minus"
    )
    read = list(csv.DictReader((written / f"{stem}.csv").open(encoding="utf-8")))
    assert {row["paired"] for row in read} == {"no"} and {row["cell"] for row in read} >= {
        "threshold=0.4",
        "threshold=0.5",
    }
    assert shown["answer"].split("(n =")[0].strip()[-20:] in (written / f"{stem}.md").read_text(
        encoding="utf-8"
    )


def test_the_same_comparison_gives_the_same_bytes(uri: str, written: Path, tmp_path: Path) -> None:
    write_comparison((uri, uri), ("threshold", "broken"), ("threshold", "broken"), tmp_path)
    assert [
        path.name
        for path in written.iterdir()
        if path.read_bytes() != (tmp_path / path.name).read_bytes()
    ] == []
