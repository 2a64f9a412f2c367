"""The processes of one run: one for each device, started by torchrun, on one machine or on several
that share the output folder.

    # trainer.devices=2
    torchrun --standalone --nproc-per-node=2 -m lightning_modules.train run.yaml
    # trainer.devices=8, the same command on two machines
    torchrun --nnodes=2 --nproc-per-node=4 --rdzv-backend=c10d --rdzv-endpoint=HOST:29500 \\
        -m lightning_modules.train run.yaml

The first process decides and writes, the others follow. ``once``, ``barrier``, ``sum_over_ranks``,
``all_gather_int`` and the end of a ``group`` wait for all processes, which all have to come there.
A process that fails raises; torchrun then ends the others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.rendezvous import rendezvous

from conf.describe import show_count
from datamodules.loading import once, ranks

__all__ = [
    "barrier",
    "device",
    "is_first",
    "all_gather_int",
    "group",
    "local_processes",
    "once",
    "rank",
    "sum_over_ranks",
]

PATIENCE = timedelta(hours=12)  # The others wait while the first process scores the images
COMMAND = "torchrun --standalone --nproc-per-node={} -m lightning_modules.train run.yaml"

# Of the groups of this process: the addresses of an earlier one would be taken for those of a later
# one
_number = count()


@contextmanager
def group(devices: int, accelerator: str) -> Iterator[None]:
    """Inside the block all processes that torchrun started are one group; without torchrun, and
    inside another block, nothing happens.

    Raises ValueError when another number of processes was started than ``devices``. After an error
    inside the block the group is left as it is, since the others may be waiting in it.
    """
    world = ranks()[1] if distributed.is_initialized() else _environment("WORLD_SIZE", 1)
    if world != devices:
        _refuse(world, devices)
    if world == 1 or distributed.is_initialized():
        yield
        return
    here, machines = local_processes(), _environment("GROUP_WORLD_SIZE", 1)
    if here * machines != world:
        raise ValueError(
            f"torchrun started {show_count(here, 'process', 'processes')} on one of "
            f"{show_count(machines, 'machine')} and {world} "
            "in all: start as many on each"
        )
    backend = "gloo"
    if device(accelerator).startswith("cuda"):
        torch.cuda.set_device(_environment("LOCAL_RANK", 0))
        # Messages beside the training are on the CPU, and wait there without keeping a GPU busy.
        backend = "cpu:gloo,cuda:nccl"
    store, number, _ = next(rendezvous("env://", timeout=PATIENCE))
    store = distributed.PrefixStore(f"run-{next(_number)}", store)
    distributed.init_process_group(
        backend, store=store, rank=number, world_size=world, timeout=PATIENCE
    )
    yield
    distributed.barrier()
    distributed.destroy_process_group()


def rank() -> int:
    """The number of this process among those that torchrun started, from 0."""
    return ranks()[0] if distributed.is_initialized() else _environment("RANK", 0)


def is_first() -> bool:
    return rank() == 0


def local_processes() -> int:
    """How many processes of the group are on this machine."""
    return _environment("LOCAL_WORLD_SIZE", 1)


def device(accelerator: str) -> str:
    """Where Lightning puts a module of this process under ``trainer.accelerator``.

    Raises ValueError when ``accelerator`` is gpu and there is none, or none for each process.
    """
    number, here = _environment("LOCAL_RANK", 0), local_processes()
    kind = (
        "cuda"
        if torch.cuda.is_available()
        else "mps"
        if torch.backends.mps.is_available()
        else "cpu"
    )
    if accelerator == "gpu" and kind == "cpu":
        raise ValueError(
            "trainer.accelerator=gpu but this machine has none that torch can use: set "
            "trainer.accelerator=auto"
        )
    if accelerator == "cpu" or kind == "cpu":
        return "cpu"
    there = torch.cuda.device_count() if kind == "cuda" else 1
    if here > there:
        raise ValueError(
            f"{show_count(here, 'process', 'processes')} on a machine with "
            f"{show_count(there, 'GPU')} that torch can use: start "
            "fewer, or set trainer.accelerator=cpu"
        )
    return f"cuda:{number}" if here > 1 else kind


def barrier() -> None:
    """Returns when all processes have come here."""
    if ranks()[1] > 1:
        distributed.barrier()


def all_gather_int(number: int) -> list[int]:
    """``number`` of every process, in their order."""
    numbers = [torch.zeros(1, dtype=torch.int64) for _ in range(ranks()[1])]
    if len(numbers) == 1:
        return [number]
    distributed.all_gather(numbers, torch.tensor([number]))
    return [int(each) for each in numbers]


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of the processes' ``values``, which have one shape."""
    if ranks()[1] == 1:
        return values
    summed = values.cpu().clone()
    distributed.all_reduce(summed)
    return summed.to(values.device)


def _environment(name: str, default: int) -> int:
    """What torchrun says; other launchers' variables of the same name do not count."""
    return int(os.environ.get(name, default)) if distributed.is_torchelastic_launched() else default


def _refuse(world: int, devices: int) -> Any:
    if world == 1:
        raise ValueError(
            f"trainer.devices={devices} needs as many processes, and this is one: run "
            f"{COMMAND.format(devices)}"
        )
    cure = (
        (f"set trainer.devices={world}, or run {COMMAND.format(devices)}")
        if devices > 1
        else f"set trainer.devices={world}"
    )
    raise ValueError(f"{world} processes were started for trainer.devices={devices}: {cure}")
