"""What a run refuses before anything is loaded or written, and what it lets pass."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from conf import load as conf
from conf.schema import Data, Evaluation, Run, Trainer
from lightning_modules.training import run as train
from lightning_modules.training.checks import check

PLAIN = Run(
    data=Data(train_images=16, eval_images=4),
    trainer=Trainer(batch=4),
    evaluation=Evaluation(prompts=4),
)
SCENE = {"data.name": "scene"}
SCENE_RUN = {**SCENE, "method.subjects.prior_weight": 1.0}
TWO = {**SCENE, "method.subjects.tokens": ["<a>", "<b>"]}
OWN = {"data.name": "coco", "data.root": "/x", "evaluation.prompts": 0}
PROMPTS = {"data.name": "prompts", "data.root": "p", "evaluation.prompts": 0}
SUBJECTS = [
    ({"method.subjects.tokens": ["<a>"]}, r"tokens=\['<a>'\] with data=shapes.*data=scene"),
    ({"method.subjects.tokens": ["<a>"], **OWN}, r"tokens=\['<a>'\] with data=coco"),
    ({**TWO, "method.subjects.classes": ["dog"]}, r"classes=\['dog'\]: 1 class for 2 tokens"),
    ({"method.subjects.schedule": "tokens_only"}, "schedule=tokens_only with data=shapes"),
    (
        {"method.weights.trainable": "none", "method.masks.trained": False},
        "weights.trainable=none with data=shapes: nothing would be trained",
    ),
    (
        {"method.subjects.stock_words": True, "method.weights.text_encoder": False},
        "stock_words=true with method.weights.text_encoder=false, rank=0",
    ),
    ({**SCENE, "backbone.resolution": 512}, "backbone.resolution=512 with data=scene.*64 pixels"),
    ({**SCENE, "data.root": "/x"}, "detector=judge with data.name='scene': .*embedded world"),
    ({"evaluate_with": {"method.weights.rank": 4}}, "weights.rank cannot change after training"),
    (
        {**TWO, "evaluate_with": {"method.subjects.tokens": ["<c>", "<d>"]}},
        "method.subjects.tokens cannot change after training",
    ),
]


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        *((method, *case) for case in SUBJECTS for method in ("mcgm", "break_a_scene")),
        ("maskattn", SCENE, "method=maskattn with data=scene: a scene is for .*mcgm"),
        ("maskattn", PROMPTS, "method=maskattn with data=prompts: prompts without images"),
        (
            "maskattn",
            {"data.name": "coco", "data.root": "/x"},
            "the judge knows only the embedded world.*evaluation.prompts=0",
        ),
        (
            "maskattn",
            {
                **{"data.name": "coco", "data.root": "/x", "evaluation.vqa": "judge"},
                **{"evaluation.detector": "none", "evaluation.extractor": "none"},
            },
            "evaluation.vqa=judge with data.name='coco': the judge knows only the embedded",
        ),
        (
            "maskattn",
            {"evaluation.wording": "order", "evaluation.follow_masks": True},
            "evaluation.wording=order with follow_masks=true: only prompts of the embedded world",
        ),
        (
            "maskattn",
            {"data.name": "coco", "evaluation.prompts": 0},
            "data.root=auto with data=coco",
        ),
        ("maskattn", {"backbone.resolution": 512}, "resolution=512 with data=shapes: .*64 pixels"),
        ("maskattn", {"data.train_images": 3}, "train_images=3 make no batch of trainer.batch=4"),
        (
            "maskattn",
            {"trainer.devices": 5},
            "16 make no batch of trainer.batch=4 on each of trainer.devices=5: lower it",
        ),
        (
            "maskattn",
            {"trainer.accumulate": 5},
            "16 make no batch of trainer.batch=4, trainer.accumulate=5 times: lower it",
        ),
        (
            "maskattn",
            {"evaluation.splits": []},
            r"splits=\[\] names no split.*evaluation.prompts=0",
        ),
        (
            "maskattn",
            {"method.gate.stage": "low", "method.gate.placement": "encoder"},
            "stage=low with method.gate.placement=encoder: .*mid block.*placement=both",
        ),
        *(
            (method, {**extra, "method.separate.kernel": 33}, "kernel=33 .*side=16: .*at most 31")
            for method, extra in (
                ("separate_enhance", {}),
                ("maskattn", {"method.gate.supervision": "separate_enhance"}),
            )
        ),
        *(
            (method, {**SCENE_RUN, "method.subjects.prior_steps": 2000}, "prior_steps=2000: ")
            for method in ("mcgm", "break_a_scene")
        ),
        ("maskattn", {"evaluation.splits": ["val", "val"]}, "splits names 'val' twice"),
        ("maskattn", {"evaluation.steps": 2000}, "evaluation.steps=2000: .*1,000 noise levels"),
        ("maskattn", {"evaluation.prompts": 1}, "3 prompts .* evaluation.precision_recall_k=3"),
        ("maskattn", {"evaluate_with": {"evaluation.prompts": 1}}, "3 prompts in all"),
        ("maskattn", {"evaluation.precision_recall_k": 12}, "12 prompts in all"),
        (
            "maskattn",
            {"evaluation.detector": "none", "evaluation.extractor": "none"},
            "nothing would be measured",
        ),
        (
            "maskattn",
            {"evaluation.detector": "/nowhere/found.jsonl"},
            "evaluation.detector=/nowhere/found.jsonl: there is no such file of detections",
        ),
        (
            "maskattn",
            {"evaluation.draw_only": True, "evaluation.prompts": 0},
            "evaluation.draw_only=true with evaluation.prompts=0: nothing would be drawn",
        ),
        (
            "maskattn",
            {"evaluate_with": {"evaluation.draw_only": True}},
            "evaluate_with has evaluation.draw_only: set it by its own name",
        ),
        ("maskattn", {"method.init": "/nowhere"}, "method.init='/nowhere' is no adapter: .*json"),
        (
            "maskattn",
            {"method.gate.denoising_weight": 0.0},
            "denoising_weight=0 with method.gate.supervision=none .*: nothing would be trained",
        ),
        (
            "maskattn",
            {
                "method.gate.denoising_weight": 0.0,
                "method.gate.supervision": "masks",
                "method.gate.supervision_weight": 0.0,
            },
            "denoising_weight=0 with method.gate.supervision=masks of weight 0",
        ),
        (
            "maskattn",
            {"method.gate.gradient": "released", "method.gate.mode": "soft"},
            "gradient=released with method.gate.mode=soft",
        ),
        ("maskattn", {"method.gate.supervision": "oracle", **OWN}, "oracle needs data=shapes"),
        (
            "maskattn",
            {"evaluate_with": {"method.gate.width": 16}},
            "method.gate.width cannot change after training: .*use when=train",
        ),
        *(
            (method, {"evaluate_with": {key: value}}, f"^{key} cannot change after training: ")
            for method, key, value in (
                ("maskattn", "trainer.lr", 0.1),
                ("maskattn", "backbone.dtype", "bfloat16"),
                ("maskattn", "data.flip", True),
                ("maskattn", "method", "mcgm"),
                ("maskattn", "method.gate.bias", 0.0),
                ("maskattn", "method.gate.supervision_weight", 0.5),
                ("mcgm", "method.masks.lambda_m", 0.0),
                ("mcgm", "method.masks.dropout", 0.0),
                ("separate_enhance", "method.separate.enhance_weight", 0.0),
                ("separate_enhance", "method.separate.control", "denoising"),
                ("separate_enhance", "method.weights.trainable", "q"),
            )
        ),
        (
            "maskattn",
            {"evaluate_with": {"method.gate.mode": "learned"}},
            "method.gate.mode=learned cannot change after training",
        ),
        (
            "mcgm",
            {"evaluate_with": {"method.masks.encoder": "conv"}},
            "^method.masks.encoder cannot change after training",
        ),
        (
            "mcgm",
            {"evaluate_with": {"method.masks.text_binding": "none"}},
            "^method.masks.text_binding cannot change after training",
        ),
        ("mcgm", {**SCENE, "data.drop_captions": 0.1}, "drop_captions=0.1 with data=scene"),
        ("separate_enhance", {"data.drop_captions": 1.0}, "drop_captions=1: no caption would be"),
        (
            "separate_enhance",
            {"method.separate.inputs": "images", **PROMPTS},
            "data=prompts.* no images",
        ),
        (
            "separate_enhance",
            {"data.concepts": ["red ring", "cross"], "data.cache": "all"},
            "data.cache=all keeps encoded captions",
        ),
        ("maskattn", {"data.concepts": ["red ring"]}, "data.concepts with method=maskattn"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(
    method: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        check(conf.replace(PLAIN, {"method.name": method} | changes))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {},
        SCENE,
        {**TWO, "method.subjects.classes": ["dog", ""]},
        {**SCENE, "method.subjects.classes": ["dog", "cat"]},
        {**TWO, "method.subjects.schedule": "tokens_only"},
        {**SCENE, "data.root": "/x", "evaluation.prompts": 0, "backbone.resolution": 512},
        {**SCENE, "method.name": "untouched"},
        {**SCENE, "data.train_images": 1},
        {"data.train_images": 4, "evaluation.precision_recall_k": 7},
        {"evaluation.detector": "/nowhere/found.jsonl", "evaluation.draw_only": True},
        {
            "evaluation.detector": "none",
            "evaluation.extractor": "none",
            "evaluation.draw_only": True,
        },
        {"data.train_images": 3, "trainer.batch": 1, "trainer.devices": 3},
        {**SCENE, "method.name": "break_a_scene"},
        {"method.name": "separate_enhance", **PROMPTS},
    ],
)
def test_what_goes_together_passes(changes: dict[str, Any]) -> None:
    check(conf.replace(PLAIN, {"method.name": "mcgm", **changes}))


def test_a_refused_run_writes_nothing(base: Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="64 pixels"):
        train.run(conf.replace(base, {"backbone.resolution": 512}), tmp_path / "trial")
    assert not (tmp_path / "trial").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"evaluation.prompts": 5},
            "evaluation.prompts=5 with data.eval_images=4, .*: set data.eval_images to 5",
        ),
        (
            {"evaluation.splits": ["val", "test"]},
            "evaluation.splits names 'test': this dataset has train, val, heldout",
        ),
        ({"evaluate_with": {"evaluation.prompts": 5}}, "evaluation.prompts=5"),
        pytest.param(
            {"trainer.accelerator": "gpu"},
            "this machine has none",
            marks=pytest.mark.skipif(
                torch.cuda.is_available() or torch.backends.mps.is_available(),
                reason="there is a GPU",
            ),
        ),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_training(
    base: Run, tmp_path: Path, changes: dict, message: str
) -> None:
    config = conf.replace(base, {"seed": 20} | changes)
    with pytest.raises(ValueError, match=message):
        train.run(config, tmp_path)
    assert not (Path(base.output) / "adapters" / train.training_key(config)).exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "method: maskattn\nmethod.masks.lambda_m: 3\n",
            ["method.masks.lambda_m=3.0", "method=mcgm"],
        ),
        (
            "method: {name: maskattn, gate: {keep: 0.2}}\n",
            ["method.gate.keep=0.2", "method.gate.mode=topk"],
        ),
        ("evaluate_with: {method.gate.keep: 0.2}\n", ["method.gate.keep=0.2"]),
        ("method: untouched\ntrainer: {lr: 0.1}\n", ["trainer.lr=0.1", "method.name=untouched"]),
        ("data: {joins: [and]}\n", ["data.joins=[and]", "data.concepts"]),
        ("evaluation: {masks: blank}\n", ["evaluation.masks=blank", "_guidance or mcgm"]),
    ],
)
def test_what_a_file_sets_and_nothing_reads_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any, text: str, words: list
) -> None:
    monkeypatch.setattr(train, "run", lambda *args, **kwargs: {"metrics": {}})
    (tmp_path / "run.yaml").write_text(text)
    assert train.main([str(tmp_path / "run.yaml")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "nothing reads it" in line and all(word in line for word in words)


def test_a_file_that_was_written_whole_may_hold_what_its_method_does_not_read(
    base: Run, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(train, "run", lambda *args, **kwargs: {"metrics": {}})
    path = tmp_path / "run.yaml"
    conf.write(conf.replace(base, {"method.masks.lambda_m": 3.0}), path)
    assert train.main([str(path)]) == 0
    # By a version that had one setting less
    path.write_text(path.read_text().replace("  workers: 0\n", ""))
    assert train.main([str(path)]) == 0


def test_the_command_says_what_is_wrong_in_one_line(
    base: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    conf.write(conf.replace(base, {"backbone.resolution": 512}), tmp_path / "run.yaml")
    assert train.main([str(tmp_path / "run.yaml")]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: backbone.resolution=512 with data=shapes: the embedded world has 64 pixels"
    ]
    assert train.main([]) == 2 and train.main(["--help"]) == 0
    assert train.main(["run.yaml", "trainer.steps=3"]) == 2
    assert "python -m lightning_modules.train run.yaml" in capsys.readouterr().out

    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    conf.write(base, tmp_path / "run.yaml")
    monkeypatch.setattr(train, "run", interrupt)
    assert train.main([str(tmp_path / "run.yaml")]) == 130


def test_more_steps_than_noise_levels_are_refused_at_once() -> None:
    for steps in (1001, 10_000):
        config = conf.replace(Run(), {"evaluation.steps": steps})
        with pytest.raises(ValueError, match=rf"evaluation\.steps={steps}: .*1,000 noise levels"):
            check(config)


@pytest.mark.parametrize(
    "setting",
    [
        *("data.train_images=1000000000000", "data.eval_images=1000000000"),
        *("evaluation.noise_seeds=1000000000", "evaluation.guidance=1e300"),
        *("method.gate.width=100000000000", "method.gate.depth=1000000", "data.workers=100000"),
        *("method.weights.rank=100000000", "backbone.resolution=1000000000"),
    ],
)
def test_sizes_that_no_machine_holds_are_refused(setting: str) -> None:
    key, _, value = setting.partition("=")
    with pytest.raises(ValueError, match=rf"{re.escape(key)}={re.escape(value[:1])}.*at most"):
        check(conf.load([setting], schema=Run))
