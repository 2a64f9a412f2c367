"""Training batches whose order a seed fixes, and which go on in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader, Sampler

from datamodules.batch import Batch, collate


class Order(Sampler[int]):
    """Every index once, in an order that ``seed`` and ``epoch`` fix. An epoch that is taken up again leaves out its first ``skip``."""

    def __init__(self, size: int, seed: int, epoch: int, skip: int = 0) -> None:
        self.size, self.seed, self.epoch, self.skip = size, seed, epoch, skip

    def __len__(self) -> int:
        # The whole epoch, also when it is taken up again: the Trainer counts the batches that came before.
        return self.size

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return iter(torch.randperm(self.size, generator=generator).tolist()[self.skip :])


class PairedDataModule(L.LightningDataModule):
    """What the DataModules share: batches of ``train_set``, which a subclass makes in ``setup``.

    Every (seed) gives the same order of images and captions, whatever the method: comparisons between methods are paired.
    """

    train_set: Any

    def __init__(self, batch: int = 16, workers: int = 0, seed: int = 0) -> None:
        super().__init__()
        self.batch, self.workers, self.seed = batch, workers, seed

    def train_dataloader(self) -> DataLoader[Batch]:
        """One epoch, or what is left of it. The Trainer asks anew each epoch (``reload_dataloaders_every_n_epochs=1``).

        Lightning itself would begin an interrupted epoch from its start, with the numbers of later batches.
        Raises ValueError when an epoch holds fewer samples than a batch.
        """
        size = len(self.train_set)
        if size < self.batch:
            raise ValueError(f"{size} training samples make no batch of {self.batch}: set trainer.batch lower")
        epoch = self.trainer.current_epoch if self.trainer else 0
        done = self.trainer.fit_loop.batch_idx + 1 if self.trainer else 0
        self.train_set.epoch = epoch
        order = Order(size, self.seed, epoch, skip=done % (size // self.batch) * self.batch)
        return DataLoader(self.train_set, self.batch, sampler=order, drop_last=True, num_workers=self.workers, collate_fn=collate)
