"""Training from nothing with Lightning, resumable, with a loss curve that is kept."""

from __future__ import annotations

import json
import time
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, Dataset

from conf.files import read_json, write_atomically
from datamodules.batch import Batch, collate
from lightning_modules.training.callbacks import ProgressLines, print_line
from lightning_modules.training.checkpoints import LAST, KeptCheckpoints, find_checkpoint

__all__ = ["LossCurve", "fit"]


class LossCurve(L.Callback):
    """Mean loss over every ``every`` steps, with the seconds they took and the CPU seconds of this
    process, kept in a JSON file across resumptions."""

    def __init__(self, path: Path, every: int = 100) -> None:
        self.path, self.every, self.sum = path, every, 0.0
        self.began, self.cpu = time.monotonic(), time.process_time()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:  # noqa: ANN001
        self.sum += float(outputs["loss"])
        if trainer.global_step % self.every == 0:
            curve = read_json(self.path) or []
            seconds = round(time.monotonic() - self.began, 1)
            cpu = round(time.process_time() - self.cpu, 1)
            self.began, self.cpu = time.monotonic(), time.process_time()
            curve = [point for point in curve if point["step"] < trainer.global_step]
            curve.append(
                {
                    "step": trainer.global_step,
                    "loss": round(self.sum / self.every, 5),
                    "seconds": seconds,
                    "cpu_seconds": cpu,
                }
            )
            write_atomically(self.path, json.dumps(curve))
            self.sum = 0.0


def fit(
    module: L.LightningModule,
    data: Dataset,
    folder: Path,
    steps: int,
    batch: int,
    precision: str,
    label: str,
) -> None:
    """Trains to ``steps``, going on from the newest checkpoint in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    trainer = L.Trainer(
        max_steps=steps,
        precision=precision,  # type: ignore[arg-type]
        gradient_clip_val=1.0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[
            ModelCheckpoint(
                folder,
                save_last=True,
                save_top_k=0,
                every_n_train_steps=250,
                save_on_train_epoch_end=False,
                enable_version_counter=False,
            ),
            ProgressLines(label),
            LossCurve(folder / "loss.json"),
        ],
        plugins=[KeptCheckpoints()],
    )
    loader: DataLoader[Batch] = DataLoader(
        data, batch, shuffle=True, drop_last=True, collate_fn=collate
    )
    last = find_checkpoint(folder, print_line)
    trainer.fit(module, loader, ckpt_path=last, weights_only=True)
    trainer.save_checkpoint(folder / LAST)
