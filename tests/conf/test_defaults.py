"""Defaults of the embedded world apply to nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf import load as conf
from conf.describe import describe
from conf.help_page import help_text
from conf.load import ConfigError
from conf.schema import Run, Sweep
from conf.spec import data_sets

MEASURED = ["evaluation.detector=none", "evaluation.extractor=none"]
SAMPLED = ["evaluation.steps=30", "evaluation.guidance=7.5"]
REAL = ["backbone=sd15", "trainer=sepen_joint", *SAMPLED]
PROMPTS = ["data=prompts", "data.root=p.txt", *MEASURED]


def refusal(*words: str, preset: dict | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        conf.load(list(words), preset)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_the_embedded_world_keeps_its_defaults() -> None:
    config = conf.load([])
    assert config == Sweep()
    assert (config.evaluation.prompts, config.evaluation.noise_seeds) == (40, 1)
    assert conf.load(["data=scene", "data.root=auto"]).data.eval_images == 512


def test_prompts_are_measured_whole() -> None:
    config = conf.load(PROMPTS)
    evaluation, data = config.evaluation, config.data
    assert (evaluation.splits, evaluation.prompts, evaluation.noise_seeds) == ([], None, None)
    assert (data.train_images, data.eval_images) == (None, None)
    # What the embedded backbone is drawn with fits this one still
    assert (evaluation.steps, evaluation.guidance) == (8, 3.0)
    fewer = conf.load([*PROMPTS, "evaluation.prompts=56", "evaluation.noise_seeds=1"]).evaluation
    assert (fewer.prompts, fewer.noise_seeds) == (56, 1)


def test_other_backbones_have_no_steps_of_the_embedded_one() -> None:
    text = refusal("backbone=sdxl", *PROMPTS)
    assert "with backbone=sdxl and data=prompts" in text
    for key in ("trainer.steps (40)", "trainer.lr (0.002)", "evaluation.steps (8)"):
        assert key in text
    assert "evaluation.guidance (3.0)" in text and "evaluation.prompts" not in text
    assert conf.load([*REAL, *PROMPTS]).evaluation.steps == 30
    # Nothing is trained, nothing measured: nothing is asked for
    conf.load(["backbone=sdxl", *PROMPTS, "method=untouched", *SAMPLED])
    conf.load(["backbone=sdxl", *PROMPTS, "trainer=paper512", "evaluation.prompts=0"])


def test_a_path_alone_says_neither_size_nor_name(tmp_path: Path) -> None:
    words = [f"backbone.path={tmp_path}/mine", *PROMPTS, "trainer=sepen_joint", *SAMPLED]
    assert "backbone.resolution (64)" in refusal(*words)
    assert conf.load([*words, "backbone.resolution=512"]).backbone.name == "mine"


def test_other_data_say_their_splits_and_models() -> None:
    text = refusal("data=coco", "data.root=/data")
    for key in ("evaluation.splits", "evaluation.detector (judge)", "evaluation.extractor (judge)"):
        assert key in text
    config = conf.load(["data=coco", "data.root=/data", "evaluation=paper"])
    assert (config.evaluation.prompts, config.evaluation.noise_seeds) == (3000, None)
    assert (config.data.train_images, config.data.eval_images) == (None, None)
    scene = conf.load(["data=scene", "data.root=mine", *MEASURED, "evaluation.aligners=[a]"])
    assert (scene.evaluation.splits, scene.evaluation.prompts) == (["prompts"], None)


def test_what_a_sweep_sets_for_the_embedded_world_is_one_of_its_defaults() -> None:
    preset = {
        "method": "break_a_scene",
        "method.subjects.token_lr": 5e-2,
        "method.subjects.prior_prompt": "a red circle and a blue square",
        "method.subjects.first_phase": 0.25,
        "data": "scene",
        "data.root": "auto",
        "trainer.steps": 120,
        "evaluation.splits": ["subjects"],
        "evaluation.prompts": 48,
    }
    inside = conf.load([], preset)
    assert inside.trainer.steps == 120 and inside.evaluation.splits == ["subjects"]
    words = ["backbone=sd21", "data.root=mine", *MEASURED, *SAMPLED]
    assert "trainer.steps (120)" in refusal(*words, preset=preset)
    outside = conf.load([*words, "trainer=scene"], preset)
    subjects = outside.method.subjects
    # As in the paper and its code (arXiv 2305.16311)
    assert (subjects.token_lr, subjects.prior_prompt) == (5e-4, "a photo at the beach")
    assert subjects.prior_images == 100 and subjects.first_phase == 0.25
    assert outside.trainer.steps == 800
    assert (outside.evaluation.splits, outside.evaluation.prompts) == (["prompts"], None)
    # A preset that names data of its own was made for them
    made = {"data": "prompts", "data.root": "polysemy", "evaluation.prompts": 48, **preset}
    made |= {"data": "prompts", "data.root": "polysemy"}
    assert conf.load([*words, "trainer=scene"], made).evaluation.prompts == 48


def test_a_file_of_settings_is_looked_at_alike(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("method.name: untouched\ndata: prompts\ndata.root: p.txt\n")
    with pytest.raises(ConfigError, match="evaluation.detector"):
        conf.read_run(path)
    path.write_text(path.read_text() + "evaluation.detector: none\nevaluation.extractor: none\n")
    config = conf.read_run(path)
    assert config.evaluation.prompts is None and config.evaluation.splits == []
    conf.write(config, path)
    assert conf.read_run(path) == config
    # Written whole, everything is given
    conf.write(Run(), path)
    assert conf.read_run(path) == Run()
    path.write_text("backbone: sd21\nmethod: mcgm\ndata: scene\ndata.root: my_scene\n")
    path.write_text(path.read_text() + "trainer: scene\nevaluation.prompts: 0\n")
    subjects = conf.read_run(path).method.subjects
    assert subjects.prior_prompt == "a photo at the beach" and subjects.token_lr == 5e-4


def test_settings_of_after_the_training_count(tmp_path: Path) -> None:
    late = "evaluate_with={evaluation.steps: 30, evaluation.guidance: 7.5}"
    conf.load(["backbone=sd15", "trainer=sepen_joint", *PROMPTS, late])
    off = "evaluate_with={evaluation.prompts: 0}"
    conf.load(["backbone=sd15", "trainer=sepen_joint", *PROMPTS, off])


def test_help_says_where_a_default_holds() -> None:
    page = help_text("", "")
    assert "other backbone: to be given" in page and "other data: null" in page
    declared = {key for key, setting in describe(Sweep).settings.items() if setting.embedded}
    assert {"evaluation.prompts", "data.eval_images", "trainer.lr"} <= declared


@pytest.mark.parametrize("words", [["data.eval_images=null"], ["data.train_images=null"]])
@pytest.mark.parametrize("data", ["data=shapes", "data=scene"])
def test_what_is_rendered_has_a_number(words: list[str], data: str) -> None:
    config = conf.load([data, "data.root=auto", *words])
    with pytest.raises(ValueError, match="say how many images"):
        data_sets()[config.data.name].check(config)
