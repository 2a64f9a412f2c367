"""Training batches whose order a seed fixes on any number of processes, and which go on in the
middle of an epoch."""

from __future__ import annotations

import json
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import lightning as L
import torch
from torch import distributed
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from conf.describe import show_count
from datamodules.batch import Batch, collate

if TYPE_CHECKING:
    from datamodules.concepts import ConceptDataset

T = TypeVar("T")


def ranks() -> tuple[int, int]:
    """(number of this process, number of processes) of a distributed training; (0, 1) without
    one."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def once(work: Callable[[], T]) -> T:
    """The result of ``work``, which the first process alone does; the others wait and receive it.
    It has to fit into JSON."""
    rank, world = ranks()
    if world == 1:
        return work()
    results = [json.dumps(work()) if rank == 0 else None]
    distributed.broadcast_object_list(results)
    return json.loads(str(results[0]))


def share(count: int, rank: int, world: int) -> range:
    """Which of ``count`` samples process ``rank`` of ``world`` evaluates; it also serves as the
    sampler of a DataLoader.

    Every sample falls to exactly one process and none is repeated to make shares equal, so that
    nothing counts twice. Shares differ by one sample at most and may be empty; one after another in
    the order of ranks they are 0 … ``count`` - 1.
    """
    return range(count * rank // world, count * (rank + 1) // world)


def count_batches(size: int, batch: int, accumulate: int = 1) -> int:
    """How many batches of an epoch make whole optimiser steps of ``accumulate`` batches."""
    return size // (batch * accumulate) * accumulate


class Order(DistributedSampler[Any]):
    """Every index once, in an order that ``seed`` and ``epoch`` fix, for process ``rank`` of
    ``world``: of each global batch of ``world`` x ``batch`` samples its own ``batch``. Together the
    processes see the batches of one process with the global batch.

    What makes no whole global batch is dropped, or no ``accumulate`` of them, of which an
    optimiser step is: the Trainer ends an epoch with a step, of however few. An epoch that is taken
    up again leaves out its first ``skip`` batches. ``with_epoch`` gives (epoch, index) in place of
    the index. Without ``shuffle`` the order is that of the indices.
    """

    # A DistributedSampler because Lightning wraps any other once more: each process would then take
    # a part of its own part.

    def __init__(
        self,
        size: int,
        seed: int,
        epoch: int,
        skip: int = 0,
        batch: int = 1,
        rank: int = 0,
        world: int = 1,
        with_epoch: bool = False,
        shuffle: bool = True,
        accumulate: int = 1,
    ) -> None:
        self.accumulate = accumulate
        self.size, self.seed, self.epoch, self.skip = size, seed, epoch, skip
        self.batch, self.rank, self.world = batch, rank, world
        self.with_epoch, self.shuffle = with_epoch, shuffle

    def __len__(self) -> int:
        # The whole epoch, also when it is taken up again: the Trainer counts the batches that came
        # before.
        return count_batches(self.size, self.batch * self.world, self.accumulate) * self.batch

    def __iter__(self) -> Iterator[Any]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = (
            torch.randperm(self.size, generator=generator)
            if self.shuffle
            else torch.arange(self.size)
        )[: len(self) * self.world]
        mine = order.view(-1, self.world, self.batch)[self.skip :, self.rank].flatten().tolist()
        return iter([(self.epoch, index) for index in mine] if self.with_epoch else mine)

    def set_epoch(self, epoch: int) -> None:
        """Nothing: each epoch has an order of its own."""


def _leave_signals_to_parent(worker: int) -> None:
    """A scheduler may signal a whole process tree; the parent needs its loader workers until the
    step that it is in has ended. They end when it does."""
    for name in ("SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


class EpochSamples(Dataset[Any]):
    """The samples of a dataset by (epoch, index), for worker processes that go on over epochs."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, place: tuple[int, int]) -> Any:
        self.dataset.epoch, index = place
        return self.dataset[index]


