"""One run from its config: what it leaves, what it shares, how it is interrupted and goes on, and
what it refuses early."""

from __future__ import annotations

import copy
import json
import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from conf import load as conf
from conf.schema import Data, Run
from conf.seeds import TRAINING_SEEDS
from datamodules.build import build_data
from lightning_modules.backbone import acceleration
from lightning_modules.evaluation import gate_diagnostics
from lightning_modules.methods.maskattn import MaskAttn
from lightning_modules.tracking.mlflow import Tracking, client
from lightning_modules.training import run as train
from lightning_modules.training.progress import Clock
from lightning_modules.training.versions import measuring_code


def variant(base: Run, **changes: Any) -> Run:
    """A copy with dotted keys set anew (dots as double underscores)."""
    config = copy.deepcopy(base)
    for key, value in changes.items():
        *path, name = key.split("__")
        node: Any = config
        for part in path:
            node = getattr(node, part)
        setattr(node, name, value)
    return config


def adapter(config: Run) -> dict[str, torch.Tensor]:
    return load_file(
        Path(config.output) / "adapters" / train.training_key(config) / "adapter.safetensors"
    )


def table(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "scores.parquet")


class Spy:
    """What training steps saw, over all runs of a test: (captions, latents, noise, timesteps) of
    each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[tuple[list[str], torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self.stop_after: dict[int, BaseException] = {}  # number of steps seen -> what interrupts
        draw, step = MaskAttn.draw, MaskAttn.training_step
        drawn: list[tuple[torch.Tensor, torch.Tensor]] = []

        def spied_draw(
            method: MaskAttn, latents: torch.Tensor, *rest: Any
        ) -> tuple[torch.Tensor, torch.Tensor]:
            drawn.append(draw(method, latents, *rest))
            return drawn[-1]

        def spied_step(method: MaskAttn, batch: Any, batch_idx: int) -> torch.Tensor:
            if len(self.steps) in self.stop_after:
                raise self.stop_after.pop(len(self.steps))
            loss = step(method, batch, batch_idx)
            self.steps.append((batch.captions, batch.latents, *drawn[-1]))
            return loss

        monkeypatch.setattr(MaskAttn, "draw", spied_draw)
        monkeypatch.setattr(MaskAttn, "training_step", spied_step)


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    return Spy(monkeypatch)


def same_steps(one: list, other: list) -> bool:
    return len(one) == len(other) and all(
        a[0] == b[0] and all(torch.equal(x, y) for x, y in zip(a[1:], b[1:], strict=True))
        for a, b in zip(one, other, strict=True)
    )


def test_training_may_start_from_an_adapter_and_really_trains(base: Run, tmp_path: Path):
    first = variant(base, seed=31, evaluation__prompts=0, trainer__steps=1)
    train.run(first, tmp_path / "first")
    folder = Path(base.output) / "adapters" / train.training_key(first)
    # At a rate of nearly zero what comes out is what went in; at a real one all of it has moved on.
    for rate, moved in ((1e-12, False), (1e-2, True)):
        second = variant(first, trainer__lr=rate, method__init=str(folder), seed=32)
        train.run(second, tmp_path / str(rate))
        start, end = adapter(first), adapter(second)
        assert all(torch.allclose(start[name], end[name], atol=1e-9) != moved for name in start)


# --- a whole run --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def done(
    base: Run, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path, list[tuple[str, float]]]:
    folder, lines = tmp_path_factory.mktemp("trial") / "deep", []
    result = train.run(base, folder, progress=lambda text, share: lines.append((text, share)))
    return result, folder, lines


def test_a_run_leaves_its_result_and_finite_numbers(done: Any, base: Run):
    result, folder, _ = done
    assert json.loads((folder / "result.json").read_text()) == result
    metrics = result["metrics"]
    wanted = (
        "success success_val success_heldout score object_rate color_rate shape_rate "
        "extra_objects fid precision recall gate_closed"
    )
    gates = (
        "gates_reopened gates_shut gate_mask_iou overhead parameters gate_closed_kind/word "
        "gate_closed_kind/padding"
    )
    assert {f"eval/{key}" for key in [*wanted.split(), *gates.split(), "n_images"]} <= set(metrics)
    assert all(isinstance(v, float) and math.isfinite(v) for v in metrics.values())
    assert metrics["eval/n_images"] == 8 and 0 < metrics["eval/gate_closed"] < 1
    assert result["counts"]["trained_parameters"] == sum(t.numel() for t in adapter(base).values())
    assert (
        set(result["seconds"]) == {"start", "data", "train", "sample", "score"}
        and result["versions"]["torch"] == torch.__version__
    )
    assert conf.read_run(folder / "run.yaml") == base
    assert not [p.name for p in folder.iterdir() if p.name.startswith(".")]


def test_samples_hold_every_prompt_and_the_first_images(done: Any):
    _, folder, _ = done
    samples = table(folder)
    assert samples["split"].tolist() == ["val"] * 4 + ["heldout"] * 4
    assert (
        len(samples) == 8
        and samples["score"].between(0, 1).all()
        and samples["noise"].nunique() == 8
    )
    kept = samples["sample"].dropna()
    assert kept.index.tolist() == [0, 4] and all(
        Image.open(folder / name).size == (64, 64) for name in kept
    )
    assert samples["success"].mean() == pytest.approx(done[0]["metrics"]["eval/success"])
    assert samples["right_objects"].sum() / samples["wanted_objects"].sum() == pytest.approx(
        done[0]["metrics"]["eval/object_rate"]
    )
    closed = (samples["gate_closed"] * samples["gates_counted"]).sum()
    assert closed / samples["gates_counted"].sum() == done[0]["metrics"]["eval/gate_closed"]
    assert samples["extra_objects"].mean() == pytest.approx(
        done[0]["metrics"]["eval/extra_objects"]
    )


def test_a_run_with_other_metrics_alone_trains_and_draws_nothing_again(
    done: Any, base: Run, tmp_path: Path, spy: Spy, monkeypatch: pytest.MonkeyPatch
):
    samples = table(done[1])
    assert all(
        Image.open(Path(base.output) / "images" / name).size == (64, 64)
        for name in samples["image"]
    )
    lines: list[str] = []
    monkeypatch.setattr(gate_diagnostics, "draw_maps", lambda *args: Image.new("L", (1, 1)))
    # Another k of precision / recall looks at the same images.
    again = train.run(
        variant(base, evaluation__precision_recall_k=2),
        tmp_path,
        progress=lambda text, _: lines.append(text),
    )
    assert "sampling: 8 images, all there already" in lines and not any(
        "image 4/8" in line for line in lines if "sampling" in line
    )
    assert table(tmp_path)["image"].tolist() == samples["image"].tolist()
    assert not spy.steps
    changed = {"eval/overhead", "eval/precision", "eval/recall"}
    first, second = (
        {key: value for key, value in result["metrics"].items() if key not in changed}
        for result in (done[0], again)
    )
    assert second == pytest.approx(first, abs=1e-4)


def test_gate_maps_are_drawn(done: Any):
    _, folder, _ = done
    assert np.asarray(Image.open(folder / "gates.png")).std() > 10
    gates = json.loads((folder / "gates.json").read_text())
    assert len(gates) == 4 and gates[0]["tokens"][0] == "BOS" and gates[0]["tokens"][-1] == "EOS"
    for entry in gates:
        assert " ".join(entry["tokens"][1:-1]).replace(" ,", ",") == entry["prompt"] and set(
            entry["open"]
        ) == {"16", "8"}
        for shares in entry["open"].values():
            assert (
                len(shares) == len(entry["tokens"])
                and shares[0] == 1.0
                and all(0 <= s <= 1 for s in shares)
            )
    assert any(s < 1 for entry in gates for s in entry["open"]["16"])


def test_progress_rises_from_nothing_to_all(done: Any):
    _, folder, lines = done
    shares = [share for _, share in lines]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == pytest.approx(1)
    assert any("step 3/3, loss" in text for text, _ in lines) and any(
        "image 8/8" in text for text, _ in lines
    )
    log = (folder / "log.txt").read_text()
    assert all(text in log for text, _ in lines)


def test_evaluate_with_shares_the_adapter_and_changes_the_evaluation(
    done: Any, base: Run, tmp_path: Path, spy: Spy, monkeypatch: Any
):
    monkeypatch.setattr(gate_diagnostics, "draw_maps", lambda *args: Image.new("L", (1, 1)))
    late = {
        "method.gate.threshold": 0.9,
        "evaluation.prompts": 3,
        "evaluation.splits": ["heldout", "val"],
    }
    result = train.run(variant(base, evaluate_with=late), tmp_path)
    assert not spy.steps, "nothing that training depends on has changed"
    assert result["metrics"]["eval/gate_closed"] == 1.0 > done[0]["metrics"]["eval/gate_closed"]
    assert result["metrics"]["eval/n_images"] == 6
    samples = table(tmp_path)
    assert samples["split"].tolist() == ["heldout"] * 3 + ["val"] * 3
    assert conf.read_run(tmp_path / "run.yaml").method.gate.threshold == 0.5


def test_the_baseline_trains_nothing_and_draws_what_the_stock_pipeline_draws(
    base: Run, tmp_path: Path, spy: Spy
):
    from diffusers import StableDiffusionXLPipeline

    settings = {"evaluation__keep_images": 4, "evaluation__precision": "32-true"}
    result = train.run(variant(base, method__name="untouched", **settings), tmp_path)
    assert not spy.steps and result["counts"]["trained_parameters"] == 0
    assert "eval/gate_closed" not in result["metrics"] and not (tmp_path / "gates.png").exists()
    samples = table(tmp_path)
    pipeline = StableDiffusionXLPipeline.from_pretrained(base.backbone.path, add_watermarker=False)
    generators = [torch.Generator().manual_seed(noise) for noise in samples["noise"].tolist()]
    images = pipeline(
        samples["prompt"].tolist(),
        num_inference_steps=2,
        guidance_scale=3.0,
        height=64,
        width=64,
        generator=generators,
        output_type="np",
    ).images
    mine = np.stack([np.asarray(Image.open(tmp_path / name)) for name in samples["sample"]])
    assert np.abs(mine - np.round(images * 255)).max() <= 1


def test_without_prompts_it_only_trains(base: Run, tmp_path: Path):
    result = train.run(variant(base, evaluation__prompts=0, trainer__steps=1), tmp_path)
    assert (
        result["metrics"] == {}
        and result["scores"] is None
        and not (tmp_path / "scores.parquet").exists()
    )


def test_a_slow_number_format_is_said_before_anything_long(
    base: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        acceleration,
        "find_slow_format",
        lambda config, device: f"{config.backbone.dtype} is slow on {device}",
    )
    said: list[str] = []
    train.run(
        variant(base, evaluation__prompts=0, trainer__steps=1),
        tmp_path,
        progress=lambda text, _: said.append(text),
    )
    assert said[0] == "float32 is slow on cpu" and said[0] in (tmp_path / "log.txt").read_text()


# --- training --------------------------------------------------------------------------------


def test_training_changes_the_adapter_and_nothing_else(base: Run, tmp_path: Path, spy: Spy):
    config = variant(base, seed=5, evaluation__prompts=0)
    train.run(config, tmp_path)
    torch.manual_seed(5)
    from lightning_modules.backbone.backbone import Backbone as Loaded

    loaded = Loaded.load(base.backbone.path)
    start = train.build_method(config, loaded)
    before, after = start.adapter.state_dict(), adapter(config)
    assert before.keys() == after.keys() and all(
        not torch.equal(before[k], after[k]) for k in after
    )
    # Batches are latents of the training images, four at a time, each image once.
    assert [len(captions) for captions, *_ in spy.steps] == [4, 4, 4]
    latents = torch.cat([step[1] for step in spy.steps])
    assert (
        latents.shape == (12, *loaded.latent_size())
        and len({tuple(x.flatten().tolist()) for x in latents}) == 12
    )


def test_the_same_seed_shows_every_method_the_same_batches_noise_and_timesteps(
    base: Run, tmp_path: Path, spy: Spy
):
    config = variant(base, evaluation__prompts=0, trainer__steps=5)  # goes into a second epoch
    seen = []
    for i, changes in enumerate(
        (
            {"seed": 1},
            {"seed": 1, "method__gate__threshold": 0.7, "method__gate__stage": "high"},
            {"seed": 2},
        )
    ):
        train.run(variant(config, **changes), tmp_path / str(i))
        seen.append(spy.steps[-5:])
    assert len(spy.steps) == 15 and same_steps(seen[0], seen[1])
    for a, b in zip(seen[0], seen[2], strict=True):
        assert a[0] != b[0] and not any(
            torch.equal(x, y) for x, y in zip(a[1:], b[1:], strict=True)
        )
    noises = [step[2] for step in seen[0]]
    assert not any(torch.equal(noises[i], noises[j]) for i in range(5) for j in range(i))


@pytest.mark.parametrize("accumulate", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_interrupted_training_goes_on_and_ends_as_if_nothing_had_happened(
    base: Run, tmp_path: Path, spy: Spy, accumulate: int
):
    # Four batches an epoch; it stops in the middle of the first epoch, then in the second.
    change = {
        "evaluation__prompts": 0,
        "trainer__steps": 6,
        "trainer__checkpoint_every": 2,
        "trainer__accumulate": accumulate,
        **dict(zip(TRAINING_SEEDS, (1, 2, 3), strict=True)),
    }
    config = variant(base, **change)
    whole, torn = (
        variant(config, output=str(tmp_path / "whole")),
        variant(config, output=str(tmp_path / "torn")),
    )
    train.run(whole, tmp_path / "a")
    expected = spy.steps[:]
    spy.steps.clear()

    checkpoints = Path(torn.output) / "adapters" / f"{train.training_key(torn)}.checkpoints"
    spy.stop_after = {3 * accumulate: RuntimeError("power cut")}
    with pytest.raises(RuntimeError, match="power cut"):
        train.run(torn, tmp_path / "b")
    assert [p.name for p in checkpoints.iterdir()] == ["last.ckpt"] and not (
        checkpoints.parent / train.training_key(torn)
    ).exists()
    state = torch.load(checkpoints / "last.ckpt", weights_only=True)
    assert state["global_step"] == 2 and all(
        name.startswith("adapter.heads.") for name in state["state_dict"]
    )
    assert sum(t.numel() for t in state["state_dict"].values()) < 1e5, (
        "a checkpoint holds no backbone weight"
    )

    spy.steps = spy.steps[: 2 * accumulate]  # what came after the checkpoint is lost
    spy.stop_after = {5 * accumulate: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        train.run(torn, tmp_path / "b")
    assert sorted(p.name for p in checkpoints.iterdir()) == ["last.ckpt", "previous.ckpt"]

    spy.steps = spy.steps[: 4 * accumulate]
    train.run(torn, tmp_path / "b")
    assert same_steps(spy.steps, expected), (
        "the same batches, noise and timesteps, none twice and none left out"
    )
    one, other = adapter(whole), adapter(torn)
    assert all(torch.allclose(one[k], other[k], rtol=1e-5, atol=1e-7) for k in one)
    assert not checkpoints.exists()


def test_ctrl_c_comes_out_as_itself_and_works_again_afterwards(base: Run, tmp_path: Path, spy: Spy):
    spy.stop_after = {1: KeyboardInterrupt()}
    handlers = [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt):
        train.run(variant(base, seed=9), tmp_path)
    assert [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert not (tmp_path / "result.json").exists()


def test_an_exit_that_is_none_of_ours_stays_one(
    base: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import lightning

    def leave(*args: Any, **kwargs: Any) -> None:
        raise SystemExit(7)

    monkeypatch.setattr(lightning.Trainer, "fit", leave)
    with pytest.raises(SystemExit, match="7"):
        train.run(variant(base, seed=10), tmp_path)


def test_an_adapter_that_is_half_written_is_trained_again(base: Run, tmp_path: Path, spy: Spy):
    config = variant(base, seed=3, evaluation__prompts=0)
    folder = Path(config.output) / "adapters" / train.training_key(config)
    folder.mkdir(parents=True)
    (folder / "adapter.safetensors").write_bytes(b"half")
    train.run(config, tmp_path)
    assert len(spy.steps) == 3 and adapter(config)


def test_latents_are_encoded_once_for_all_runs_on_the_same_images(
    done: Any, base: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from lightning_modules.backbone.autoencoder import Autoencoder

    def encode(self: Any, images: Any) -> Any:
        raise AssertionError("encoded again")

    monkeypatch.setattr(Autoencoder, "encode", encode)
    train.run(variant(base, seed=4, evaluation__prompts=0), tmp_path)
    with pytest.raises(AssertionError, match="encoded again"):
        train.run(variant(base, seed=4, evaluation__prompts=0, data__train_images=12), tmp_path)


def test_metrics_go_to_mlflow_while_it_trains(
    base: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class SeedRun:
        metrics: list[tuple[dict[str, float], int]] = []
        artifacts: list[Path] = []
        images: list[tuple[str, int]] = []
        tags: dict[str, str] = {}

        def log_image(self, key: str, image: Image.Image, step: int) -> None:
            self.images.append((key, step))

        def log_metrics(self, metrics: dict[str, float], step: int = 0) -> None:
            self.metrics.append((dict(metrics), step))

        def mark_undefined(self, reasons: dict[str, str]) -> None:
            assert not reasons

        def note(self, tags: dict[str, str]) -> None:
            assert all(tags.values())
            self.tags |= tags

        def log_artifacts(self, folder: Path) -> None:
            self.artifacts.append(folder)
            assert (folder / "result.json").exists()

    seed_run: Any = SeedRun()
    config = variant(base, seed=6, evaluation__prompts=0, trainer__steps=1)
    tmp_path.mkdir(exist_ok=True)
    train._run(config, tmp_path, seed_run, None, Clock())
    assert seed_run.tags["measured"] == measuring_code(config)
    assert seed_run.tags["ran.training"].startswith("precision: 32-true; ")
    assert seed_run.images == [("gates/training", step) for step in range(2)]
    logged = [
        (sorted(metrics), step) for metrics, step in seed_run.metrics if "train/loss" in metrics
    ]
    assert logged == [(["train/denoising", "train/gate_closed", "train/loss"], 1)]
    gates = [(metrics, step) for metrics, step in seed_run.metrics if "gates/opened" in metrics]
    assert [step for _, step in gates] == [1]
    names = {"gates/shut", "gates/gradient/closed", "gates/gradient/open", "gates/closed/kind/word"}
    assert all(names <= set(metrics) for metrics, _ in gates)
    assert seed_run.artifacts == [tmp_path] and any(
        "seconds/train" in metrics for metrics, _ in seed_run.metrics
    )


def test_recorded_facts_are_those_of_what_ran(
    base: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Float16 is not to be had on a CPU: Lightning trains in bfloat16."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    store = client(tmp_path.as_uri())
    experiment = store.create_experiment("e", artifact_location=(tmp_path / "a").as_uri())
    parent = store.create_run(experiment).info.run_id
    config = variant(
        base,
        seed=41,
        trainer__precision="16-mixed",
        trainer__accelerator="cpu",
        trainer__steps=2,
        trainer__warmup=4,
        trainer__accumulate=2,
        evaluation__precision="32-true",
    )
    tracking = Tracking(tmp_path.as_uri(), experiment, parent, {"seed": "41"})
    result = train.run(config, tmp_path / "trial", tracking)
    training, sampling = result["ran"]["training"], result["ran"]["sampling"]
    trainer, evaluation = config.trainer, config.evaluation
    assert (training["precision"], training["computes_in"]) == ("bf16-mixed", "bfloat16")
    assert (training["batch"], training["accumulate"]) == (2 * trainer.batch, 2)
    assert (training["steps"], training["seed"]) == (2, 41)
    assert training["peak_lr"] == [pytest.approx(trainer.lr / 2)]  # The warm-up is cut short
    assert training["trained_parameters"] == result["counts"]["trained_parameters"] > 0
    assert (sampling["calls"], sampling["computes_in"]) == (evaluation.steps, "float32")
    assert sampling["prompts"] == dict.fromkeys(evaluation.splits, evaluation.prompts)
    assert result["ran"]["differs"] == {
        "trainer.precision": "asked 16-mixed, ran bf16-mixed",
        "trainer.lr": f"asked {trainer.lr:g}, ran {trainer.lr / 2:g}",
    }
    (run,) = store.search_runs([experiment], "tags.role = 'seed'")
    assert "trainer.precision: asked 16-mixed, ran bf16-mixed" in run.data.tags["differs"]
    assert run.data.tags["ran.training"].startswith("precision: bf16-mixed; ")
    assert "asked 16-mixed, ran bf16-mixed" in (tmp_path / "trial" / "log.txt").read_text()
    # Found again, the adapter and its images tell the same
    again = train.run(config, tmp_path / "again")
    assert again["ran"] == result["ran"]


# --- from outside --------------------------------------------------------------------------------


def test_a_dataset_of_ones_own_is_read_and_trained_on(
    base: Run, done: Any, tmp_path: Path, spy: Spy
):
    root = Path(base.output) / "cache" / "shapes"
    data = Data("coco", str(root), train_split="heldout", train_images=1000)
    result = train.run(variant(base, data=data, evaluation__prompts=0, trainer__steps=1), tmp_path)
    assert result["metrics"] == {} and len(spy.steps) == 1
    with pytest.raises(ValueError, match="'train2014'"):
        train.run(
            variant(
                base, data=Data("coco", str(root), train_split="train2014"), evaluation__prompts=0
            ),
            tmp_path,
        )


@pytest.mark.slow
def test_the_command_prints_numbers_and_no_chatter(done: Any, base: Run, tmp_path: Path):
    config = variant(base, method__name="untouched", evaluation__steps=1)
    conf.write(config, tmp_path / "run.yaml")
    shown = subprocess.run(
        [sys.executable, "-m", "lightning_modules.train", str(tmp_path / "run.yaml")],
        capture_output=True,
        text=True,
        cwd=Path(train.__file__).parent.parent,
        check=True,
    )
    assert shown.stderr == ""
    lines = shown.stdout.splitlines()
    known = ("data: shapes", "listing the files of", "sampling: ", "scoring: image", "eval/")
    assert [line for line in lines[:-1] if not any(said in line for said in known)] == []
    assert lines[-1] == str(tmp_path / "result.json") and (tmp_path / "result.json").exists()


def test_what_is_adapted_to_each_prompt_starts_from_the_seed_alone(base: Run, tmp_path: Path):
    changes: dict[str, Any] = {
        "method": "separate_enhance",
        "method.separate.test_time": 1,
        "method.weights.rank": 2,
        "data.train_images": 4,
        "output": str(tmp_path),
    }
    starts = []
    for other, seed in ((1, 0), (2, 0), (3, 1)):
        config = conf.replace(base, changes | {"seed": seed})
        torch.manual_seed(other)
        backbone = train._load_backbone(config, lambda *_: None)
        _, method, _ = train._prepare(
            config, backbone, build_data(config), tmp_path, lambda *_: None
        )
        starts.append(torch.cat([p.flatten() for p in method.parameters()]))
    assert torch.equal(starts[0], starts[1]) and not torch.equal(starts[0], starts[2])
