"""The order of batches over epochs, processes and restarts."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.loading import Order, PairedDataModule, ranks, share
from lightning_modules.training.callbacks import MetricLines

ROOT = Path(__file__).resolve().parents[2]
SIZE, BATCH = 21, 3  # 3 global batches of two processes, 3 samples left over


def test_one_process_has_the_order_that_results_were_made_with():
    assert (
        list(Order(9, 3, 2))
        == torch.randperm(9, generator=torch.Generator().manual_seed(3 * 1_000_003 + 2)).tolist()
    )
    assert list(Order(11, 3, 2, batch=4)) == list(Order(11, 3, 2))[:8]


@pytest.mark.parametrize("skip", [0, 2, 3])
def test_processes_share_each_global_batch(skip: int):
    parts = [torch.tensor(list(Order(50, 1, 4, skip, 3, rank, 4))).view(-1, 3) for rank in range(4)]
    alone = torch.tensor(list(Order(50, 1, 4, skip, 12))).view(-1, 12)
    assert len(alone) == 4 - skip and torch.equal(torch.cat(parts, 1), alone)
    assert {len(Order(50, 1, 4, skip, 3, rank, 4)) for rank in range(4)} == {12}, (
        "the Trainer counts the batches that came before"
    )


@pytest.mark.parametrize(("count", "world"), [(10, 1), (10, 3), (2, 4), (0, 2), (64, 8)])
def test_an_evaluation_takes_every_sample_once(count: int, world: int):
    shares = [share(count, rank, world) for rank in range(world)]
    assert [sample for mine in shares for sample in mine] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    seen = [
        int(row)
        for mine in shares
        for batch in DataLoader(list(range(count)), 4, sampler=mine)
        for row in batch
    ]  # type: ignore[arg-type]
    assert seen == list(range(count))


WORKER = """
import json, os, sys, warnings
import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import Dataset
from datamodules.loading import PairedDataModule

class Numbers(Dataset):
    epoch = 0
    def __len__(self): return int(sys.argv[2])
    def __getitem__(self, index):
        open(f"{sys.argv[1]}/process.{os.getpid()}", "w").close()
        return {"id": index, "caption": f"{index} in epoch {self.epoch}"}

class Data(PairedDataModule):
    def setup(self, stage): self.train_set = Numbers()

class Listener(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight, self.seen = torch.nn.Parameter(torch.zeros(1)), []
    def training_step(self, batch, step):
        self.seen.append(batch.captions)
        return (self.weight * 0).sum()
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), 0.1)

def trainer(steps, loader_is_ours):
    quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False)
    keep = ModelCheckpoint(sys.argv[1], "middle", every_n_train_steps=5)
    return L.Trainer(max_steps=steps, accelerator="cpu", devices=2, callbacks=[keep],
                     strategy=DDPStrategy(process_group_backend="gloo"),
                     use_distributed_sampler=not loader_is_ours,
                     reload_dataloaders_every_n_epochs=1, **quiet)

def fit(steps, batch=3, path=None, loader_is_ours=False):
    module = Listener()
    data = Data(batch=batch, workers=workers, seed=5)
    only = True if path else None
    trainer(steps, loader_is_ours).fit(module, datamodule=data, ckpt_path=path, weights_only=only)
    return module.seen

warnings.filterwarnings("ignore")
workers = 1
first = fit(5)  # stops in the middle of the second epoch
workers, middle = 0, sys.argv[1] + "/middle.ckpt"
rest = fit(8, path=middle, loader_is_ours=True)
try:
    fit(8, batch=2, path=middle)
    refused = ""
except ValueError as error:
    refused = str(error)