class PairedDataModule(L.LightningDataModule):
    """What the DataModules share: batches of ``train_set``, which a subclass makes in ``setup``.

    A seed gives the same order of images and captions to every method: comparisons between
    methods are paired. ``batch`` is what one process takes at once.
    """

    train_set: Any
    eval_sets: Any
    # What a person should know of the data, in sentences
    notes: Sequence[str] = ()
    # Whether `setup` warns of them: no, where whoever built the data tells them
    warns_of_notes = True
    # Each evaluation set holds so many samples at most, by data.eval_images; None: all
    eval_limit: int | None = None

    def __init__(self, batch: int = 16, workers: int = 0, seed: int = 0) -> None:
        super().__init__()
        self.batch, self.workers, self.seed = batch, workers, seed
        self._loader: DataLoader[Batch] | None = None
        self._made_for: tuple[Any, ...] = ()

    def train_dataloader(self) -> DataLoader[Batch]:
        """One epoch, or what is left of it. The Trainer asks again each epoch
        (``reload_dataloaders_every_n_epochs=1``).

        Lightning itself would begin an interrupted epoch from its start, with the numbers of later
        batches. Raises ValueError when an epoch holds fewer samples than an optimiser step takes.
        """
        size, (rank, world) = len(self.train_set), ranks()
        accumulate = getattr(self.trainer, "accumulate_grad_batches", 1)
        if not (batches := count_batches(size, self.batch * world, accumulate)):
            on = f" on each of {world} processes" if world > 1 else ""
            if accumulate > 1:
                on += f", {accumulate} times for a step (trainer.accumulate)"
            raise ValueError(
                f"{show_count(size, 'training sample')} make no batch of {self.batch}{on}: set "
                "trainer.batch lower"
            )
        epoch = self.trainer.current_epoch if self.trainer else 0
        done = self.trainer.fit_loop.batch_idx + 1 if self.trainer else 0
        skip = done % batches
        shuffle = not getattr(self.train_set, "in_order", False)
        if not self.workers:
            self.train_set.epoch = epoch
            order = Order(
                *(size, self.seed, epoch, skip, self.batch, rank, world),
                shuffle=shuffle,
                accumulate=accumulate,
            )
            return DataLoader(self.train_set, self.batch, sampler=order, collate_fn=collate)
        # The worker processes are started once, before the first step, and hold copies of the
        # dataset: the epoch comes with each index. Up to Python 3.11 a process that is forked while
        # a thread of autograd or of the process group enters Python can wait for a lock for ever;
        # with new workers in each epoch that happened.
        made_for = (
            *(self.train_set, size, self.seed, self.batch, self.workers, rank, world, accumulate),
        )
        if self._loader is None or self._made_for != made_for:
            self._made_for = made_for
            order = Order(
                *(size, self.seed, epoch, skip, self.batch, rank, world),
                with_epoch=True,
                shuffle=shuffle,
                accumulate=accumulate,
            )
            self._loader = DataLoader(
                EpochSamples(self.train_set),
                self.batch,
                sampler=order,
                num_workers=self.workers,
                collate_fn=collate,
                persistent_workers=True,
                worker_init_fn=_leave_signals_to_parent,
            )
        kept = self._loader.sampler
        assert isinstance(kept, Order)
        kept.epoch, kept.skip = epoch, skip
        return self._loader

    def concept_dataset(
        self, concepts: Sequence[str], objects: int, length: int, seed: int, **more: Any
    ) -> ConceptDataset:
        """Training prompts made of ``concepts`` in place of the data's own; ``more`` as in
        `ConceptDataset`. Raises ValueError for concepts that the data do not know."""
        from datamodules.concepts import ConceptDataset

        return ConceptDataset(concepts, objects, length, seed, **more)

    def warn(self) -> None:
        """Tells the notes to whoever uses the DataModule by itself."""
        for note in self.notes if self.warns_of_notes and ranks()[0] == 0 else ():
            warnings.warn(note, stacklevel=3)

    def manifest(self) -> dict[str, Any]:
        """What the data are, for the records of a run. Fits into JSON."""
        return {
            "train": len(self.train_set),
            "evaluation": {name: len(dataset) for name, dataset in self.eval_sets.items()},
        }

    def state_dict(self) -> dict[str, Any]:
        """What the place in an epoch depends on, for the checkpoint."""
        return {
            "samples": len(self.train_set),
            "global_batch": self.batch * ranks()[1],
            "seed": self.seed,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises ValueError when the order that the checkpoint's training had begun is not the one
        that would go on."""
        if state_dict != self.state_dict():
            was, now = (
                ", ".join(f"{key} {value}" for key, value in state.items())
                for state in (state_dict, self.state_dict())
            )
            raise ValueError(
                f"the checkpoint was made with {was}; now it is {now}: go on as it began (the "
                "global batch is trainer.batch x processes) "
                "or delete the checkpoint to train from the start"
            )
