"""What a plan refuses since its records, prompts or models cannot give it, before any trial."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.coco_files import (
    write_captioned_split,
)

from conf import load as conf
from lightning_modules.backbone.weights import shipped_folder
from sweeps.engine.catalogue import discover
from sweeps.engine.errors import PlanError
from sweeps.engine.preview import print_preview
from sweeps.engine.request import Request
from sweeps.engine.resolve import resolve

SWEEPS = {sweep.name: sweep for sweep in discover()}


def request(name: str, *words: str) -> Request:
    sweep = SWEEPS[name]
    return resolve(sweep, conf.load(words, sweep.preset), words)


def own_data(root: Path, output: Path) -> list[str]:
    return [
        *(f"output={output}", "data=coco", f"data.root={root}", "data.train_split=train"),
        *("evaluation.splits=[train]", "evaluation.prompts=null", "data.min_phrases=0"),
        *("data.train_images=null", "trainer.batch=2", "evaluation.detector=none"),
        *(f"evaluation.extractor={root}", "evaluation.precision_recall_k=1"),
        *("evaluation.attention=false", "evaluation.follow_masks=false", "headline=precision"),
    ]


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("threshold", ["evaluation.splits=[hedlout]"], "did you mean heldout"),
        ("scene_losses", ["evaluation.splits=[val]"], "'val': this dataset has subjects"),
    ],
)
def test_splits_that_are_not_rendered_are_refused(
    name: str, words: list[str], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        request(name, *words).check_records()


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("threshold", ["evaluation.splits=[one]", "headline=relation_rate"], "no prompt states"),
        (
            "sepen_losses",
            ["evaluation.splits=[one]", "headline=map_overlap"],
            "names more than one",
        ),
        ("threshold", ["data.min_phrases=6"], "no image with a caption of 6 noun phrases"),
        (
            "gate_signal",
            ["headline=gate_mask_iou", "method.gate.attention=self"],
            "headline=gate_mask_iou: no trial can give it: method.gate.attention=self",
        ),
        (
            "threshold",
            ["method.gate.supervision=none", "method.gate.denoising_weight=1"]
            + ["evaluation.metrics=[mask_adherence]", "headline=orientation_error"],
            "no trial can give it",
        ),
        ("threshold", ["evaluation.extractor=/no/model"], "extractor=/no/model: no such folder"),
        ("threshold", ["evaluation.detector=/no/model"], "detector=/no/model: no such folder"),
        ("threshold", ["evaluation.extractor=vgg16"], "vgg16 has no weights"),
        (
            "threshold",
            ["evaluation.extractor=vgg16", "evaluation.extractor_weights=no.pt"],
            "no.pt",
        ),
    ],
)
def test_what_no_trial_can_give_is_refused_by_the_plan(
    name: str, words: list[str], message: str, tmp_path: Path
) -> None:
    asked = request(name, f"output={tmp_path / 'runs'}", "evaluation.prompts=8", *words)
    with pytest.raises(PlanError, match=message):
        asked.check_records()
    assert not (tmp_path / "runs").exists()


def test_relations_that_some_prompts_state_are_planned(tmp_path: Path) -> None:
    words = ["evaluation.splits=[relation]", "headline=relation_rate", "evaluation.prompts=8"]
    assert request("threshold", f"output={tmp_path}", *words).check_records() == []


def test_a_plan_says_what_never_happens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"output={tmp_path / 'runs'}", "evaluation.prompts=8", "launch=nosuchprogram"]
    print_preview(request("threshold", *words, "trainer.steps=4", "trainer.warmup=5"))
    shown = " ".join(capsys.readouterr().out.split())
    assert "trainer.warmup=5 with trainer.steps=4: the learning rate still rises" in shown
    assert "launch=nosuchprogram: there is no program 'nosuchprogram' on this machine" in shown
    print_preview(request("threshold", *words[:2], "trainer.steps=5", "trainer.warmup=5"))
    shown = capsys.readouterr().out
    assert "trainer.warmup" not in shown and "launch" not in shown


@pytest.mark.parametrize("name", ["mask_training", "threshold"])
def test_a_plan_refuses_data_without_the_masks_that_it_trains_on(name: str, tmp_path: Path) -> None:
    root = write_captioned_split(tmp_path / "data", ["A dog sleeps."] * 4, masked=0)
    words = [*own_data(root, tmp_path / "runs")]
    with pytest.raises(PlanError, match="0 of 4 images with masks"):
        request(name, *words).check_records()


def test_a_plan_says_what_share_of_the_data_has_masks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = ["A dog sleeps.", "A dog runs.", "A dog sits.", "Nothing but snow."]
    root = write_captioned_split(tmp_path / "data", captions, masked=3)
    asked = request("threshold", *own_data(root, tmp_path / "runs"))
    print_preview(asked)
    shown = " ".join(capsys.readouterr().out.split())
    assert "3 of 4 images of 'train'" in shown and "with masks or boxes of objects" in shown


def test_a_plan_tells_each_note_on_the_data_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = ["A dog sleeps.", "A dog runs.", "A dog sits.", "A lost dog."]
    root = write_captioned_split(tmp_path / "data", captions, masked=3)
    (root / "train" / "000000000004.jpg").unlink()
    print_preview(request("threshold", *own_data(root, tmp_path / "runs")))
    shown = " ".join(" ".join(capsys.readouterr()).split())
    assert shown.count("missing 1 (first: ") == 1


def test_a_plan_refuses_a_training_set_that_makes_no_batch(tmp_path: Path) -> None:
    root = write_captioned_split(tmp_path / "data", ["A dog sleeps."] * 3, masked=3)
    words = [*own_data(root, tmp_path / "runs"), "trainer.batch=4"]
    with pytest.raises(PlanError, match="3 training samples, which make no batch of trainer.batch"):
        request("threshold", *words).check_records()


def test_a_plan_refuses_too_few_images_for_recall(tmp_path: Path) -> None:
    root = write_captioned_split(tmp_path / "data", ["A dog sleeps."] * 3, masked=3)
    words = own_data(root, tmp_path / "runs")
    with pytest.raises(PlanError, match="3 real images and .* too few for"):
        request("threshold", *words, "evaluation.precision_recall_k=3").check_records()


def test_a_plan_reads_a_file_of_detections(tmp_path: Path) -> None:
    root = write_captioned_split(tmp_path / "data", ["A dog sleeps."] * 3, masked=3)
    (tmp_path / "seen.jsonl").write_text(json.dumps({"image": 0}))
    words = own_data(root, tmp_path / "runs")
    for file, message in (
        ("none.jsonl", "there is no such file of detections"),
        ("seen.jsonl", "a list 'detections'"),
    ):
        with pytest.raises(PlanError, match=message):
            request("threshold", *words, f"evaluation.detector={tmp_path / file}").check_records()
        # Where it only draws it is not opened: what is said is what comes after
        words_of = [*words, f"evaluation.detector={tmp_path / file}", "evaluation.draw_only=true"]
        with pytest.raises(PlanError, match="no prompt says what it wants"):
            request("threshold", *words_of).check_records()


def test_a_plan_refuses_places_that_cannot_keep_results(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for output in ("file", "file/runs"):
        words = [f"output={tmp_path / output}"]
        with pytest.raises(PlanError, match=rf"output={tmp_path / output}.*{tmp_path}/file is a"):
            print_preview(request("threshold", *words))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    words = [f"output={tmp_path / 'a' / 'b'}", f"tracking_uri={address}"]
    with pytest.raises(PlanError, match=f"no MLflow server answers at tracking_uri={address}"):
        print_preview(request("threshold", *words))
    assert not (tmp_path / "a").exists()


@pytest.mark.slow
def test_a_plan_with_a_folder_of_weights_prints_the_plan_alone(tmp_path: Path) -> None:
    words = [
        f"backbone={shipped_folder('embedded')}",
        "evaluation.steps=2000",
        "--plan",
        f"output={tmp_path}",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "sweeps.threshold", *words], capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == ""
    assert re.fullmatch("error: .*evaluation.steps=2000: .*\n", done.stderr), done.stderr


def test_a_plan_whose_cells_train_on_each_prompt_counts_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_preview(request("smoothing", f"output={tmp_path}", "method.separate.test_time=2"))
    assert "images)" in " ".join(capsys.readouterr().out.split())
