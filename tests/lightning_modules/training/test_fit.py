"""One adapter for all runs that need it: trained once though two ask at once, never by other code,
and ended early when asked."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from filelock import FileLock

from conf import load as conf
from conf.schema import Run
from lightning_modules.training import fit
from lightning_modules.training import run as train


def target(config: Run) -> Path:
    return Path(config.output) / "adapters" / train.training_key(config)


def test_a_second_run_waits_for_the_adapter_that_another_trains(base: Run, tmp_path: Path) -> None:
    config = conf.replace(base, {"seed": 21, "evaluation.prompts": 0})
    folder = target(config)
    locks = Path(config.output) / "cache" / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    waiting = threading.Event()

    def told(text: str, share: float) -> None:
        lines.append(text)
        if "waiting" in text:
            waiting.set()

    held = threading.Event()

    def hold() -> None:
        with FileLock(locks / f"{folder.name}.lock"):
            held.set()
            waiting.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    train.run(config, tmp_path, progress=told)
    thread.join()
    assert "training: another trial trains this adapter, waiting for it" in lines
    assert (folder / "adapter.json").exists()


def test_a_training_ends_when_it_is_asked_to(base: Run, tmp_path: Path) -> None:
    config = conf.replace(base, {"seed": 22, "trainer.steps": 6, "trainer.log_every": 2})
    (tmp_path / "prune").touch()
    result = train.run(config, tmp_path)
    assert (
        result["pruned"] == "at step 2 of 6"
        and result["metrics"] == {}
        and json.loads((tmp_path / "result.json").read_text()) == result
    )
    folder = target(config)
    assert not folder.exists() and not folder.with_name(f"{folder.name}.checkpoints").exists()


@pytest.mark.slow
def test_what_learns_on_each_prompt_does_so_in_a_run(base: Run, tmp_path: Path) -> None:
    config = conf.replace(
        base, {"method": "separate_enhance", "method.separate.test_time": 1, "trainer.lr": 0.05}
    )
    pictures = []
    for one in (config, conf.replace(base, {"method": "untouched"})):
        train.run(one, tmp_path)
        names = pd.read_parquet(tmp_path / "scores.parquet")["image"]
        pictures.append([(Path(base.output) / "images" / name).read_bytes() for name in names])
    assert len(pictures[0]) == 8 and all(
        mine != untouched for mine, untouched in zip(*pictures, strict=True)
    )


def test_a_loss_that_is_no_number_ends_the_training_as_failed(base: Run, tmp_path: Path) -> None:
    config = conf.replace(
        base,
        {
            "seed": 23,
            "trainer.steps": 6,
            "trainer.log_every": 1,
            "trainer.checkpoint_every": 1,
        },
    )
    # Beyond what the settings allow, so that any loss overflows
    config = replace(config, trainer=replace(config.trainer, lr=1e30))
    with pytest.raises(
        FloatingPointError, match=(r"the loss is (nan|inf) at " r"step \d: lower trainer.lr")
    ):
        train.run(config, tmp_path)
    folder = target(config)
    assert (
        not folder.exists()
        and not folder.with_name(f"{folder.name}.checkpoints").exists()
        and not (tmp_path / "result.json").exists()
    )


def test_the_trainer_follows_the_settings(base: Run) -> None:
    settings = {"trainer.clip": 0.3, "trainer.accumulate": 3, "trainer.steps": 7}
    method: Any = SimpleNamespace(find_unused_parameters=False)
    trainer = fit._trainer(conf.replace(base, settings), method, [])
    assert (trainer.gradient_clip_val, trainer.accumulate_grad_batches) == (0.3, 3)
    assert (trainer.max_steps, trainer.num_devices, trainer.num_nodes) == (7, 1, 1)
    assert trainer.precision == "32-true"


def test_losses_stand_at_the_same_steps_in_every_training(base: Run, tmp_path: Path) -> None:
    train.run(
        conf.replace(
            base, {"seed": 24, "trainer.steps": 5, "trainer.log_every": 2, "evaluation.prompts": 0}
        ),
        tmp_path,
    )
    assert [line.split()[0] for line in (tmp_path / "losses.txt").read_text().splitlines()] == [
        "2",
        "4",
        "5",
    ]


def test_a_card_that_could_not_be_written_makes_no_adapter(
    base: Run, tmp_path: Path, monkeypatch: Any
) -> None:
    config = conf.replace(base, {"seed": 25, "evaluation.prompts": 0, "trainer.steps": 1})
    folder = target(config)
    write_text = Path.write_text

    def full(path: Path, text: str, *words: Any, **named: Any) -> int:
        if path.parent == folder and "adapter.json" in path.name:
            write_text(path, "", *words, **named)
            raise OSError(28, "No space left on device")
        return write_text(path, text, *words, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="adapter.json cannot be written: no space left"):
            train.run(config, tmp_path)
    assert not (folder / "adapter.json").exists()
    train.run(config, tmp_path)
    assert json.loads((folder / "adapter.json").read_text())["method"] == "maskattn"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["separate_enhance", "mcgm"])
def test_gradient_checkpointing_trains_the_same(base: Run, tmp_path: Path, method: str) -> None:
    from safetensors.torch import load_file

    found = []
    for wanted in (False, True):
        changes = {
            "method": method,
            "seed": 31,
            "trainer.steps": 2,
            "trainer.gradient_checkpointing": wanted,
            "evaluation.prompts": 0,
        }
        if method == "mcgm":
            changes |= {"method.masks.dropout": 0.5}
        config = conf.replace(base, changes)
        train.run(config, tmp_path / str(wanted))
        folder = target(config)
        found.append(load_file(folder / "adapter.safetensors"))
    for name, tensor in found[0].items():
        assert torch.allclose(tensor, found[1][name], atol=1e-5), name


def test_gradient_checkpointing_runs_blocks_again(
    base: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers.models.unets.unet_2d_blocks import CrossAttnDownBlock2D
    from safetensors.torch import load_file

    calls: list[bool] = []
    forward = CrossAttnDownBlock2D.forward

    def count(self: Any, *args: Any, **more: Any) -> Any:
        calls.append(self.gradient_checkpointing and torch.is_grad_enabled())
        return forward(self, *args, **more)

    monkeypatch.setattr(CrossAttnDownBlock2D, "forward", count)
    weights = []
    for wanted in (True, False):
        changes = {"trainer.gradient_checkpointing": wanted, "trainer.steps": 1, "seed": 32}
        config = conf.replace(base, changes | {"evaluation.prompts": 0})
        train.run(config, tmp_path / str(wanted))
        weights.append(load_file(target(config) / "adapter.safetensors"))
        assert calls and all(called == wanted for called in calls)
        calls.clear()
    assert all(
        torch.allclose(value, weights[1][key], atol=1e-5) for key, value in weights[0].items()
    )


def test_gradient_checkpointing_is_off_again_after_an_error(base: Run) -> None:
    calls: list[str] = []
    denoiser = SimpleNamespace(
        enable_gradient_checkpointing=lambda: calls.append("on"),
        disable_gradient_checkpointing=lambda: calls.append("off"),
    )
    config = conf.replace(base, {"trainer.gradient_checkpointing": True})
    with pytest.raises(RuntimeError), fit._gradient_checkpointing(denoiser, config):
        raise RuntimeError
    with fit._gradient_checkpointing(denoiser, base):
        pass
    assert calls == ["on", "off"]
