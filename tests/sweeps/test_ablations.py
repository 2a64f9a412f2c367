"""The ablations of the package: each is found, resolves, and asks what it says."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from helpers.printed_commands import check_printed
from helpers.readme import read_readme_files

import sweeps
from conf import load as conf
from conf.schema import SHIPPED, Run
from sweeps.command import main
from sweeps.engine.catalogue import brief_words, discover, list_words
from sweeps.engine.errors import Declined, PlanError
from sweeps.engine.request import Request
from sweeps.engine.resolve import resolve
from sweeps.presets import DETAILS, HEADLINES, MASKATTN
from sweeps.sweep import Factor, Sweep

ROOT = Path(__file__).parents[2]
SWEEPS = {sweep.name: sweep for sweep in discover()}
EMBEDDED = [name for name, sweep in SWEEPS.items() if not sweep.needs]
OF_GATES = {
    "gate_head": ["parameters", "overhead"],
    "gate_signal": ["gate_mask_iou"],
    "gate_start": ["gates_reopened", "gates_shut"],
    "gating_mode": [],
    "injection_layer": ["overhead"],
    "injection_point": [],
    "self_attention": ["overhead"],
    "threshold": [],
}


def request(sweep: Sweep, *words: str) -> Request:
    return resolve(sweep, conf.load(words, sweep.preset), words)


def runs(sweep: Sweep, *words: str) -> dict[str, Run]:
    """The settings of each cell, by its first level."""
    asked = request(sweep, *words)
    first = sweep.factors[0].key
    return {str(c.values.get(first)): asked.run((c.text, 0)) for c in asked.cells}


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_sweep_resolves_and_is_named_after_its_module(name: str) -> None:
    sweep = SWEEPS[name]
    text = (ROOT / "sweeps" / f"{name}.py").read_text(encoding="utf-8")
    assert f"python -m sweeps.{name}" in text
    asked = request(sweep)
    assert [cell.text for cell in asked.cells] == [cell.text for cell in sweep.cells()]
    blocks = next((len(f.levels) for f in sweep.factors if f.key == sweep.within), 1)
    assert sum(cell.control for cell in asked.cells) == blocks
    # The untouched backbone is a cell of its own, or what the others are compared with
    untouched = [c for c in asked.cells if asked.run((c.text, 0)).method.name == "untouched"]
    if untouched[0].untouched:
        assert len(untouched) == 1
    else:
        # Others are untouched backbones that draw in other ways
        ways = [asked.run((c.text, 0)).evaluation for c in asked.cells if c.control]
        same = [c for c in untouched if asked.run((c.text, 0)).evaluation in ways]
        assert len(same) == blocks and all(cell.control for cell in same)
    brief = brief_words(sweep)
    config = conf.load(brief, sweep.preset)
    short = sweep.with_named(config.cells).cells(config.when, config.mode, config.cells)
    assert 2 < len(short) <= len(asked.cells)
    assert {cell.text for cell in short} <= {cell.text for cell in asked.cells}
    assert brief_words(sweep, ["mode=grid"]) == []


def test_sweeps_that_need_real_weights_decline_in_the_embedded_world() -> None:
    assert sorted(SWEEPS.keys() - set(EMBEDDED)) == ["polysemy"]
    for words in ([], ["backbone=embedded_strong"]):
        with pytest.raises(Declined, match=r"needs real weights.*python -m sweeps\.\w+$"):
            request(SWEEPS["polysemy"], *words)
    asked = request(SWEEPS["polysemy"], "backbone=sdxl")
    assert sum(cell.control for cell in asked.cells) == 2
    assert {"success", "clip_score"} <= {metric.key for metric in asked.sweep.metrics}


def test_a_headline_of_a_model_that_is_not_there_is_refused_in_a_line() -> None:
    with pytest.raises(PlanError, match="'/no/such' cannot be loaded"):
        request(SWEEPS["trainable"], "evaluation.aligners=[/no/such]", "headline=clip_score")


def test_every_backbone_is_compared_with_itself_untouched(tmp_path: Path) -> None:
    words = ["data=coco", f"data.root={tmp_path}", "trainer=paper512", "evaluation=paper"]
    words += ["levels=[sd15,sd21,sdxl,pixart]"]
    asked = request(SWEEPS["backbones"], *words, "headline=fid")
    settings = {cell.text: asked.run((cell.text, 1)) for cell in asked.cells}
    names = {run.backbone.name for run in settings.values()}
    assert names == {"sd15", "sd21", "sdxl", "pixart"} and len(settings) == 12
    for cell in asked.cells:
        assert cell.control == (settings[cell.text].method.name == "untouched")
        assert not cell.untouched
    controls = [cell for cell in asked.cells if cell.control]
    pairs = {c.text: asked.sweep.control_of(c, controls) for c in asked.cells if not c.control}
    assert len(pairs) == 8
    for text, control in pairs.items():
        assert control and control.text.split(",")[0] == text.split(",")[0]


def test_a_backbone_that_is_a_level_has_no_defaults_of_the_embedded_one(tmp_path: Path) -> None:
    words = ["data=coco", f"data.root={tmp_path}", "evaluation.splits=[val2014]", "headline=fid"]
    words += ["evaluation.detector=none", "evaluation.extractor=inception", "trainer=paper512"]
    words += ["levels=[sd15,sdxl]"]
    with pytest.raises(conf.ConfigError, match="with backbone=.*evaluation.steps.*guidance"):
        request(SWEEPS["backbones"], *words)
    asked = request(SWEEPS["backbones"], *words, "evaluation.steps=30", "evaluation.guidance=5")
    assert {asked.run((c.text, 0)).trainer.steps for c in asked.cells} == {100_000}


@pytest.mark.parametrize(("name", "key"), [("generalisation", "concepts"), ("objects", "splits")])
def test_levels_of_the_embedded_data_are_no_levels_of_others(name: str, key: str) -> None:
    words = ["data=prompts", "data.root=attend_and_excite", "evaluation.extractor=none"]
    words += ["evaluation.detector=d", "evaluation.attention=false", "headline=success"]
    with pytest.raises(PlanError, match=rf"the levels of .*{key} in {name} .* levels=\["):
        request(SWEEPS[name], *words)
    given = "levels=[[],[dog,cat]]" if key == "concepts" else "levels=[[attend_and_excite]]"
    assert len(request(SWEEPS[name], *words, given).cells) > 1


def test_backbones_needs_nothing_that_does_not_come_with_the_package() -> None:
    """Nor opens the weights: a plan is there before they are."""
    asked = request(SWEEPS["backbones"])
    settings = {c.text: (c, asked.run((c.text, 0))) for c in asked.cells}
    assert {run.backbone.path for _, run in settings.values()} == set(SHIPPED)
    assert len(settings) == 6 and sum(cell.control for cell, _ in settings.values()) == 2
    for cell, run in settings.values():
        assert run.backbone.name == run.backbone.path == cell.values["backbone"]
        assert (run.data.name, run.evaluation.detector) == ("shapes", "judge")
        assert (run.evaluation.steps, run.backbone.resolution) == (8, 64)
        assert run.method.gate.supervision == ("masks" if run.method.name == "maskattn" else "none")
    assert {run.trainer.lr for _, run in settings.values()} == {2e-3, 1.5e-3}


def test_a_folder_is_a_level_of_backbones() -> None:
    folder = ROOT / "lightning_modules" / "embedded" / "assets" / "backbone"
    levels = f"levels=[embedded,{folder}]"
    asked = request(SWEEPS["backbones"], levels, "trainer.accelerator=gpu")
    own = asked.run((asked.cells[-1].text, 0)).backbone
    assert (own.name, own.resolution, own.dtype) == ("backbone", 64, "float16")  # As it is stored
    assert len(asked.cells) == 6
    with pytest.raises(PlanError, match="backbone is what this sweep varies"):
        request(SWEEPS["backbones"], levels, "backbone.dtype=float16")


def test_released_presets_differ_from_sound_ones_in_nothing_that_trains() -> None:
    asked = request(SWEEPS["released"])
    settings = {tuple(c.values.values()): asked.run((c.text, 0)) for c in asked.cells}
    for name in ("maskattn", "mcgm", "separate_enhance"):
        sound, released = settings[name, "sound"], settings[name, "released"]
        assert sound.method.name == released.method.name == name and sound.method != released.method
        alike = dataclasses.replace(released.trainer, timesteps=sound.trainer.timesteps)
        assert sound.trainer == alike and sound.method.weights == released.method.weights
        noisier = "uniform" if name == "maskattn" else "high_noise"
        assert (sound.trainer.timesteps, released.trainer.timesteps) == (noisier, "uniform")
    assert settings["mcgm", "released"].method.masks.mask_scope == "everywhere"
    assert settings["maskattn", "released"].method.gate.bias == 0


def test_the_command_line_goes_over_what_levels_stand_for() -> None:
    methods = SWEEPS["methods"]
    plain = runs(methods)["mcgm"].trainer
    assert (plain.steps, plain.lr) == (100, 2e-3)
    changed = runs(methods, "trainer.steps=7", "method.gate.threshold=0.4")
    steps = {run.trainer.steps for run in changed.values() if run.method.name != "untouched"}
    assert steps == {7} and changed["mcgm"].trainer.lr == 2e-3
    gate = changed["maskattn"].method.gate
    assert (gate.threshold, gate.supervision) == (0.4, "masks")
    sampled = {name: run.trainer.timesteps for name, run in runs(methods).items()}
    assert (sampled["mcgm"], sampled["break_a_scene"]) == ("high_noise", "uniform")
    asked = runs(methods, "trainer.timesteps=logit_normal").values()
    trained = {run.trainer.timesteps for run in asked if run.method.name != "untouched"}
    assert trained == {"logit_normal"}
    named = {run.trainer.lr for run in runs(methods, "trainer=paper512").values()}
    assert named == {conf.load(["trainer=paper512"]).trainer.lr}
    with pytest.raises(PlanError, match="each level of recipe is a method of its own"):
        request(methods, "method=mcgm")
    with pytest.raises(PlanError, match="make mcgm and mcgm without masks of recipe the same"):
        request(methods, "evaluation.masks=target")
    # If one level alone names a method, the others have the one that was asked for
    asked = request(SWEEPS["objects"], "method=separate_enhance_released")
    found = {str(c.values["change"]): asked.run((c.text, 0)).method for c in asked.cells}
    assert found["trained"].separate.tokens == "released" and found["none"].name == "untouched"


@pytest.mark.parametrize("name", ["released", "backbones", "phases", "generalisation"])
def test_what_acts_in_training_alone_is_not_varied_after_it(name: str) -> None:
    levels = ["levels=[embedded]"] if name == "backbones" else []
    with pytest.raises(PlanError, match="acts in training, .*: use when=train"):
        request(SWEEPS[name], "when=evaluate", *levels)


@pytest.mark.parametrize("name", OF_GATES)
def test_the_sweeps_of_gates_start_alike_and_measure_alike(name: str) -> None:
    sweep = SWEEPS[name]
    assert sweep.preset.items() >= MASKATTN.items() and "2509.15357" in sweep.origin
    assert sweep.metrics[: len(HEADLINES)] == HEADLINES
    assert sweep.metrics[-len(DETAILS) :] == DETAILS
    between = sweep.metrics[len(HEADLINES) : -len(DETAILS)]
    assert [metric.key for metric in between] == OF_GATES[name]


MODES = [
    (["mode=list"], "mode=list runs the cells that cells=[…] names, and it names none"),
    (["cells=[threshold=0.5]"], "is for mode=list, but mode=grid"),
    (["mode=list", "cells=[threshold=high]"], "threshold=high; expected a number"),
    (["mode=list", "cells=[treshold=0.5]"], "cells=treshold=0.5: expected threshold=…"),
    (["mode=list", "cells=[threshold=1.5]"], "method.gate.threshold=1.5"),
    (["candidates=3"], "candidates is for mode=search, but mode=grid"),
    (["mode=search", "objectives=[beauty]"], "objectives=beauty: not a metric of threshold"),
    (["mode=search", "objectives=[gate_closed]"], "that has a better direction"),
    (["mode=search", "objectives=[success,fid]", "prune=seeds"], "only one metric"),
    (["mode=search", "prune=seeds", "seeds=1"], "there is no later seed to leave out"),
]


@pytest.mark.parametrize(("words", "message"), MODES)
def test_what_a_mode_does_not_know_is_refused(words: list[str], message: str) -> None:
    with pytest.raises((PlanError, conf.ConfigError), match=re.escape(message)):
        request(SWEEPS["threshold"], *words)


LEVELS = [
    ("threshold", "levels=[.2, 0.8]", [0.2, 0.5, 0.8]),
    ("lambda_m", "levels=[1, 3e-2]", [0.03, 0.05, 1.0]),
    ("trainable", "levels=[attn2]", ["attn2", "k"]),
]


@pytest.mark.parametrize(("name", "word", "levels"), LEVELS)
def test_levels_are_read_by_the_type_of_their_setting(name: str, word: str, levels: list) -> None:
    found = request(SWEEPS[name], word).sweep.factors[0].levels
    assert sorted(found) == levels and {*map(type, found)} == {*map(type, levels)}


def test_levels_of_text_stay_as_they_were_written() -> None:
    factor = Factor("fresh", ["a", "b"])
    sweep = Sweep(
        name="fresh",
        question="Which?",
        origin="here",
        factors=[factor],
        control={"fresh": "a"},
        metrics=HEADLINES,
        headline="success",
    )
    asked = request(sweep, "levels=[010, 12e4, 2024_06_01, on]")
    assert list(asked.sweep.factors[0].levels) == ["a", "010", "12e4", "2024_06_01", "on"]
    assert asked.run(("fresh=12e4", 0)).fresh == "12e4"


@pytest.mark.parametrize("word", ["levels=[010,020]", "levels=[0:30]", "levels=[0.5,on]"])
def test_levels_with_two_readings_are_refused(word: str) -> None:
    with pytest.raises(conf.ConfigError, match="threshold=.*levels.*, or "):
        request(SWEEPS["threshold"], word)


def test_levels_in_code_are_typed_wherever_they_stand() -> None:
    factors = [Factor("method.gate.threshold", [0.5, "0.7"]), Factor("trainer.lr", [1, 2])]
    sweep = Sweep(
        name="typed",
        question="Which?",
        origin="here",
        factors=factors,
        control={"method.gate.threshold": 0.5, "trainer.lr": 1},
        without=[{"method.gate.threshold": "0.7", "trainer.lr": 2}],
        metrics=HEADLINES,
        headline="success",
    )
    cells = [cell.text for cell in request(sweep).cells]
    assert cells[1:] == [f"threshold={x}, lr={y}" for x, y in ((0.5, 1.0), (0.5, 2.0), (0.7, 1.0))]
    with pytest.raises(conf.ConfigError, match="an integer"):
        bad = dataclasses.replace(sweep.factors[1], key="trainer.warmup", levels=[1, True])
        request(dataclasses.replace(SWEEPS["threshold"], factors=[bad], control={bad.key: 1}))


def test_words_of_suggested_commands_name_the_same_cells() -> None:
    names = ["stage=mid, bias=0.5", "a=on", "b=010", "c={x: [1]}", 'd="e"', "f=null", "g=é # h"]
    assert conf.load(list_words(names)).cells == names


def test_a_search_has_one_control() -> None:
    with pytest.raises(PlanError, match="released has one for each recipe; use mode=grid"):
        request(SWEEPS["released"], "mode=search")


def test_seeds_may_begin_elsewhere() -> None:
    asked = request(SWEEPS["threshold"], "seed=3", "seeds=2", "levels=[0.5]")
    assert asked.seeds == [3, 4] and asked.run(("threshold=0.5", 4)).seed == 4
    assert [seed for _, seed in asked.keys] == [3, 3, 4, 4]


def test_a_new_file_is_found_by_name_and_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The example of the README, as it stands there."""
    (source,) = read_readme_files("Add an ablation").values()
    assert len([line for line in source.splitlines() if line]) <= 20
    (tmp_path / "warmup.py").write_text(source)
    monkeypatch.setattr(sweeps, "__path__", [*sweeps.__path__, str(tmp_path)])
    (new,) = (sweep for sweep in discover() if sweep.name not in SWEEPS)
    assert importlib.import_module("sweeps.warmup").SWEEP is new
    assert main(new, ["--plan", f"output={tmp_path}"]) == 0
    assert "warmup: 4 cells × 3 seeds = 12 trials" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["headline=overall"], "headline=overall: no trial can give it: no prompts of two_object"),
        (["headline=spatial"], "headline=spatial: no trial can give it"),
        (["headline=success", "evaluation.prompts=9"], "split 'geneval' has 2 and no more"),
        (["headline=success", "evaluation.splits=[other]"], "splits names 'other': this dataset"),
    ],
)
def test_what_the_records_cannot_give_is_refused_at_planning(
    words: list[str], message: str, tmp_path: Path
) -> None:
    lines = [
        {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a bench"},
        {"tag": "single_object", "include": [{"class": "dog", "count": 1}], "prompt": "a dog"},
    ]
    (tmp_path / "geneval.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "seen.json").write_text("{}")
    given = [f"output={tmp_path / 'runs'}", "data=prompts", "evaluation.extractor=none"]
    given += [f"data.root={tmp_path / 'geneval.jsonl'}", "evaluation.attention=false"]
    given += [f"evaluation.detector={tmp_path / 'seen.json'}", "trainer.batch=2"]
    asked = request(SWEEPS["sepen_losses"], *given, *words)
    with pytest.raises(PlanError, match=message):
        asked.check_records()
    request(SWEEPS["sepen_losses"], *given, "headline=success").check_records()


def test_a_suggested_sweep_goes_to_the_same_place() -> None:
    with pytest.raises(PlanError, match="python -m sweeps.generalisation output=/data/my") as told:
        request(SWEEPS["polysemy"], "output=/data/my")
    check_printed(str(told.value))
