"""Recorded facts are those of what ran; where something else was asked for, both are said."""

from __future__ import annotations

import copy
import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from conf.schema import Evaluation, Run
from lightning_modules.backbone import acceleration
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.sampling import sample
from lightning_modules.evaluation import cost
from lightning_modules.tracking.ran import (
    count_prompts,
    list_differences,
    ran_tags,
    read_ran,
    write_ran,
)
from lightning_modules.tracking.watch import TrainingWatch, describe_sampling, watch_denoiser

# As a run of the default settings leaves them
TRAINING: dict[str, Any] = {
    "precision": "32-true",
    "devices": 1,
    "batch": 16,
    "images": 2048,
    "weight_decay": [0.01, 0.0],
    "clip": 1.0,
    "seed": 0,
    "resumed_at": 0,
    "steps": 40,
    "peak_lr": [5e-2, 2e-3],
    "device": "cpu",
    "dtype": "float32",
    "resolution": 64,
    "checkpointed": False,
}
SAMPLING: dict[str, Any] = {
    "dtype": "float32",
    "resolution": 64,
    "calls": 8,
    "compiled": 0,
    "channels_last": False,
    "prompts": {"three": 40, "heldout": 40, "similar": 40},
    "images_per_prompt": 1,
}


def test_what_ran_as_asked_differs_in_nothing() -> None:
    assert list_differences(Run(), Run(), TRAINING, SAMPLING) == {}
    assert list_differences(Run(), Run(), {}, {}) == {}  # Of older outputs


@pytest.mark.parametrize(
    ("part", "change", "text"),
    [
        ("training", {"precision": "bf16-mixed"}, "trainer.precision: asked 32-true, ran bf16"),
        ("training", {"steps": 39}, "trainer.steps: asked 40, ran 39"),
        ("training", {"batch": 32}, "accumulate: asked 16, ran 32"),
        ("training", {"devices": 2}, "trainer.devices: asked 1, ran 2"),
        ("training", {"peak_lr": [1.6e-3]}, "trainer.lr: asked 0.002, ran 0.0016"),
        ("training", {"weight_decay": [0.1]}, "trainer.weight_decay: asked 0.01, ran 0.1"),
        ("training", {"images": 100}, "data.train_images: asked 2048, ran 100"),
        ("training", {"seed": [0, 1]}, "seed: asked 0, ran [0, 1]"),
        ("training", {"dtype": "float16"}, "backbone.dtype: asked float32, ran float16"),
        ("training", {"checkpointed": True}, "gradient_checkpointing: asked false, ran true"),
        ("sampling", {"resolution": 512}, "backbone.resolution: asked 64, ran 512"),
        ("sampling", {"compiled": 4}, "backbone.compile: asked false, ran true"),
        ("sampling", {"calls": 7}, "evaluation.steps: asked 8, ran 7"),
        ("sampling", {"prompts": {"three": 20}}, "evaluation.prompts of three: asked 40, ran 20"),
        ("sampling", {"images_per_prompt": 4}, "evaluation.noise_seeds: asked 1, ran 4"),
    ],
)
def test_what_did_not_run_as_asked_is_said_with_both(
    part: str, change: dict[str, Any], text: str
) -> None:
    parts = {"training": TRAINING, "sampling": SAMPLING}
    parts[part] = parts[part] | change
    differs = list_differences(Run(), Run(), parts["training"], parts["sampling"])
    (line,) = [f"{key}: {why}" for key, why in differs.items()]
    assert text in line
    assert ran_tags({**parts, "differs": differs})["differs"] == line


def test_a_resumed_training_may_have_had_its_peak_before() -> None:
    resumed = TRAINING | {"resumed_at": 20, "peak_lr": [1e-3]}
    assert list_differences(Run(), Run(), resumed, {}) == {}
    assert list_differences(Run(), Run(), TRAINING, SAMPLING | {"calls": 9}) == {}


