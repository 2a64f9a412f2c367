"""Trains the judge of the embedded world on fresh renders, measures it, and writes weights, config
and card.

    OMP_NUM_THREADS=1 python -m lightning_modules.metrics.train_judge       # one core is enough
    python -m lightning_modules.metrics.train_judge --output runs/judge --steps 3000
    python -m lightning_modules.metrics.train_judge --measure-only          # renews the card

An interrupted training goes on from its last checkpoint (every hundred steps, below
<output>/.training) when the command is run again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from conf.describe import show_count
from conf.pipes import ends_with_reader
from conf.places import find_obstacle
from conf.schema import MAX_SEED
from conf.values import option, path_option
from datamodules.shapes.splits import MOST
from lightning_modules.embedded.judge import ASSET, Judge
from lightning_modules.embedded.judge_card import measure, write_card
from lightning_modules.embedded.judge_data import (
    TRAIN_SEED,
    Labels,
    draw_batch,
    fresh_scenes,
    make_pool,
    to_images,
)
from lightning_modules.embedded.judge_networks import (
    GRID,
    NETWORKS,
    SETTINGS,
    STRIDE,
    UNIT_RADIUS,
    Maps,
    build_network,
)
from lightning_modules.training.callbacks import print_line
from lightning_modules.training.checkpoints import KeptCheckpoints, find_checkpoint

CHUNK = 100  # Steps between checkpoints
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
    classes = {
        key: -torch.einsum("bkhw,bkc,bchw->", claim, wanted, logits.log_softmax(1)) / total
        for key, wanted, logits in (
            ("shape", labels.shape, maps.shape),
            ("color", labels.color, maps.color),
            ("pattern", labels.pattern, maps.pattern),
        )
    }
    off = (maps.x[:, None] - x[..., None, None]).abs() + (
        maps.y[:, None] - y[..., None, None]
    ).abs()
    scale = (maps.radius[:, None].log() - radius.clamp(min=1)[..., None, None].log()).abs()
    place = (claim * (off / UNIT_RADIUS + scale)).sum() / total
    return {"presence": presence, **classes, "place": place}


class JudgeTraining(L.LightningModule):
    def __init__(
        self,
        steps: int,
        batch: int,
        lr: float,
        pool: int,
        seed: int,
        architecture: str,
    ) -> None:
        super().__init__()
        self.config = {"architecture": architecture, **SETTINGS[architecture], "threshold": 0.5}
        self.network = build_network(self.config)
        self.steps, self.batch, self.lr, self.seed = steps, batch, lr, seed
        self.pool = make_pool(pool, TRAIN_SEED + 1000 * seed)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(range(CHUNK), batch_size=None)  # type: ignore[arg-type]

    def training_step(self, batch: Any, index: int) -> Tensor:
        # Drawn from the step's own seed: a resumed training sees what an uninterrupted one would
        # have seen.
        images, labels = draw_batch(self.pool, self.batch, self.seed * 1_000_003 + self.global_step)
        terms = judge_loss(
            self.network(images.to(self.device)), Labels(*(v.to(self.device) for v in labels))
        )
        loss = torch.stack([*terms.values()]).sum()
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


class Progress(Callback):
    """One line per hundred steps: loss terms, and how long the rest will take. Counts the CPU
    seconds of this process, those before an interruption included."""

    def __init__(self) -> None:
        self.before = 0.0

    @property
    def cpu_seconds(self) -> float:
        return self.before + time.process_time()

    def state_dict(self) -> dict[str, float]:
        return {"cpu_seconds": self.cpu_seconds}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.before = state_dict["cpu_seconds"]

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.start, self.first = time.perf_counter(), trainer.global_step

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        done, total = trainer.global_step, trainer.max_steps
        left = (time.perf_counter() - self.start) / max(done - self.first, 1) * (total - done)
        terms = " ".join(
            f"{key} {float(value):.3f}" for key, value in trainer.callback_metrics.items()
        )
        print(f"step {done}/{total}  {terms}  about {left:.0f} s left", flush=True)


def train(args: argparse.Namespace) -> tuple[Judge, float, float]:
    """Trains, or goes on from the last checkpoint. Returns the judge (features not yet
    standardised), the last training loss and the CPU seconds."""
    args.steps = -(-args.steps // CHUNK) * CHUNK
    L.seed_everything(args.seed, verbose=False)
    print(f"rendering {show_count(args.pool, 'image')}", flush=True)
    module = JudgeTraining(args.steps, args.batch, args.lr, args.pool, args.seed, args.architecture)
    progress = Progress()
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
            progress,
            ModelCheckpoint(
                scratch,
                save_last=True,
                save_top_k=0,
                every_n_epochs=1,
                save_on_train_epoch_end=True,
                enable_version_counter=False,
            ),
        ],
        plugins=[KeptCheckpoints()],
    )
    trainer.fit(module, ckpt_path=find_checkpoint(scratch, print_line), weights_only=True)
    judge = Judge(module.config)
    judge.network.load_state_dict(module.network.state_dict())
    return judge, float(trainer.callback_metrics["loss"]), progress.cpu_seconds


def standardise(judge: Judge, count: int = 2000) -> None:
    """Measures mean and standard deviation of the features on clean renders of every kind."""
    kinds = [(n, heldout) for n in range(1, MOST + 1) for heldout in (False, True)]
    scenes = [
        s
        for objects, heldout in kinds
        for s in fresh_scenes(count // len(kinds), objects, heldout, TRAIN_SEED)
    ]
    raw = torch.cat([judge.raw_features(part) for part in to_images(scenes).split(256)])
    judge.feature_mean.copy_(raw.mean(0))
    judge.feature_sd.copy_(raw.std(0).clamp(min=1e-3))


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m lightning_modules.metrics.train_judge",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--output",
        type=path_option,
        default=ASSET,
        help="folder for weights, config and card (default: the shipped asset)",
    )
    parser.add_argument(
        "--architecture",
        choices=tuple(NETWORKS),
        default="fine_coarse",
        help="network (default: %(default)s)",
    )
    parser.add_argument(
        "--steps",
        type=option(int, 1, 100_000_000),
        default=2000,
        help="optimiser steps, rounded up to hundreds (default: %(default)s)",
    )
    parser.add_argument(
        "--batch",
        type=option(int, 1, 65_536),
        default=64,
        help="images per step (default: %(default)s)",
    )
    parser.add_argument(
        "--lr",
        type=option(float, 0, 1000),
        default=4e-3,
        help="peak learning rate (default: %(default)s)",
    )
    parser.add_argument(
        "--pool",
        type=option(int, 1, 10_000_000),
        default=32000,
        help="rendered images kept in memory, 12 kB each (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=option(int, 0, MAX_SEED),
        default=0,
        help="seed of weights and batches (default: %(default)s)",
    )
    parser.add_argument(
        "--threads", type=option(int, 1, 1024), default=1, help="CPU threads (default: %(default)s)"
    )
    parser.add_argument(
        "--measure",
        type=option(int, 1, 1_000_000),
        default=700,
        help="fresh renders per entry of the card (default: %(default)s)",
    )
    parser.add_argument(
        "--measure-only",
        action="store_true",
        help="train nothing, measure the judge in --output and renew its card",
    )
    args = parser.parse_args(argv)
    if reason := find_obstacle(args.output):
        parser.error(f"--output {args.output} cannot be written to: {reason}")
    return args


@ends_with_reader
def main(argv: list[str]) -> None:
    args = arguments(argv)
    torch.set_num_threads(args.threads)
    facts_file = args.output / "training.json"
    if args.measure_only:
        facts = json.loads(facts_file.read_text())
    else:
        judge, loss, cpu_seconds = train(args)
        standardise(judge)
        judge.save(args.output)
        facts = {
            "command": " ".join(["python -m lightning_modules.metrics.train_judge", *argv]),
            "parameters": sum(p.numel() for p in judge.parameters()),
            **{
                key: getattr(args, key)
                for key in ("architecture", "steps", "batch", "lr", "pool", "seed", "threads")
            },
            "combinations": 48,
            "cpu_seconds": round(cpu_seconds),
            "loss": loss,
        }
        facts_file.write_text(json.dumps(facts, indent=2) + "\n")
        shutil.rmtree(args.output / ".training", ignore_errors=True)
    tables = measure(Judge.load(args.output), args.measure)
    write_card(args.output, facts, tables, args.measure)
    print((args.output / "README.md").read_text())


if __name__ == "__main__":
    main(sys.argv[1:])
