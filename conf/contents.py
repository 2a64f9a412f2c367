"""Digests of what files hold. A file is read once: its digest is kept beside its size, its times
and its inode, and it is read again when one of these is another.

    <cache>/contents.db    kind, folder, name, state -> digest, or another fact, of each file

Several processes may use one cache; what one reads, the others find.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from filelock import FileLock

from conf.describe import show_count
from conf.files import DiskFull

__all__ = [
    "DATABASE",
    "Emit",
    "FileFacts",
    "digest_contents",
    "file_state",
    "have_settled",
    "is_settled",
    "list_files",
    "state_of",
]

Emit = Callable[[str, float], None]
DATABASE = "contents.db"
# A file that changed so shortly ago may change again without another time: clocks of file systems
# have ticks, of up to two seconds. Its digest counts, but is not kept.
SETTLED = 2.0  # Seconds
NESTED = 8  # Folders below the first one: links may lead in circles
THREADS = min(8, os.cpu_count() or 1)
LOTS = 2000  # Files, or
LARGE = 512 * 2**20  # bytes that are worth a line of progress
EVERY = 2.0  # Seconds between such lines
PART = 2**20  # Bytes that are read at once
FEW = 1000  # Names that are looked up one by one, not with all others of their folder
BATCH = 64  # Files, or
VOLUME = 16 * 2**20  # bytes after which a thread hands over what it has


def digest_contents(
    files: Mapping[str, str | Path],
    cache: Path | None = None,
    what: str = "files",
    emit: Emit | None = None,
) -> str:
    """Sixteen hexadecimal digits of the names and contents of ``files``, wherever they lie.

    ``cache`` is the folder that keeps the digest of each file; without, all are read. ``emit`` gets
    lines on the progress and the share done where that takes a while; ``what`` names the files in
    them. A file that is not there counts as such.
    """
    paths = [os.path.abspath(path) for path in files.values()]
    states = {path: file_state(path) for path in paths}
    digests = dict.fromkeys((path for path, state in states.items() if state is None), "missing")
    if cache is None:
        _read_missing(states, digests, None, what, emit)
    else:
        store = FileFacts(cache / DATABASE, "sha256")
        store.find(states, digests)
        if len(digests) < len(states):
            cache.mkdir(parents=True, exist_ok=True)
            # One process reads; the others wait and find what it read
            with FileLock(cache / "contents.lock"):
                store.find(states, digests)
                _read_missing(states, digests, store, what, emit)
    lines = sorted(f"{name}\0{digests[path]}" for name, path in zip(files, paths, strict=True))
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()[:16]


def file_state(path: str | os.DirEntry[str]) -> str | None:
    """Size, times of change and inode of a file: another text after each change of its content,
    even one that keeps the size and restores the time. None where there is none."""
    try:
        facts = os.stat(path) if isinstance(path, str) else path.stat()
    except OSError:
        return None
    return state_of(facts)


def state_of(facts: os.stat_result) -> str:
    """`file_state` of what is known of a file."""
    return f"{facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns} {facts.st_ino}"


def have_settled(paths: Iterable[str]) -> bool:
    """Whether all files have been as they are for a while: if one changes now, its state does."""
    return all(is_settled(state) for path in paths if (state := file_state(path)))


def is_settled(state: str) -> bool:
    """Whether a file in this state would have another one if it changed now."""
    return _newest(state) < time.time() - SETTLED


def _newest(state: str) -> float:
    """When a file with this state was changed last."""
    return max(map(int, state.split(" ")[1:3])) / 1e9


def list_files(place: Path, suffixes: Sequence[str] = ()) -> dict[str, Path]:
    """Name -> path of a file, or of all files below a folder by their names in it; hidden ones are
    left out, and with ``suffixes`` all that do not end so."""
    if place.is_file():
        return {"": place}
    return {
        path[len(str(place)) + 1 :].replace(os.sep, "/"): Path(path)
        for path in (_walk(str(place), NESTED) if place.is_dir() else ())
        if not suffixes or path.endswith(tuple(suffixes))
    }


def _walk(folder: str, depth: int) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if depth:
                    yield from _walk(entry.path, depth - 1)
            elif entry.is_file():
                yield entry.path


# --- reading --------------------------------------------------------------------------------------


def _read_missing(
    states: Mapping[str, str | None],
    digests: dict[str, str],
    store: FileFacts | None,
    what: str,
    emit: Emit | None,
) -> None:
    """Adds the digests of all files that are not in ``digests``, and keeps them."""
    todo = {path: state for path, state in states.items() if state and path not in digests}
    if not todo:
        return
    sizes = {path: int(state.split(" ", 1)[0]) for path, state in todo.items()}
    total, began, said = sum(sizes.values()), time.monotonic(), 0.0
    large = emit is not None and (len(todo) > LOTS or total > LARGE)
    size = f"{total / 1e9:.1f} GB" if total > 1e8 else f"{total / 1e6:.1f} MB"
    if large and emit:
        files = show_count(len(todo), "file")
        emit(f"{what}: reading {files} ({size}), once, to know their content", 0.0)
    done = count = 0
    kept: dict[str, tuple[str, str]] = {}

    def progress(path: str, bytes_read: int) -> None:
        nonlocal done, said
        done += bytes_read
        spent = time.monotonic() - began
        if large and emit and spent - said > EVERY:
            said = spent
            share = done / max(total, 1)
            left = spent / max(share, 1e-6) * (1 - share)
            emit(f"{what}: {done / 1e9:.1f} of {size} read, {left:.0f} s left", share)

    with ThreadPoolExecutor(THREADS) as pool:
        batches = list(_batches(sizes))
        try:
            for batch in pool.map(lambda paths: [_read(path, progress) for path in paths], batches):
                for path, state, digest, settled in batch:
                    digests[path] = digest
                    count += 1
                    if settled:
                        kept[path] = state, digest
                if store and len(kept) > 4 * LOTS:
                    # What was read stays read where this is stopped
                    store.keep(kept)
                    kept = {}
        finally:
            pool.shutdown(cancel_futures=True)
            if store and kept:
                store.keep(kept)
    if large and emit:
        spent = time.monotonic() - began
        files = show_count(count, "file")
        emit(f"{what}: {files} read in {spent:.0f} s; later only those that change", 1.0)


def _batches(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    batch: list[str] = []
    volume = 0
    for path, size in sizes.items():
        batch.append(path)
        volume += size
        if len(batch) >= BATCH or volume >= VOLUME:
            yield batch
            batch, volume = [], 0
    if batch:
        yield batch


def _read(path: str, progress: Callable[[str, int], None]) -> tuple[str, str, str, bool]:
    """(path, state, digest, whether the file had settled). A file that changes meanwhile is read
    again. Raises OSError, and ValueError for one that never stops changing."""
    for _ in range(3):
        before, now = file_state(path), time.time()
        digest = hashlib.sha256()
        with open(path, "rb", buffering=0) as file:
            while part := file.read(PART):
                digest.update(part)
                progress(path, len(part))
        after = file_state(path)
        if before is not None and before == after:
            settled = _newest(after) < now - SETTLED
            return path, after, digest.hexdigest()[:32], settled
    raise ValueError(f"{path} changes while it is read: wait until it is whole, and start again")


# --- what is kept ---------------------------------------------------------------------------------


class FileFacts:
    """What was found out of files, of each the latest of each ``kind``, with the state that it had:
    a table in ``path``, which appears when something is kept. Kinds are words for how it was found
    out, another word for another way."""

    def __init__(self, path: Path, kind: str) -> None:
        self.path, self.kind = path, kind

    def find(self, states: Mapping[str, str | None], facts: dict[str, str]) -> None:
        """Adds to ``facts`` those of the files that are known in their present state."""
        if not self.path.is_file():
            return
        by_folder: dict[str, list[tuple[str, str]]] = {}
        for path, state in states.items():
            if state and path not in facts:
                folder, _, name = path.rpartition(os.sep)
                by_folder.setdefault(folder, []).append((name, path))
        query = "SELECT name, state, fact FROM facts WHERE kind = ? AND folder = ?"
        one = f"{query} AND name = ?"
        try:
            with closing(self._connect()) as database:
                for folder, names in by_folder.items():
                    key = (self.kind, folder)
                    rows: Iterable[Any] = (
                        itertools.chain.from_iterable(
                            database.execute(one, (*key, name)) for name, _ in names
                        )
                        if len(names) < FEW
                        else database.execute(query, key)
                    )
                    known = {name: (state, fact) for name, state, fact in rows}
                    for name, path in names:
                        state, fact = known.get(name, ("", ""))
                        if state == states[path]:
                            facts[path] = fact
        except sqlite3.DatabaseError:
            # Cut off, or of something else: files are read again
            return

    def known(self, folder: str) -> bool:
        """Whether anything is kept of files in this folder."""
        query = "SELECT 1 FROM facts WHERE kind = ? AND folder = ? LIMIT 1"
        try:
            with closing(self._connect()) as database:
                return database.execute(query, (self.kind, folder)).fetchone() is not None
        except sqlite3.DatabaseError:
            return False

    def keep(self, facts: Mapping[str, tuple[str, str]]) -> None:
        """Stores (state, fact) by path. Raises DiskFull, with what was there before."""
        rows = []
        for path, (state, fact) in facts.items():
            folder, _, name = path.rpartition(os.sep)
            rows.append((self.kind, folder, name, state, fact))
        if not rows:
            return
        try:
            self._insert(rows)
        except sqlite3.DatabaseError as error:
            # The rest of the number says where it was noticed
            kind = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if kind in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
                raise DiskFull(
                    self.path, f"{self.path} cannot be written: no space left on the disk ({error})"
                ) from error
            if kind in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                return  # Files are read again
            self.path.unlink(missing_ok=True)
            self._insert(rows)

    def _insert(self, rows: Sequence[tuple[str, ...]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._connect()) as database, database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS facts (kind TEXT, folder TEXT, name TEXT, state TEXT, "
                "fact TEXT, PRIMARY KEY (kind, folder, name)) WITHOUT ROWID"
            )
            database.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?, ?)", rows)

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=60)
        database.text_factory = lambda raw: raw.decode(errors="surrogateescape")
        return database
