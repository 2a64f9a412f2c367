"""Rows of tensors on disk: computed once, by one process or by several, in safetensors shards that
are read by memory map.

    <folder>/<digest of the facts>/
        meta.json                    the facts, the number of rows, shape and dtype of a row of each
                                     name
        shard-00000.safetensors …    the rows in their order, as many in each shard, fewer in the
                                     last
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
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from conf.describe import show_count
from conf.files import DiskFull, drop, named_when_full, write_atomically
from datamodules.formats.index import DataError

# Row numbers -> tensors [rows, …] by name
Compute = Callable[[list[int]], dict[str, Tensor]]
Emit = Callable[[str, float], None]
# Shape and dtype of a row of each name
Layout = dict[str, tuple[tuple[int, ...], torch.dtype]]


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
        return len(self), *self.shards.layout[self.name][0]

    @property
    def dtype(self) -> torch.dtype:
        return self.shards.layout[self.name][1]

    def __getitem__(self, row: int) -> Tensor:
        """A copy of one row, which may be written to. Raises IndexError; ValueError when its shard
        is gone or damaged."""
        return self._view(row).clone()

    def gather(self, rows: Sequence[int]) -> Tensor:
        """Some of the rows, in that order, [len(rows), …]; raises as a single one."""
        return torch.stack([self._view(row) for row in rows])

    def _view(self, row: int) -> Tensor:
        index = operator.index(row)
        index += len(self) * (index < 0)
        if not 0 <= index < len(self):
            raise IndexError(f"row {row} of {self.name!r}: there are {len(self)}")
        shard, offset = divmod(index, self.shards.per_shard)
        if shard not in self._maps:
            try:
                self._maps[shard] = self.shards.load(shard)[self.name]
            except (OSError, SafetensorError, ValueError) as error:
                raise ValueError(
                    f"{self.shards.path(shard)} cannot be read ({error}): the same command "
                    "computes it again"
                ) from error
        return self._maps[shard][offset]

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
            self.layout: Layout = {
                name: (tuple(row["shape"]), getattr(torch, row["dtype"]))
                for name, row in meta["rows"].items()
            }
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{folder / 'meta.json'} describes no shards ({error!r}): delete the folder"
            ) from error

    def __getitem__(self, name: str) -> Rows:
        if name not in self.layout:
            raise KeyError(f"{name!r}: {self.folder} holds {', '.join(self.layout)}")
        return Rows(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout)

    def __len__(self) -> int:
        return len(self.layout)

    @property
    def number(self) -> int:
        """How many shards there are when all are computed."""
        return math.ceil(self.count / self.per_shard)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of all names."""
        return sum(math.prod(shape) * dtype.itemsize for shape, dtype in self.layout.values())

    def path(self, shard: int) -> Path:
        return self.folder / f"shard-{shard:05d}.safetensors"

    def lock(self, shard: int) -> FileLock:
        return FileLock(self.folder / "locks" / f"{shard:05d}")

    def rows(self, shard: int) -> range:
        """The numbers of a shard's rows."""
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
        if any(t.dim() == 0 or len(t) != len(self.rows(shard)) for t in tensors.values()):
            rows = show_count(len(self.rows(shard)), "row")
            raise ValueError(f"it does not hold {rows} of each name")
        if (layout := layout_of(tensors)) != self.layout:
            raise ValueError(f"it holds {describe(layout)}, expected {describe(self.layout)}")
        return tensors

    def is_whole(self, shard: int) -> bool:
        """Whether a shard is there with the tensors that belong into it. Their values are not
        looked at."""
        try:
            self.load(shard)
        except (FileNotFoundError, SafetensorError, ValueError):
            return False
        return True


def layout_of(tensors: Mapping[str, Tensor]) -> Layout:
    """Shape and dtype of a row of some tensors [rows, …]."""
    return {name: (tuple(tensor.shape[1:]), tensor.dtype) for name, tensor in tensors.items()}


def describe(layout: Layout) -> str:
    """The rows of a layout, for a person."""
    return ", ".join(
        f"{name} {list(shape)} {str(dtype).removeprefix('torch.')}"
        for name, (shape, dtype) in sorted(layout.items())
    )