print(json.dumps([first, rest, refused]))
"""


class Numbers(PairedDataModule):
    """What the processes of the test read, in one process."""

    def __init__(self, size: int, batch: int) -> None:
        super().__init__(batch, seed=5)
        self.train_set = Captions(size)

    def at(self, epoch: int) -> list[list[str]]:
        self.trainer = SimpleNamespace(current_epoch=epoch, fit_loop=SimpleNamespace(batch_idx=-1))  # type: ignore[assignment]
        return [batch.captions for batch in self.train_dataloader()]


class Captions(torch.utils.data.Dataset):
    epoch = 0

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict:
        return {"id": index, "caption": f"{index} in epoch {self.epoch}"}


@pytest.mark.slow
def test_two_processes_train_on_the_batches_of_one_and_go_on_in_the_middle_of_an_epoch(
    tmp_path: Path,
):
    (tmp_path / "worker.py").write_text(WORKER)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launched = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": "2",
        "TORCHELASTIC_RUN_ID": "test",
    }
    environment = {**os.environ, **launched, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(tmp_path / "worker.py"), str(tmp_path), str(SIZE)]
    processes = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment, "RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in ("0", "1")
    ]
    answers = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], answers
    (first, rest, refused), (other_first, other_rest, other_refused) = (
        json.loads(answer.splitlines()[-1]) for answer in answers
    )

    one = Numbers(SIZE, 2 * BATCH)
    expected = [*one.at(0), *one.at(1), *one.at(2)][:8]
    together = [
        mine + other for mine, other in zip(first + rest, other_first + other_rest, strict=True)
    ]
    assert together == expected and len(first) == 5 and len(rest) == 3
    assert [captions[0][-1] for captions in together] == list("00011122"), (
        "the epoch reaches the worker processes"
    )
    assert len(list(tmp_path.glob("process.*"))) == 2 + 2, (
        "workers are started once, not each epoch"
    )
    assert (
        refused == other_refused
        and ("samples 21, global_batch 6, seed 5; now it is samples 21, global_batch 4") in refused
    )


class Steps(L.LightningModule):
    """Of each optimiser step: how many samples it took, and the gradient of a loss whose is 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.samples = torch.nn.Parameter(torch.zeros(1)), 0
        self.steps: list[tuple[int, float]] = []

    def training_step(self, batch: Any, number: int) -> Tensor:
        self.log("train/loss", float(number))
        self.samples += len(batch.captions)
        return self.weight.sum()

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        assert self.weight.grad is not None
        self.steps.append((self.samples, float(self.weight.grad)))
        self.samples = 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def fit_steps(
    size: int, batch: int, accumulate: int, *callbacks: L.Callback
) -> list[tuple[int, float]]:
    module = Steps()
    L.Trainer(
        max_steps=5,
        accumulate_grad_batches=accumulate,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        reload_dataloaders_every_n_epochs=1,
        callbacks=list(callbacks),
    ).fit(module, datamodule=Numbers(size, batch))
    return module.steps


@pytest.mark.filterwarnings("ignore")
def test_each_step_takes_as_many_samples_also_at_the_end_of_an_epoch():
    assert fit_steps(11, 1, 4) == [(4, 1.0)] * 5
    assert fit_steps(11, 2, 2) == [(4, 1.0)] * 5
    assert len(Order(11, 0, 0, accumulate=4)) == 8 and len(Order(11, 0, 0, batch=2)) == 10
    logged: list[tuple[int, float]] = []
    lines = MetricLines(2, lambda metrics, step: logged.append((step, metrics["train/loss"])))
    fit_steps(11, 1, 4, lines)
    assert logged == [(2, 5.5), (4, 5.5), (5, 1.5)], "the mean over the batches of a step"
    with pytest.raises(ValueError, match=r"make no batch of 3, 4 times .*trainer.accumulate"):
        fit_steps(11, 3, 4)


def test_too_few_samples_and_a_checkpoint_of_other_data_are_refused():
    assert ranks() == (0, 1)
    with pytest.raises(
        ValueError, match=("2 training samples make no batch of 3: set trainer.batch lower")
    ):
        Numbers(2, 3).train_dataloader()
    module = Numbers(8, 4)
    module.load_state_dict(Numbers(8, 4).state_dict())
    with pytest.raises(
        ValueError,
        match=(
            r"samples 9, global_batch 4, seed 5; now " r"it is samples 8, .*delete the checkpoint"
        ),
    ):
        module.load_state_dict(Numbers(9, 4).state_dict())
