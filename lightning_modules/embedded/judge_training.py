"""The judge's loss and its Lightning training; the command is `python -m
lightning_modules.metrics.train_judge`."""

from __future__ import annotations

import argparse
import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lightning_modules.embedded.judge import GRID, STRIDE, UNIT_RADIUS, Judge, Maps, Network
from lightning_modules.embedded.judge_data import Labels, draw_batch, make_pool

CHUNK = 100  # steps between checkpoints
# Pixels; how fast a cell's claim to an object falls off with the distance from its centre
SPREAD = 2.8


def judge_loss(maps: Maps, labels: Labels) -> dict[str, Tensor]:
    """Presence, class and place terms, each a mean per object.

    Presence follows CenterNet (arXiv:1904.07850, eq. 1) without the focal exponent, which would
    spoil the calibration: the cell that holds the centre has the (soft) presence as its target, all
    others 0 with weight (1 - g)^4, where g falls off with the distance from the centre; a centre
    between two cells thus costs neither. Class and place are asked of all cells near a centre, by
    weight g.
    """
    x, y, radius = labels.place.unbind(-1)  # [B, K]
    real = labels.presence > 0
    centres = (torch.arange(GRID, device=x.device) + 0.5) * STRIDE
    squared = (centres[None, None, None, :] - x[..., None, None]) ** 2 + (
        centres[None, None, :, None] - y[..., None, None]
    ) ** 2
    near = torch.exp(-squared / (2 * SPREAD**2)) * real[..., None, None]  # [B, K, 16, 16]
    # [B, K]
    cell = (y / STRIDE).long().clamp(0, GRID - 1) * GRID + (x / STRIDE).long().clamp(0, GRID - 1)
    centre = (
        torch.zeros_like(near)
        .flatten(2)
        .scatter(2, cell[..., None], real[..., None].float())
        .view_as(near)
    )
    count = real.sum().clamp(min=1)

    target, _ = (centre * labels.presence[..., None, None]).max(1)  # [B, 16, 16]
    weight = torch.where(centre.amax(1) > 0, 1.0, (1 - near.amax(1)) ** 4)
    presence = (
        weight * F.binary_cross_entropy_with_logits(maps.presence, target, reduction="none")
    ).sum() / count

    claim = near * (near > 0.3) * labels.presence[..., None, None]  # [B, K, 16, 16]
    total = claim.sum().clamp(min=1e-6)
    shape = -torch.einsum("bkhw,bks,bshw->", claim, labels.shape, maps.shape.log_softmax(1)) / total
    color = -torch.einsum("bkhw,bkc,bchw->", claim, labels.color, maps.color.log_softmax(1)) / total
    off = (maps.x[:, None] - x[..., None, None]).abs() + (
        maps.y[:, None] - y[..., None, None]
    ).abs()
    scale = (maps.radius[:, None].log() - radius.clamp(min=1)[..., None, None].log()).abs()
    place = (claim * (off / UNIT_RADIUS + scale)).sum() / total
    return {"presence": presence, "shape": shape, "color": color, "place": place}


class JudgeTraining(L.LightningModule):
    def __init__(
        self,
        steps: int,
        batch: int,
        lr: float,
        pool: int,
        seed: int,
        width: int = 48,
        deep: int = 96,
    ) -> None:
        super().__init__()
        self.network = Network(width, deep)
        self.steps, self.batch, self.lr, self.seed = steps, batch, lr, seed
        self.pool = make_pool(pool)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(range(CHUNK), batch_size=None)  # type: ignore[arg-type]

    def training_step(self, batch: Any, index: int) -> Tensor:
        # Drawn from the step's own seed: a resumed training sees what an uninterrupted one would
        # have seen.
        images, labels = draw_batch(self.pool, self.batch, self.seed * 1_000_003 + self.global_step)
        terms = judge_loss(
            self.network(images.to(self.device)), Labels(*(v.to(self.device) for v in labels))
        )
        loss = terms["presence"] + terms["shape"] + terms["color"] + terms["place"]
        self.log_dict({"loss": loss, **terms}, batch_size=self.batch)
        return loss

    def configure_optimizers(self) -> Any:
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        others = [p for p in self.network.parameters() if p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.02}, {"params": others, "weight_decay": 0.0}],
            lr=self.lr,
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.lr, total_steps=self.steps, pct_start=0.08
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Estimate(Callback):
    """One line per hundred steps: loss terms, and how long the rest will take."""

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.start, self.first = time.perf_counter(), trainer.global_step

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        done, total = trainer.global_step, trainer.max_steps
        left = (time.perf_counter() - self.start) / max(done - self.first, 1) * (total - done)
        terms = " ".join(
            f"{key} {float(value):.3f}" for key, value in trainer.callback_metrics.items()
        )
        print(f"step {done}/{total}  {terms}  about {left:.0f} s left", flush=True)


def train(args: argparse.Namespace) -> tuple[Judge, float]:
    """Trains, or goes on from the last checkpoint. Returns the judge (features not yet
    standardised) and the last training loss."""
    args.steps = -(-args.steps // CHUNK) * CHUNK
    L.seed_everything(args.seed, verbose=False)
    print(f"rendering {args.pool} images", flush=True)
    module = JudgeTraining(args.steps, args.batch, args.lr, args.pool, args.seed)
    scratch = args.output / ".training"
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=args.steps,
        gradient_clip_val=1.0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=10,
        callbacks=[
            Estimate(),
            ModelCheckpoint(
                scratch,
                save_last=True,
                save_top_k=0,
                every_n_epochs=1,
                save_on_train_epoch_end=True,
            ),
        ],
    )
    last = scratch / "last.ckpt"
    trainer.fit(module, ckpt_path=str(last) if last.exists() else None, weights_only=True)
    judge = Judge({"width": 48, "deep": 96, "threshold": 0.5})
    judge.network.load_state_dict(module.network.state_dict())
    return judge, float(trainer.callback_metrics["loss"])
