"""Rows of tensors on disk: computed once, by one process or by several, in safetensors shards that
are read by memory map.

    <folder>/<digest of the facts>/meta.json                    the facts, the number of rows, shape and dtype of a row of each name
                                   shard-00000.safetensors …    the rows in their order, as many in each shard, fewer in the last
                                   locks/                       an empty file for each shard: who holds its lock computes it

A shard appears whole, or not at all: after a kill, what is finished stays and the rest is computed.
Locks are the operating system's and end with their process, so that nobody waits for a dead one.
Other facts are another folder; a folder that is no longer of use may be deleted.
"""

from __future__ import annotations

import hashlib
import json
import math
import operator
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from datamodules.formats.index import DataError

Compute = Callable[[list[int]], dict[str, Tensor]]
Emit = Callable[[str, float], None]
POLL = 0.5  # seconds between looks at shards that other processes compute


@dataclass(frozen=True)
class Kind:
    """Shape and dtype of one row."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{list(self.shape)} {str(self.dtype).removeprefix('torch.')}"


class Rows:
    """The rows of one name, each a Tensor of its own: ``rows[i]``, ``rows.gather([…])``,
    ``len(rows)``, ``rows.shape``.

    It holds paths, not tensors: worker processes get it in a few hundred bytes and map the shards
    when they first read them.
    """

    def __init__(self, shards: Shards, name: str) -> None:
        self.shards, self.name = shards, name
        self._maps: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return self.shards.count

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self), *self.shards.kinds[self.name].shape

    @property
    def dtype(self) -> torch.dtype:
        return self.shards.kinds[self.name].dtype

    def __getitem__(self, row: int) -> Tensor:
        """A copy of one row, which may be written to. Raises IndexError; ValueError when its shard
        is gone or damaged."""
        return self._view(row).clone()

    def gather(self, rows: Sequence[int]) -> Tensor:
        """Some of the rows, in that order, [len(rows), …]; raises as a single one."""
        return torch.stack([self._view(row) for row in rows])

    def _view(self, row: int) -> Tensor:
        place = operator.index(row)
        place += len(self) * (place < 0)
        if not 0 <= place < len(self):
            raise IndexError(f"row {row} of {self.name!r}: there are {len(self)}")
        shard, place = divmod(place, self.shards.per_shard)
        if shard not in self._maps:
            try:
                self._maps[shard] = self.shards.load(shard)[self.name]
            except (OSError, SafetensorError, ValueError) as error:
                path = self.shards.path(shard)
                raise ValueError(
                    f"{path} cannot be read ({error}): the same command computes it again"
                ) from error
        return self._maps[shard][place]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}


class Shards(Mapping[str, Rows]):
    """A folder of shards as its meta.json describes it: ``shards[name]`` are the rows of that name.
    Not all need to be there yet.

    Raises FileNotFoundError when there is none, ValueError when it cannot be understood.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            meta = json.loads((folder / "meta.json").read_text())
            self.count, self.per_shard = int(meta["count"]), int(meta["per_shard"])
            self.kinds = {
                name: Kind(tuple(row["shape"]), getattr(torch, row["dtype"]))
                for name, row in meta["rows"].items()
            }
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{folder / 'meta.json'} describes no shards ({error!r}): delete the folder"
            ) from error

    def __getitem__(self, name: str) -> Rows:
        if name not in self.kinds:
            raise KeyError(f"{name!r}: {self.folder} holds {', '.join(self.kinds)}")
        return Rows(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.kinds)

    def __len__(self) -> int:
        return len(self.kinds)

    @property
    def number(self) -> int:
        """How many shards there are when all are computed."""
        return math.ceil(self.count / self.per_shard)

    @property
    def row_bytes(self) -> int:
        return sum(kind.bytes for kind in self.kinds.values())

    def path(self, shard: int) -> Path:
        return self.folder / f"shard-{shard:05d}.safetensors"

    def rows(self, shard: int) -> range:
        return range(shard * self.per_shard, min((shard + 1) * self.per_shard, self.count))

    def load(self, shard: int) -> dict[str, Tensor]:
        """The rows of one shard [rows, …] by name, as a map of the file that is read when it is
        looked at.

        Raises FileNotFoundError, SafetensorError when the file is cut off or no such file,
        ValueError when it holds something else.
        """
        with safe_open(self.path(shard), "pt") as file:
            names = list(file.keys())
            tensors = {name: file.get_tensor(name) for name in names}
        wanted = {
            name: Kind((len(self.rows(shard)), *kind.shape), kind.dtype)
            for name, kind in self.kinds.items()
        }
        found = {name: Kind(tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
        if found != wanted:
            raise ValueError(f"it holds {_told(found)}, expected {_told(wanted)}")
        return tensors

    def sound(self, shard: int) -> bool:
        """Whether a shard is there, whole, with the tensors that belong into it. Their values are
        not looked at."""
        try:
            self.load(shard)
        except (FileNotFoundError, SafetensorError, ValueError):
            return False
        return True


def fill(
    folder: Path,
    facts: Mapping[str, Any],
    count: int,
    compute: Compute,
    *,
    what: str = "rows",
    where: Callable[[int], str | Path] = "row {}".format,
    emit: Emit | None = None,
    per_shard: int = 256,
    batch: int = 32,
) -> Shards:
    """All ``count`` rows, those that are not there yet from ``compute``: up to ``batch`` row
    numbers -> tensors [len(numbers), …] by name.

    ``facts`` (JSON) hold everything that the rows depend on: others, or another ``count``, are
    another folder below ``folder``. Row 0 is computed once more, before all others, to learn what a
    row is. Every process that is told to fill the same shards takes a share of them and returns
    when all are there. ``emit`` gets a line and the share done; ``what`` names the rows in it,
    ``where`` names one row.

    Raises ValueError when the disk cannot hold what is missing, before any other row is computed,
    or when ``compute`` gives rows of another shape; DataError, which names the row, when a value is
    not finite. What is finished then stays.
    """
    if count < 1:
        raise ValueError(f"{what}: {count} rows to compute, expected at least 1")
    text = json.dumps({**facts, "count": count}, sort_keys=True, allow_nan=False)
    target = folder / hashlib.sha256(text.encode()).hexdigest()[:16]
    work = _Fill(
        target,
        dict(facts),
        count,
        compute,
        what,
        where,
        emit or (lambda *_: None),
        per_shard,
        batch,
    )
    work.run()
    return work.shards


@dataclass
class _Fill:
    folder: Path
    facts: dict[str, Any]
    count: int
    compute: Compute
    what: str
    where: Callable[[int], str | Path]
    emit: Emit
    per_shard: int
    batch: int

    def run(self) -> None:
        shards = self.shards
        missing = [shard for shard in range(shards.number) if not shards.sound(shard)]
        if not missing:
            return
        for shard in missing:
            if shards.path(shard).exists():
                self.emit(f"{self.what}: {shards.path(shard)} is damaged: computed again", 0.0)
        self.done = self.at_first = self.count - sum(len(shards.rows(shard)) for shard in missing)
        self.began = self.spoke = time.monotonic()
        self.check_space()
        while missing:
            left = []
            for shard in missing:
                lock = FileLock(self.folder / "locks" / f"{shard:05d}")
                try:
                    lock.acquire(blocking=False)
                except Timeout:
                    left.append(shard)
                    continue
                try:
                    if shards.sound(shard):  # another process has computed it meanwhile
                        self.report(len(shards.rows(shard)))
                    else:
                        self.make(shard)
                finally:
                    lock.release()
            if len(left) == len(missing):
                self.report(0, f", waiting for {len(left)} shards of other processes")
                time.sleep(POLL)
            missing = left

    @cached_property
    def shards(self) -> Shards:
        """The description of the folder, made from one row where there is none yet."""
        (self.folder / "locks").mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "locks" / "meta"):
            try:
                return Shards(self.folder)
            except (FileNotFoundError, ValueError):
                row = {name: tensor[0] for name, tensor in self.rows([0]).items()}
            kinds = {
                name: {"shape": list(t.shape), "dtype": str(t.dtype).removeprefix("torch.")}
                for name, t in row.items()
            }
            meta = {
                "facts": self.facts,
                "count": self.count,
                "per_shard": self.per_shard,
                "rows": kinds,
            }
            draft = self.folder / ".meta.json"
            draft.write_text(json.dumps(meta, indent=1))
            draft.replace(self.folder / "meta.json")
            return Shards(self.folder)

    def check_space(self) -> None:
        missing, free = self.count - self.done, shutil.disk_usage(self.folder).free
        needed = missing * self.shards.row_bytes
        size = f"{missing} of {self.count} {self.what} to compute, {_size(needed)} at {self.folder}"
        if needed > free:
            cure = (
                "make room, put the output on a larger disk, or keep less (fewer images, a "
                "lower resolution, no texts)"
            )
            raise ValueError(f"{size}, but {_size(free)} are free there: {cure}")
        self.emit(size, self.done / self.count)

    def make(self, shard: int) -> None:
        rows, parts = list(self.shards.rows(shard)), []
        for start in range(0, len(rows), self.batch):
            numbers = rows[start : start + self.batch]
            part = self.rows(numbers)
            kinds = {
                name: Kind(tuple(tensor.shape[1:]), tensor.dtype) for name, tensor in part.items()
            }
            if kinds != self.shards.kinds:
                gave = f"{self.where(numbers[0])} and those after it gave {_told(kinds)} a row"
                raise ValueError(f"{gave}: expected {_told(self.shards.kinds)} as row 0 has")
            parts.append(part)
            self.report(len(numbers))
        # The same name for all who come to write this shard, since only one of them holds its lock:
        # a kill leaves no heap of drafts.
        draft = self.folder / f".{shard:05d}"
        try:
            save_file(
                {
                    name: torch.cat([part[name] for part in parts]).contiguous()
                    for name in self.shards.kinds
                },
                draft,
            )
            with draft.open("rb") as file:
                # Or a power failure leaves the name of a file whose content was never written
                os.fsync(file.fileno())
            draft.replace(self.shards.path(shard))
        finally:
            draft.unlink(missing_ok=True)

    def rows(self, numbers: list[int]) -> dict[str, Tensor]:
        """What ``compute`` gives for some rows, checked, on the CPU."""
        with torch.no_grad():
            found = self.compute(numbers)
        for name, tensor in found.items():
            if len(tensor) != len(numbers):
                raise ValueError(
                    f"{len(tensor)} rows of {name!r} for {len(numbers)} rows of "
                    f"{self.what}: expected one for each"
                )
            bad = (~tensor.reshape(len(tensor), -1).isfinite().all(1)).nonzero().flatten().tolist()
            if bad:
                others = (
                    (f" (and {len(bad) - 1} more of the {len(numbers)} beside it)")
                    if len(bad) > 1
                    else ""
                )
                cure = "encode in float32 or bfloat16 (backbone.dtype)"
                raise DataError(
                    f"{self.where(numbers[bad[0]])}{others}: its {name} are not finite: {cure}"
                )
        return {name: tensor.cpu() for name, tensor in found.items()}

    def report(self, rows: int, note: str = "") -> None:
        """``rows`` more are done, by whomever. A line every two seconds, and the last."""
        self.done += rows
        now = time.monotonic()
        if now - self.spoke < 2 and self.done < self.count:
            return
        self.spoke = now
        seconds = (now - self.began) / max(self.done - self.at_first, 1) * (self.count - self.done)
        left = f", {math.ceil(seconds / 60)} min left" if self.done > self.at_first else ""
        self.emit(
            (
                f"{self.what}: "
                f"{self.done}/{self.count}{left if self.done < self.count else ''}{note}"
            ),
            self.done / self.count,
        )


def _told(kinds: Mapping[str, Kind]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in sorted(kinds.items()))


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}" if count < 1000 else f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