# --- computing ------------------------------------------------------------------------------------


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
    row is. Each process that fills the same shards takes a share of them and returns when all are
    there. ``emit`` gets a line and the share done; ``what`` names the rows in it, ``where`` names
    one row.

    Raises DiskFull when the disk cannot hold what is missing, before any other row is computed;
    ValueError when ``compute`` gives rows of another shape; DataError, which names the row, when a
    value is not finite. What is finished then stays.
    """
    if count < 1:
        raise ValueError(f"{what}: {count} rows to compute, expected at least 1")
    emit = emit or (lambda *_: None)

    def checked(rows: list[int]) -> dict[str, Tensor]:
        with torch.no_grad():
            tensors = compute(rows)
        _check_values(tensors, rows, what, where)
        return {name: tensor.cpu() for name, tensor in tensors.items()}

    text = json.dumps({**facts, "count": count}, sort_keys=True, allow_nan=False)
    target = folder / hashlib.sha256(text.encode()).hexdigest()[:16]
    shards = _open_or_describe(target, facts, count, per_shard, checked, emit)
    missing = [shard for shard in range(shards.number) if not shards.is_whole(shard)]
    if not missing:
        return shards
    for shard in missing:
        if shards.path(shard).exists():
            emit(f"{what}: {shards.path(shard)} is damaged: computed again", 0.0)
    rows_left = sum(len(shards.rows(shard)) for shard in missing)
    _check_space(shards, rows_left, what, emit)
    progress = _Progress(what, count, count - rows_left, emit)

    def make(shard: int) -> None:
        rows, parts = shards.rows(shard), []
        if shards.is_whole(shard):
            # Another process has computed it meanwhile
            progress.add(len(rows))
            return
        for start in range(rows.start, rows.stop, batch):
            numbers = list(range(start, min(start + batch, rows.stop)))
            parts.append(checked(numbers))
            if (layout := layout_of(parts[-1])) != shards.layout:
                raise ValueError(
                    f"{where(start)} and those after it gave {describe(layout)} a row: expected "
                    f"{describe(shards.layout)} as row 0 has"
                )
            progress.add(len(numbers))
        # Latents of autoencoders in channels-last order are not contiguous, which files must be
        tensors = {
            name: torch.cat([part[name] for part in parts]).contiguous() for name in shards.layout
        }
        _write(shards.path(shard), tensors)

    locked = []
    for shard in missing:
        try:
            with shards.lock(shard).acquire(blocking=False):
                make(shard)
        except Timeout:
            locked.append(shard)
    if locked:
        progress.say(f", waiting for {show_count(len(locked), 'shard')} of other processes")
    for shard in locked:
        with shards.lock(shard):
            make(shard)
    return shards


def _open_or_describe(
    folder: Path,
    facts: Mapping[str, Any],
    count: int,
    per_shard: int,
    compute: Compute,
    emit: Emit,
) -> Shards:
    """The shards of a folder, described by their first row where they are not yet."""
    (folder / "locks").mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "locks" / "meta"):
        try:
            return Shards(folder)
        except FileNotFoundError:
            pass
        except ValueError as error:
            drop(folder / "meta.json", emit, error)
        layout = layout_of(compute([0]))
        rows = {
            name: {"shape": list(shape), "dtype": str(dtype).removeprefix("torch.")}
            for name, (shape, dtype) in layout.items()
        }
        meta = {"facts": dict(facts), "count": count, "per_shard": per_shard, "rows": rows}
        write_atomically(folder / "meta.json", json.dumps(meta, indent=1))
        return Shards(folder)


def _check_values(
    tensors: Mapping[str, Tensor], rows: list[int], what: str, where: Callable[[int], str | Path]
) -> None:
    for name, tensor in tensors.items():
        if len(tensor) != len(rows):
            raise ValueError(
                f"{show_count(len(tensor), 'row')} of {name!r} for {show_count(len(rows), 'row')} "
                f"of {what}: expected one for "
                "each"
            )
        finite = tensor.reshape(len(tensor), -1).isfinite().all(1).tolist()
        bad = [row for row, good in zip(rows, finite, strict=True) if not good]
        if bad:
            more = f" (and {len(bad) - 1} more of the {len(rows)} beside it)" if bad[1:] else ""
            raise DataError(
                f"{where(bad[0])}{more}: its {name} are not finite: encode in float32 or bfloat16 "
                "(backbone.dtype)"
            )


def _check_space(shards: Shards, rows: int, what: str, emit: Emit) -> None:
    """Raises DiskFull when the disk cannot hold so many more rows."""
    needed, free = rows * shards.row_bytes, shutil.disk_usage(shards.folder).free
    size = f"{rows} of {shards.count} {what} to compute, {_size(needed)} at {shards.folder}"
    if needed > free:
        raise DiskFull(
            shards.folder,
            f"{size}, but {_size(free)} are free there: make room, put the output on a larger "
            "disk, or keep less (fewer images, a lower resolution, no texts)",
        )
    emit(size, 1 - rows / shards.count)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}" if count < 1000 else f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    # Of one name for all who write this shard, since only one holds its lock: kills leave no heap
    draft = path.with_name(f".{path.stem}")
    try:
        with named_when_full(path):
            save_file(tensors, draft)
        with draft.open("rb") as file:
            # Or a power failure leaves the name of a file whose content was never written
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


class _Progress:
    """Says how many rows are done, by any process: a line every two seconds, and the last."""

    def __init__(self, what: str, count: int, done: int, emit: Emit) -> None:
        self.what, self.count, self.done, self.at_first, self.emit = what, count, done, done, emit
        self.began = self.spoke = time.monotonic()

    def add(self, rows: int) -> None:
        self.done += rows
        if self.done == self.count or time.monotonic() - self.spoke >= 2:
            self.say()

    def say(self, note: str = "") -> None:
        self.spoke = time.monotonic()
        left = ""
        if self.at_first < self.done < self.count:
            each = (self.spoke - self.began) / (self.done - self.at_first)
            left = f", {math.ceil(each * (self.count - self.done) / 60)} min left"
        text = f"{self.what}: {self.done}/{self.count}{left}{note}"
        self.emit(text, self.done / self.count)
