"""What a sweep may be, its cells, and the list of all sweeps."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from conf import load as conf
from sweeps.__main__ import discover
from sweeps.engine.resolve import PlanError, resolve, seeds_of, trial_config
from sweeps.maskattn_shared import DETAILS, HEADLINES, PAPER
from sweeps.sweep import REFERENCE, Factor, Metric, Sweep
from sweeps.threshold import SWEEP

ROOT = Path(__file__).parents[2]


def grid() -> Sweep:
    factors = [Factor("method.gate.stage", ["mid", "all"]), Factor("method.gate.bias", [0.0, 2.0], when="evaluate")]
    return replace(SWEEP, factors=factors, baseline={"method.gate.stage": "all", "method.gate.bias": 2.0})


def test_cells_are_the_product_with_the_untouched_backbone_first() -> None:
    cells = grid().cells()
    assert [cell.text for cell in cells] == [
        REFERENCE, "stage=mid, bias=0.0", "stage=mid, bias=2.0", "stage=all, bias=0.0", "stage=all, bias=2.0"
    ]
    assert [cell.baseline for cell in cells] == [False, False, False, False, True]
    assert [cell.reference for cell in cells] == [True, False, False, False, False]
    assert cells[1].training == {"method.gate.stage": "mid"} and cells[1].evaluation == {"method.gate.bias": 0.0}
    assert cells[1].folder(2) == "stage=mid,bias=0.0-seed2" and cells[0].folder(0) == "untouched-backbone-seed0"


def test_combinations_that_are_left_out_have_no_cell() -> None:
    without = [{"method.gate.stage": "mid", "method.gate.bias": 0.0}]
    cells = replace(grid(), without=without).cells()
    assert [cell.text for cell in cells] == [REFERENCE, "stage=mid, bias=2.0", "stage=all, bias=0.0", "stage=all, bias=2.0"]
    assert [cell.baseline for cell in cells] == [False, False, False, True]
    assert cells[1].training == {"method.gate.stage": "mid"} and cells[1].evaluation == {"method.gate.bias": 2.0}


@pytest.mark.parametrize(("without", "message"), [
    ({"method.gate.stag": "mid"}, "method.gate.stag is none of the factors method.gate.stage, method.gate.bias"),
    ({"method.gate.stage": "high"}, "method.gate.stage=high is none of mid, all"),
    ({"method.gate.stage": "all", "method.gate.bias": 2.0}, "{method.gate.stage: all, method.gate.bias: 2.0}: that is the baseline cell"),
    ({"method.gate.bias": 2.0}, "that is the baseline cell"),
    ({}, "that is the baseline cell"),
    ({"method.gate.stage": "mid"}, "without leaves no cell of method.gate.stage=mid; take that level out"),
])
def test_what_is_left_out_must_be_there_and_leave_the_rest(without: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        replace(grid(), without=[without])


def test_factors_with_one_ending_get_longer_names() -> None:
    factors = [Factor("data.name", ["shapes"]), Factor("backbone.name", ["embedded"])]
    sweep = replace(SWEEP, factors=factors, baseline={"data.name": "shapes", "backbone.name": "embedded"})
    assert sweep.cells()[1].text == "data.name=shapes, backbone.name=embedded"


def test_folders_of_levels_that_differ_only_in_odd_characters_differ() -> None:
    cells = replace(SWEEP, factors=[Factor("k", ["a/b", "a b"])], baseline={"k": "a b"}).cells()
    assert len({cell.folder(0) for cell in cells}) == 3


def test_a_method_sweep_uses_its_own_untouched_backbone() -> None:
    cells = replace(SWEEP, factors=[Factor("method.name", ["baseline", "maskattn"])], baseline={"method.name": "maskattn"}).cells()
    assert [(cell.text, cell.reference) for cell in cells] == [("name=baseline", True), ("name=maskattn", False)]


@pytest.mark.parametrize(("change", "message"), [
    ({"name": "Threshold/v2"}, "module name"),
    ({"factors": []}, "factors"),
    ({"baseline": {}}, "expected exactly method.gate.threshold"),
    ({"baseline": {"method.gate.threshold": 0.55}}, "0.55 is none of 0.3, 0.4"),
    ({"headline": "beauty"}, "'beauty' is none of the metrics"),
    ({"headline": "gate_closed"}, "no better direction"),
    ({"metrics": [Metric("success", "Success")] * 2}, "each given once"),
])
def test_a_sweep_whose_parts_do_not_fit_is_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SWEEP, **change)


def test_levels_twice_and_unknown_words_are_refused() -> None:
    with pytest.raises(ValueError, match="each once"):
        Factor("a", [0.5, 0.5])
    with pytest.raises(ValueError, match="'evaluate'"):
        Factor("a", [1], when="later")
    with pytest.raises(ValueError, match="'lower'"):
        Metric("a", "A", better="up")


def test_other_levels_keep_the_baseline_and_are_sorted() -> None:
    assert SWEEP.with_levels([0.9, 0.2]).factors[0].levels == (0.2, 0.5, 0.9)
    with pytest.raises(ValueError, match="single factor"):
        grid().with_levels([1])


def test_levels_that_are_lists_read_as_words_and_are_found_by_them() -> None:
    factor = Factor("data.concepts", [[], ["yellow square", "cyan ring"]])
    words = ["none", "yellow square+cyan ring"]
    assert factor.describe()["levels"] == words
    cells = replace(SWEEP, factors=[factor], baseline={"data.concepts": []}).cells()
    assert [cell.text for cell in cells[1:]] == [f"concepts={word}" for word in words]
    assert Factor("k", [0.5, True, None]).describe()["levels"] == [0.5, True, None]


def test_every_sweep_resolves_and_is_named_after_its_module() -> None:
    sweeps = discover()
    assert "threshold" in [sweep.name for sweep in sweeps]
    for sweep in sweeps:
        assert (ROOT / "sweeps" / f"{sweep.name}.py").is_file()
        if sweep.needs:
            continue
        _, cells = resolve(sweep, conf.load([], sweep.preset))
        untouched = [cell for cell in cells if trial_config(conf.load([], sweep.preset), cell, 0).method.name == "baseline"]
        assert sum(cell.baseline for cell in cells) == 1 and len(untouched) == 1
        assert untouched[0].reference != untouched[0].baseline, "the untouched backbone is the reference, or what all are compared with"


def test_a_sweep_that_needs_real_weights_declines_in_the_embedded_world() -> None:
    declining = [sweep for sweep in discover() if sweep.needs]
    assert [sweep.name for sweep in declining] == ["polysemy"]
    for sweep in declining:
        with pytest.raises(PlanError, match="needs real weights .*, which the embedded world has not: choose a backbone"):
            resolve(sweep, conf.load([], sweep.preset))
        found, cells = resolve(sweep, conf.load(["backbone=sdxl"], sweep.preset))
        assert sum(cell.baseline for cell in cells) == 1 and {"success", "clip_score"} <= {metric.key for metric in found.metrics}


CELLS = {
    "gate_head": 15, "gate_signal": 6, "gate_start": 27, "gating_mode": 4, "injection_layer": 10, "injection_point": 3,
    "self_attention": 3, "threshold": 5,
}  # fmt: skip


@pytest.mark.parametrize(("name", "count"), CELLS.items())
def test_the_sweeps_of_maskattn(name: str, count: int) -> None:
    sweep = importlib.import_module(f"sweeps.{name}").SWEEP
    config = conf.load([], sweep.preset)
    assert config.method.name == "maskattn" and sweep.headline == "success" and sweep.direction == "higher"
    for factor in sweep.factors:
        for level in factor.levels:
            assert conf.lookup(conf.replace(config, {factor.key: level}), factor.key) == level
    resolved, cells = resolve(sweep, config)
    assert [cell.text for cell in cells] == [cell.text for cell in sweep.cells()]  # levels are written as the schema reads them
    assert len(cells) == len({cell.text for cell in cells}) == count + 1 and cells[0].reference
    text = (ROOT / "sweeps" / f"{name}.py").read_text(encoding="utf-8")
    assert f"\n    python -m sweeps.{name} " in text and f"\n    python -m sweeps.{name} trainer.accelerator=gpu output=" in text
    assert "2509.15357" in sweep.origin and f"| `{name}` | {sweep.question} |" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_sweeps_of_maskattn_start_alike_and_measure_alike() -> None:
    sweeps = [sweep for sweep in discover() if sweep.name in CELLS]
    assert len(sweeps) == len(CELLS) and all(sweep.preset.items() >= PAPER.items() for sweep in sweeps)
    for sweep in sweeps:
        assert sweep.metrics[:len(HEADLINES)] == HEADLINES and sweep.metrics[-len(DETAILS):] == DETAILS
    added = {sweep.name: [metric.key for metric in sweep.metrics[len(HEADLINES):-len(DETAILS)]] for sweep in sweeps}
    assert added["gate_head"] == ["parameters", "overhead"] and added["gate_start"] == ["gates_reopened", "gates_shut"]
    assert added["gate_signal"] == ["gate_mask_iou"] and "overhead" in added["injection_layer"] and not added["threshold"]


@pytest.mark.parametrize(("words", "status", "expected"), [
    (["sweeps"], 0, "Is 0.5 the best gate threshold"),
    (["sweeps.injection_layer", "levels=[mid]"], 2, "levels= replaces the levels of a single factor"),
    (["sweeps.gate_start", "--help"], 0, "method.gate.protect="),
    (["sweeps", "threshold"], 2, "python -m sweeps.<name>"),
    (["sweeps.threshold", "--help"], 0, "method.gate.threshold=0.5"),
    (["sweeps.threshold", "trainer.step=3"], 2, "did you mean trainer.steps"),
    (["sweeps.threshold", "levels=[0.2,1.5]"], 2, "method.gate.threshold=1.5"),
    (["sweeps.threshold", "method.gate.threshold=0.4"], 2, "levels=["),
    (["sweeps.threshold", "method=baseline"], 2, "choose another method"),
    (["sweeps.threshold", "candidates=4"], 2, "candidates is for mode=search"),
    (["sweeps.threshold", "storage=sqlite:///x.db"], 2, "SQLite, for one, hands one queued trial to two workers"),
    (["sweeps.threshold", "tracking_uri=http://127.0.0.1:9"], 2, "no MLflow server answers"),
])
def test_commands_answer_at_once_and_load_nothing_heavy(words: list[str], status: int, expected: str, tmp_path: Path) -> None:
    heavy = "torch", "lightning", "diffusers", "transformers", "mlflow", "optuna", "pandas", "matplotlib", "scipy"
    code = (
        f"import runpy, sys; sys.argv = {words!r}\n"
        f"try: runpy.run_module({words[0]!r}, run_name='__main__', alter_sys=True)\n"
        f"finally: loaded = sorted(set({heavy!r}) & set(sys.modules)); assert not loaded, loaded"
    )
    began = time.monotonic()
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == status, done.stderr
    assert expected in done.stdout + done.stderr and "Traceback" not in done.stderr
    assert done.stderr.count("\n") <= 1
    assert time.monotonic() - began < 10  # under two seconds on a machine that does nothing else
    assert not list(tmp_path.iterdir())


# --- modes ------------------------------------------------------------------------------------------------------------------------


def texts(mode: str, names: list[str] | None = None) -> list[str]:
    return [cell.text for cell in grid().cells("train", mode, names or [])]


def test_one_factor_at_a_time_leaves_the_others_at_the_baseline() -> None:
    assert texts("one_factor") == [REFERENCE, "stage=mid, bias=2.0", "stage=all, bias=0.0", "stage=all, bias=2.0"]


def test_a_list_names_its_cells_and_the_baseline_comes_along() -> None:
    assert texts("list", ["stage=mid, bias=0.0"]) == [REFERENCE, "stage=mid, bias=0.0", "stage=all, bias=2.0"]
    assert texts("search") == [REFERENCE, "stage=all, bias=2.0"]


def test_a_list_may_name_numbers_between_the_levels() -> None:
    config = conf.load(["mode=list", "cells=[threshold=0.45, threshold=0.5]"], SWEEP.preset)
    sweep, cells = resolve(SWEEP, config)
    assert [cell.text for cell in cells] == [REFERENCE, "threshold=0.45", "threshold=0.5"]
    assert sweep.factors[0].levels == (0.3, 0.4, 0.45, 0.5, 0.6, 0.7)


@pytest.mark.parametrize(("words", "message"), [
    (["mode=list"], "mode=list runs the cells that cells=[…] names, and it names none"),
    (["cells=[threshold=0.5]"], "is for mode=list, but mode=grid"),
    (["mode=list", "cells=[threshold=high]"], "cells=threshold=high: threshold=high; expected a number"),
    (["mode=list", "cells=[treshold=0.5]"], "cells=treshold=0.5: expected threshold=…"),
    (["mode=list", "cells=[threshold=1.5]"], "method.gate.threshold=1.5"),
    (["candidates=3"], "candidates is for mode=search, but mode=grid"),
    (["mode=search", "objectives=[beauty]"], "objectives=beauty: not a metric of threshold"),
    (["mode=search", "objectives=[gate_closed]"], "objectives=gate_closed: not a metric of threshold that has a better direction"),
    (["mode=search", "objectives=[success,fid]", "prune=seeds"], "only one metric can tell what is hopeless"),
    (["mode=search", "prune=seeds", "seeds=1"], "prune=seeds with seeds=1: there is no later seed to leave out"),
])
def test_what_a_mode_does_not_know_is_refused(words: list[str], message: str) -> None:
    with pytest.raises((PlanError, conf.ConfigError), match=re.escape(message)):
        resolve(SWEEP, conf.load(words, SWEEP.preset), words)


def test_seeds_may_begin_elsewhere() -> None:
    assert seeds_of(conf.load(["seed=3", "seeds=2"], SWEEP.preset)) == [3, 4]


def test_the_readme_shows_a_sweep_that_works(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    source = next(block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "SWEEP = Sweep(" in block)
    scope: dict = {"__name__": "sweeps.warmup"}
    exec(compile(source, "warmup.py", "exec"), scope)
    sweep, cells = resolve(scope["SWEEP"], conf.load([], scope["SWEEP"].preset))
    assert len(cells) == 4 and len([line for line in source.splitlines() if line]) <= 20
