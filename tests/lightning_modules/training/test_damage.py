"""Adapters and checkpoints that were cut off: dropped with a line that names them, and trained
again to the same numbers."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Dataset, default_collate

from conf import load as conf
from conf.files import DiskFull
from conf.schema import Run
from lightning_modules.embedded import fitting
from lightning_modules.training import run as train
from lightning_modules.training.callbacks import StopOnRequest
from lightning_modules.training.checkpoints import KeptCheckpoints, find_checkpoint


def target(config: Run) -> Path:
    return Path(config.output) / "adapters" / train.training_key(config)


def tensors(config: Run) -> dict[str, torch.Tensor]:
    return load_file(target(config) / "adapter.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    act = StopOnRequest.act

    def stop(self: StopOnRequest, trainer: Any, now: int) -> None:
        act(self, trainer, now)
        if now == step:
            raise RuntimeError("power cut")

    monkeypatch.setattr(StopOnRequest, "act", stop)


@pytest.fixture(scope="module")
def trained(base: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict]:
    """A run with a whole adapter, and what that holds."""
    folder = tmp_path_factory.mktemp("damage")
    changes = {
        "evaluation.prompts": 0,
        "trainer.steps": 6,
        "trainer.checkpoint_every": 2,
        "output": str(folder),
    }
    config = conf.replace(base, changes)
    train.run(config, folder / "trial")
    return config, tensors(config)


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("adapter.json", 0),
        ("adapter.safetensors", 0.5),
        pytest.param("adapter.json", 0.5, marks=pytest.mark.slow),
        pytest.param("adapter.safetensors", 0, marks=pytest.mark.slow),
    ],
)
def test_an_adapter_that_was_cut_off_is_trained_again(
    trained: tuple[Run, dict], tmp_path: Path, name: str, share: float
) -> None:
    config, before = trained
    lines: list[str] = []
    cut(target(config) / name, share)
    train.run(config, tmp_path, progress=lambda text, share: lines.append(text))
    assert same(tensors(config), before)
    named = [line for line in lines if str(target(config) / name) in line]
    assert len(named) == 1 and "trained again" in named[0]
    # Now it is whole
    train.run(config, tmp_path, progress=lambda text, share: lines.append(text))
    assert f"training: adapter {target(config).name} is there already" in lines


def test_an_adapter_with_other_content_than_its_card_says_is_trained_again(
    trained: tuple[Run, dict], tmp_path: Path
) -> None:
    config, before = trained
    card, lines = target(config) / "adapter.json", []
    card.write_text(json.dumps(json.loads(card.read_text()) | {"sha256": "0" * 64}))
    train.run(config, tmp_path, progress=lambda text, share: lines.append(text))
    assert same(tensors(config), before)
    assert any("adapter.safetensors is damaged" in line for line in lines)


@pytest.mark.parametrize("content", ["", '{"seconds": '])
def test_facts_beside_an_adapter_do_not_block_it(
    trained: tuple[Run, dict], tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    config, _ = trained
    (target(config) / "ran.json").write_text(content)
    assert train.run(config, tmp_path)["ran"]["training"] == {}
    assert str(target(config) / "ran.json") in caplog.text


@pytest.mark.parametrize(
    ("names", "share"),
    [
        (["last.ckpt"], 0.5),
        (["last.ckpt", "previous.ckpt"], 0),
        *(pytest.param(["last.ckpt"], share, marks=pytest.mark.slow) for share in (0, 0.99)),
    ],
)
def test_a_half_written_checkpoint_blocks_nothing(
    trained: tuple[Run, dict],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    names: list[str],
    share: float,
) -> None:
    config, before = trained
    config = conf.replace(config, {"output": str(tmp_path)})
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        stop_at(5, patch)
        train.run(config, tmp_path / "trial")
    folder = target(config).with_name(f"{target(config).name}.checkpoints")
    assert sorted(path.name for path in folder.iterdir()) == ["last.ckpt", "previous.ckpt"]
    for name in names:
        cut(folder / name, share)
    lines: list[str] = []
    train.run(config, tmp_path / "trial", progress=lambda text, share: lines.append(text))
    assert [sum(str(folder / name) in line for line in lines) for name in names] == [1] * len(names)
    assert any("goes on from step 2" in line for line in lines) == (len(names) == 1)
    assert same(tensors(config), before) and not folder.exists()


def test_a_checkpoint_replaces_the_one_before_only_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, keeper = tmp_path / "last.ckpt", KeptCheckpoints()
    for step in (1, 2):
        keeper.save_checkpoint({"global_step": step}, path)

    def full(self: Path, *args: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(DiskFull, match=str(path)):
        patch.setattr(Path, "open", full)
        keeper.save_checkpoint({"global_step": 3}, path)
    steps = [torch.load(tmp_path / name)["global_step"] for name in ("previous.ckpt", path.name)]
    assert steps == [1, 2] and len([*tmp_path.iterdir()]) == 2
    # Killed between the two renames
    path.unlink()
    assert find_checkpoint(tmp_path, lambda *_: None) == tmp_path / "previous.ckpt"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: b"", "it is empty"),
        (lambda content: content[:-1], "no whole checkpoint"),
        (lambda content: bytes(len(content)), "no whole checkpoint"),
        # Names and sizes are all there, a block of numbers is not
        (lambda content: content.replace(b"\0\0\x80?" * 4096, bytes(4 * 4096)), "check sum"),
    ],
)
def test_a_checkpoint_that_lacks_a_part_is_left_out_with_a_whole_line(
    tmp_path: Path, damage: Callable[[bytes], bytes], reason: str
) -> None:
    path = tmp_path / "last.ckpt"
    for step in (1, 2):
        content = {"global_step": step, "weights": torch.ones(8192)}
        KeptCheckpoints().save_checkpoint(content, path)
    path.write_bytes(damage(path.read_bytes()))
    lines: list[str] = []
    found = find_checkpoint(tmp_path, lambda line, share: lines.append(line))
    assert found == tmp_path / "previous.ckpt" and not path.exists()
    (told,) = re.findall(rf"{re.escape(str(path))} is damaged \((.*)\): dropped", lines[0])
    assert told.endswith(reason)


def test_a_folder_in_the_place_of_a_checkpoint_is_left_out_with_a_line(tmp_path: Path) -> None:
    path, lines = tmp_path / "last.ckpt", []
    for step in (1, 2):
        KeptCheckpoints().save_checkpoint({"global_step": step}, path)
    path.unlink()
    (path / "inside").mkdir(parents=True)
    found = find_checkpoint(tmp_path, lambda line, share: lines.append(line))
    assert found == tmp_path / "previous.ckpt" and not path.exists()
    assert lines[0].startswith(f"{path} is damaged (it is a folder): dropped") and len(lines) == 2
    KeptCheckpoints().save_checkpoint({"global_step": 3}, path)
    assert path.is_file()


def test_the_embedded_trainings_go_on_from_a_whole_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "collate", default_collate)

    class Tiny(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 1)

        def training_step(self, batch: Any) -> Any:
            return self.layer(batch["x"]).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 1e-3)

    class Data(Dataset):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            return {"x": torch.ones(1)}

    for steps in (2, 4):
        fitting.fit(Tiny(), Data(), tmp_path, steps, 2, "32-true", "tiny")
    cut(tmp_path / "last.ckpt", 0.5)
    (tmp_path / "loss.json").write_text('[{"step": ')
    fitting.fit(Tiny(), Data(), tmp_path, 100, 2, "32-true", "tiny")
    told = capsys.readouterr().out
    assert f"{tmp_path / 'last.ckpt'} is damaged" in told and "goes on from step 2" in told
    assert [point["step"] for point in json.loads((tmp_path / "loss.json").read_text())] == [100]
