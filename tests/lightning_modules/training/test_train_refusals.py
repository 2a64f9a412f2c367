"""What one run refuses, how early and in which words, and what its adapter is keyed by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from conf import load as conf
from conf.schema import Run
from lightning_modules.training import run as train


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"evaluation.steps": 50}, True),
        ({"evaluate_with": {"method.gate.threshold": 0.7}}, True),
        ({"output": "elsewhere"}, True),
        ({"data.eval_images": 99}, True),
        ({"trainer.checkpoint_every": 7}, True),
        ({"seed": 1}, False),
        ({"method.gate.threshold": 0.7}, False),
        ({"trainer.lr": 0.1}, False),
        ({"backbone.path": "embedded"}, False),
        ({"data.train_images": 99}, False),
        ({"data.min_phrases": 2}, False),
    ],
)
def test_the_key_of_an_adapter_holds_what_training_depends_on(base: Run, changes: dict, same: bool):
    assert (train.training_key(conf.replace(base, changes)) == train.training_key(base)) == same


def test_other_weights_below_the_same_path_make_another_adapter(base: Run, tmp_path: Path):
    weights = tmp_path / "backbone" / "unet" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    config = conf.replace(base, {"backbone.path": str(tmp_path / "backbone")})
    weights.write_bytes(b"one")
    first = train.training_key(config)
    weights.write_bytes(b"two")
    second = train.training_key(config)
    weights.write_bytes(b"one")
    assert second != first == train.training_key(config)


def test_an_adapter_to_start_from_counts_by_its_weights(base: Run, tmp_path: Path):
    keys = []
    for name, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter.safetensors").write_bytes(content)
        keys.append(train.training_key(conf.replace(base, {"method.init": str(tmp_path / name)})))
    assert keys[0] == keys[1] and len({*keys, train.training_key(base)}) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data.name": "coco", "data.root": "/x"},
            ("the judge knows only the embedded world.*evaluation.prompts=0"),
        ),
        (
            {"backbone.resolution": 512},
            ("backbone.resolution=512 with data=shapes: the embedded world has 64 pixels"),
        ),
        ({"data.train_images": 3}, "data.train_images=3 make no batch of trainer.batch=4"),
        (
            {"evaluation.prompts": 1},
            ("2 prompts in all are too few for evaluation.precision_recall_k=3"),
        ),
        ({"evaluate_with": {"evaluation.prompts": 1}}, "2 prompts in all"),
        (
            {"method.init": "/nowhere"},
            (
                "method.init='/nowhere' is no adapter: expected a folder with adapter.json and "
                "adapter.safetensors"
            ),
        ),
        (
            {"method.gate.denoising_weight": 0.0},
            ("denoising_weight=0 with method.gate.supervision=none .*: nothing would be trained"),
        ),
        (
            {
                "method.gate.denoising_weight": 0.0,
                "method.gate.supervision": "masks",
                "method.gate.supervision_weight": 0.0,
            },
            (
                "denoising_weight=0 with method.gate.supervision=masks of weight 0: "
                "nothing would be trained"
            ),
        ),
        (
            {"method.gate.gradient": "released", "method.gate.mode": "soft"},
            ("gradient=released with method.gate.mode=soft"),
        ),
        (
            {
                "method.gate.supervision": "oracle",
                "data.name": "coco",
                "data.root": "/x",
                "evaluation.prompts": 0,
            },
            "supervision=oracle needs data=shapes",
        ),
        (
            {"evaluate_with": {"method.gate.width": 16}},
            ("method.gate.width cannot change after training: .*use when=train"),
        ),
        (
            {"evaluate_with": {"method.gate.mode": "learned"}},
            ("method.gate.mode=learned cannot change after training"),
        ),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_written(
    base: Run, tmp_path: Path, changes: dict, message: str
):
    with pytest.raises(ValueError, match=message):
        train.run(conf.replace(base, changes), tmp_path / "trial")
    assert not (tmp_path / "trial").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"evaluation.prompts": 5},
            ("evaluation.prompts=5 but split 'val' has 4 images: set data.eval_images higher"),
        ),
        (
            {"evaluation.splits": ["val", "test"]},
            ("evaluation.splits names 'test': this dataset has train, val, heldout"),
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
):
    config = conf.replace(base, {"seed": 20} | changes)
    with pytest.raises(ValueError, match=message):
        train.run(config, tmp_path)
    assert not (Path(base.output) / "adapters" / train.training_key(config)).exists()


def test_the_command_says_what_is_wrong_in_one_line(
    base: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
):
    conf.write(conf.replace(base, {"backbone.resolution": 512}), tmp_path / "run.yaml")
    assert train.main([str(tmp_path / "run.yaml")]) == 2
    assert capsys.readouterr().err.splitlines() == [
        ("error: backbone.resolution=512 with data=shapes: the embedded world has 64 pixels")
    ]
    assert train.main([]) == 2 and train.main(["--help"]) == 0
    assert "python -m lightning_modules.train run.yaml" in capsys.readouterr().out

    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    conf.write(base, tmp_path / "run.yaml")
    monkeypatch.setattr(train, "run", interrupt)
    assert train.main([str(tmp_path / "run.yaml")]) == 130
