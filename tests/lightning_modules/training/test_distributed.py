"""Two processes of torchrun on the CPU do what one does with the same global batch, and write what
one would."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from subprocess import Popen
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from helpers.distributed_runs import Job, Seen, execute
from safetensors.torch import load_file

from conf import load as conf
from conf.schema import Run
from conf.seeds import SEEDS
from lightning_modules.tracking.mlflow import Tracking, client
from lightning_modules.training import distributed
from lightning_modules.training import run as train

ROOT = Path(__file__).parents[3]
SCENE = {
    "data.name": "scene",
    "method.subjects.prior_images": 3,
    "method.subjects.prior_steps": 1,
    "method.subjects.first_phase": 0.5,
    "method.weights.text_encoder": True,
    "trainer.schedule": "constant",
    "evaluation.prompts": 0,
}
# Samples without objects, without masks or of few tokens make the processes' shares unequal.
CASES: dict[str, dict[str, Any]] = {
    "maskattn": {
        "method.gate.protect": "specials",
        "method.gate.supervision": "masks",
        "trainer.timesteps": "high_noise",
        "evaluation.batch": 2,
    },
    "separate_enhance": {
        "method.weights.trainable": "k",
        "data.drop_captions": 0.5,
        "evaluation.prompts": 0,
        "trainer.accumulate": 2,
    },
    # Two optimiser steps a training step; of the maps one process has all that count
    "separate_enhance_released": {
        "method.weights.trainable": "k",
        "method.separate.store": "second_half",
        "method.separate.tokens": "released",
        "method.separate.distillation_step": "own",
        "method.separate.distillation_object": "first",
        "data.drop_captions": 0.5,
        "evaluation.prompts": 0,
        "trainer.accumulate": 2,
    },
    "mcgm": {
        "method.masks.dropout": 0.5,
        **dict(zip(SEEDS, range(3, 8), strict=True)),
        "trainer.steps": 4,
        "evaluation.follow_masks": True,
        "evaluation.prompts": 2,
    },
    "reward_finetune": {
        "method.weights.rank": 2,
        "method.reward_finetune.objective": "preference",
        "method.reward_finetune.margin": 0.0,
        "method.reward_finetune.captions": 12,
        "method.reward_finetune.noises": 2,
        "method.reward_finetune.steps": 2,
        "evaluation.prompts": 0,
    },
    "break_a_scene": SCENE | {"trainer.steps": 4, "trainer.checkpoint_every": 2},
}


def of(base: Run, name: str, output: Path, devices: int) -> Run:
    """Four samples a step, whatever the number of devices."""
    settings = {
        "method.name": name.removesuffix("_released"),
        "output": str(output),
        "trainer.devices": devices,
        "trainer.batch": 4 // devices,
        # Rounding follows the batch, and shows in the figures of bfloat16
        "evaluation.precision": "32-true",
    }
    return conf.replace(base, CASES[name] | settings)


def tracking_of(folder: Path) -> dict[str, Any]:
    uri = f"sqlite:///{folder.parent.parent / 'mlflow.db'}"
    experiment = client(uri).create_experiment(
        folder.parent.name, artifact_location=(folder / "artifacts").as_uri()
    )
    return asdict(
        Tracking(uri, experiment, client(uri).create_run(experiment).info.run_id, {"seed": "0"})
    )


class Both:
    """The jobs of two processes, and the same of one: seen-… of each process by name of the job."""

    def __init__(self, base: Run, folder: Path) -> None:
        self.folder, self.configs = folder, {}
        jobs: dict[int, list[Job]] = {1: [], 2: []}
        for devices in jobs:
            for name in CASES:
                for part in self.parts(name, devices):
                    config = of(base, name, folder / str(devices) / "out", devices)
                    place = folder / str(devices) / f"{name}{part}"
                    conf.write(config, place / "run.yaml")
                    self.configs[devices, name] = config
                    tracking = tracking_of(place) if (name, part) == ("maskattn", "") else None
                    jobs[devices].append(Job(str(place), tracking, 3 if part == "-torn" else None))
        last = conf.replace(of(base, "maskattn", folder / "2" / "out", 2), {"seed": 1})
        conf.write(last, folder / "2" / "broken" / "run.yaml")
        jobs[2].append(Job(str(folder / "2" / "broken"), None, 1, failing=1))
        (folder / "plan.json").write_text(json.dumps([asdict(job) for job in jobs[2]]))
        self.jobs = jobs
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node=2",
        ]
        command += [
            str(ROOT / "tests" / "helpers" / "distributed_runs.py"),
            str(folder / "plan.json"),
        ]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        with (
            (folder / "said").open("w") as said,
            Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=said) as two,
        ):
            self.alone = dict(
                zip([Path(job.folder).name for job in jobs[1]], execute(jobs[1]), strict=True)
            )
        self.status, self.said = two.returncode, (folder / "said").read_text()

    @staticmethod
    def parts(name: str, devices: int) -> list[str]:
        """Two processes are interrupted in the second phase of Break-A-Scene, and run MaskAttn
        again."""
        return (
            {"break_a_scene": ["-torn", ""], "maskattn": ["", "-again"]}.get(name, [""])
            if devices == 2
            else [""]
        )

    def seen(self, job: str) -> list[Seen]:
        paths = [self.folder / "2" / job / f"seen-{rank}.json" for rank in range(2)]
        assert all(path.exists() for path in paths), self.said
        return [Seen(**json.loads(path.read_text())) for path in paths]

    def adapter(self, devices: int, name: str) -> dict[str, torch.Tensor]:
        config = self.configs[devices, name]
        if name == "break_a_scene":  # its scene names the subjects
            (folder,) = [path.parent for path in Path(config.output).glob("adapters/*/subjects")]
        else:
            folder = Path(config.output) / "adapters" / train.training_key(config)
        return load_file(folder / "adapter.safetensors")


@pytest.fixture(scope="module")
def both(base: Run, tmp_path_factory: pytest.TempPathFactory) -> Both:
    return Both(base, tmp_path_factory.mktemp("both"))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_learn_what_one_does_with_the_same_global_batch(both: Both, name: str):
    expected = both.alone[name].steps
    torn = [part for part in Both.parts(name, 2) if part == "-torn"]
    for rank in range(2):
        steps = [step for part in [*torn, ""] for step in both.seen(f"{name}{part}")[rank].steps]
        if torn:
            assert len(steps) == len(expected) + 1, "the step after the checkpoint is made again"
            del steps[2]
        assert len(steps) == len(expected) and "train/loss" in expected[0]
        for mine, one in zip(steps, expected, strict=True):
            assert mine == pytest.approx(one, rel=1e-4, abs=1e-6)
    here, there = both.adapter(2, name), both.adapter(1, name)
    assert here.keys() == there.keys()
    apart = torch.cat([(here[key] - value).abs().flatten() for key, value in there.items()])
    # AdamW makes steps (of up to 2e-3) of gradients that are nothing but rounding.
    assert float((apart > 1e-5).double().mean()) < 1e-3 and float(apart.max()) < 2e-4


@pytest.mark.slow
def test_the_first_process_writes_and_all_are_told(both: Both):
    for job in ("maskattn", "maskattn-again", "mcgm"):
        folder = both.folder / "2" / job
        results = [seen.result for seen in both.seen(job)]
        assert results[0] == results[1] == json.loads((folder / "result.json").read_text())
        # The lines of one process.
        assert (folder / "log.txt").read_text().count("data: shapes") == 1
        assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]
    assert not both.seen("maskattn-again")[0].steps and not both.seen("maskattn-again")[1].steps
    log = (both.folder / "2" / "maskattn-again" / "log.txt").read_text()
    assert "is there already" in log and "8 images, all there already" in log
    assert not list((both.folder / "2" / "out" / "adapters").glob("*.checkpoints/*"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["maskattn", "mcgm"])
def test_each_image_is_drawn_once_and_measured_as_by_one_process(both: Both, name: str):
    alone, seen = both.alone[name], both.seen(name)
    assert sum(one.images for one in seen) == alone.images == (8 if name == "maskattn" else 4)
    assert name == "mcgm" or [one.images for one in seen] == [4, 4]
    assert [one.images for one in both.seen("maskattn-again")] == [0, 0]
    expected, found = (dict(one.result["metrics"]) for one in (alone, seen[0]) if one.result)
    for metrics in (expected, found):
        metrics.pop("eval/overhead", None)
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)
    tables = [
        pd.read_parquet(both.folder / str(devices) / name / "scores.parquet") for devices in (1, 2)
    ]
    assert len(tables[0]) == alone.images and tables[0]["success"].equals(tables[1]["success"])
    if name == "maskattn":
        one, two = (table["gate_closed"].tolist() for table in tables)
        assert one == pytest.approx(two, rel=1e-3) and len(set(one)) > 1


@pytest.mark.slow
def test_one_run_in_mlflow_holds_the_metrics_of_the_global_batch(both: Both):
    found: list[dict[str, list[float]]] = []
    for devices in (1, 2):
        tracking = both.jobs[devices][0].tracking
        assert tracking is not None
        mlflow = client(tracking["uri"])
        seeds = [
            run
            for run in mlflow.search_runs([tracking["experiment_id"]])
            if run.data.tags.get("role") == "seed"
        ]
        assert [run.info.status for run in seeds] == ["FINISHED"]
        keys = [key for key in seeds[0].data.metrics if key.startswith(("train/", "gates/"))]
        found.append(
            {
                key: [one.value for one in mlflow.get_metric_history(seeds[0].info.run_id, key)]
                for key in keys
            }
        )
        assert {item.path for item in mlflow.list_artifacts(seeds[0].info.run_id)} >= {
            "result.json",
            "log.txt",
            "samples",
        }
    one, two = found
    assert (
        one.keys()
        == two.keys()
        >= {
            "train/loss",
            "train/signal",
            "train/gate_closed",
            "gates/gradient/open",
            "gates/closed/kind/word",
        }
    )
    for key, values in one.items():
        assert two[key] == pytest.approx(values, rel=1e-3, abs=1e-5), key


@pytest.mark.slow
def test_when_one_process_fails_torchrun_ends_the_other(both: Both):
    assert both.status != 0 and "power cut" in both.said
    assert not (both.folder / "2" / "broken" / "result.json").exists()
    assert [seen.error for seen in both.seen("break_a_scene-torn")] == ["power cut"] * 2


# --- what does not fit together -------------------------------------------------------------------


def test_devices_without_torchrun_are_refused_in_one_line(
    base: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    conf.write(conf.replace(base, {"trainer.devices": 2}), tmp_path / "run.yaml")
    assert train.main([str(tmp_path / "run.yaml")]) == 2
    said = capsys.readouterr().err
    assert (
        said.count("\n") == 1
        and ("torchrun --standalone --nproc-per-node=2 -m lightning_modules.train run.yaml") in said
    )
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


@pytest.mark.parametrize(
    ("environment", "devices", "message"),
    [
        (
            {"WORLD_SIZE": "3"},
            2,
            (
                "3 processes were started for trainer.devices=2: set trainer.devices=3, or run "
                "torchrun .*=2 "
            ),
        ),
        (
            {"WORLD_SIZE": "2"},
            1,
            ("2 processes were started for trainer.devices=1: set trainer.devices=2"),
        ),
        (
            {"WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "2"},
            3,
            ("2 processes on one of 2 machines and 3 in all"),
        ),
    ],
)
def test_another_number_of_processes_is_refused(
    environment: dict[str, str], devices: int, message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(ValueError, match=message), distributed.group(devices, "cpu"):
        raise AssertionError("begun")


def test_variables_of_another_launcher_mean_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("RANK", "3")
    with distributed.group(1, "cpu"):
        assert (
            distributed.is_first()
            and distributed.once(lambda: {"a": (1,)}) == {"a": (1,)}
            and distributed.all_gather_int(5) == [5]
        )


def test_a_process_takes_the_gpu_of_its_number(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        torch, "cuda", SimpleNamespace(is_available=lambda: True, device_count=lambda: 4)
    )
    assert [distributed.device(accelerator) for accelerator in ("auto", "gpu", "cpu")] == [
        "cuda",
        "cuda",
        "cpu",
    ]
    for key, value in {
        "TORCHELASTIC_RUN_ID": "none",
        "LOCAL_RANK": "3",
        "LOCAL_WORLD_SIZE": "4",
    }.items():
        monkeypatch.setenv(key, value)
    assert [distributed.device(accelerator) for accelerator in ("auto", "gpu", "cpu")] == [
        "cuda:3",
        "cuda:3",
        "cpu",
    ]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "5")
    with pytest.raises(
        ValueError, match=("5 processes on a machine with 4 GPUs.*trainer.accelerator=cpu")
    ):
        distributed.device("auto")