def test_sampling_is_read_from_the_denoiser(embedded: Backbone) -> None:
    backbone = copy.copy(embedded)
    with watch_denoiser(backbone) as seen:
        sample(backbone, ["a red circle"] * 3, [1, 2, 3], 4, 3.0, 64)
    facts = describe_sampling(backbone, seen, 3)
    assert (facts["calls"], facts["dtype"], facts["resolution"], facts["guided"]) == (
        *(4, "float32", 64),
        True,
    )
    assert facts["scheduler"].startswith(type(backbone.scheduler).__name__)
    assert facts["attention"] and facts["threads"] == torch.get_num_threads()
    with watch_denoiser(backbone) as seen, torch.autocast("cpu", torch.bfloat16):
        sample(backbone, ["a red circle"], [1], 2, 1.0, 64)
    assert (seen["computes_in"], seen["dtype"], seen["rows"]) == ("bfloat16", "float32", 1)
    assert not embedded.denoiser._forward_pre_hooks


def test_prompts_are_counted_as_scored(tmp_path: Any) -> None:
    rows = [("val", 0), ("val", 0), ("val", 1), ("val", 1), ("one", 0), ("one", 0)]
    prompts = [SimpleNamespace(split=split, index=index, text=split) for split, index in rows]
    counted = count_prompts(prompts)
    assert counted == {"images": 6, "prompts": {"val": 2, "one": 1}, "images_per_prompt": 2}
    assert count_prompts(prompts[1:])["images_per_prompt"] == [1, 2]
    cut = count_prompts(prompts, ["one"])
    assert cut == counted | {"prompts_cut": 1}
    differs = list_differences(Run(), Run(evaluation=Evaluation(prompts=None)), {}, cut)
    assert differs["prompts read whole"] == "asked 3, ran 2"
    assert "prompts read whole" not in list_differences(Run(), Run(), {}, counted)
    write_ran(tmp_path, counted)
    assert read_ran(tmp_path) == counted and read_ran(tmp_path / "none") == read_ran(None) == {}


def test_captions_that_training_reads_in_part_are_counted(embedded: Backbone) -> None:
    long = " ".join(["red"] * embedded.text.length)
    watch: Any = TrainingWatch(SimpleNamespace(text=embedded.text))
    trainer: Any = SimpleNamespace(
        optimizers=[SimpleNamespace(param_groups=[{"lr": 0.1}])], global_step=2
    )
    watch._rates = [0.0]
    for captions in (["a red circle", long], ["a red circle", "a blue ring"]):
        watch.on_train_batch_start(trainer, None, SimpleNamespace(captions=captions), 0)
    watch.on_train_end(trainer, None)
    assert watch.facts["captions_cut"] == 1 and watch.facts["captions"] == 4
    differs = list_differences(Run(), Run(), TRAINING | watch.facts, {})
    assert differs["captions read whole"] == "asked 4, ran 3"
    watch = TrainingWatch(SimpleNamespace(text=embedded.text))
    watch.on_train_end(trainer, None)
    assert "captions_cut" not in watch.facts, "nothing to say where all were read"


def test_a_slow_format_is_measured_in_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU Lightning trains in bfloat16 where float16 is asked for."""
    asked: list[torch.dtype] = []
    monkeypatch.setattr(acceleration, "_measure_slowdown", lambda d: asked.append(d) or 1.0)
    config = Run()
    config.trainer = dataclasses.replace(config.trainer, precision="16-mixed")
    acceleration.find_slow_format(config, torch.device("cpu"))
    assert asked == [torch.bfloat16]


def test_what_stays_as_it_is_does_not_count_as_trained(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the fixed encoder of MCGM's released code, which lies beside what is trained."""
    monkeypatch.setattr(cost, "_sampling_time", lambda *_: 1.0)
    method: Any = SimpleNamespace(trains=True, parameters=lambda: [torch.zeros(3), torch.zeros(4)])
    measure = lambda: cost.measure_costs(method, tmp_path, [], Run().evaluation)  # noqa: E731
    assert measure()["trained_parameters"] == 7
    write_ran(tmp_path, {"trained_parameters": 4})
    assert measure()["trained_parameters"] == 4
