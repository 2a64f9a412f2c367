"""Files and folders that appear as a whole: a reader sees the old or the new one, never a part.

What is being written is a draft beside its place, ``.draft-HOST-PROCESS-…``. Drafts of processes
that were killed are removed when another one first writes there (`sweep_drafts`). A kept file that
cannot be read all the same (a power failure, a full disk, a copy that broke off) is dropped by
`read_kept`, so that it is made again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

__all__ = [
    "DiskFull",
    "create_folder",
    "drop",
    "is_damage",
    "named_when_full",
    "read_json",
    "read_kept",
    "sweep_drafts",
    "to_json",
    "write_atomically",
]

T = TypeVar("T")
Emit = Callable[[str, float], None]
DRAFT = re.compile(r"\.draft-([0-9a-f]{8})-([0-9]+)-[0-9a-f]{8}-.+")
ABANDONED = 2 * 24 * 3600.0  # Seconds after which a draft of another machine is nobody's
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What libraries say that keep no error number
FULL_WORDS = re.compile(
    r"No space left on device|disk is full|Disk quota exceeded|File too large|os error (28|27)\b"
    r"|^\d+ requested and \d+ written"  # numpy
)
log = logging.getLogger(__name__)
_swept: set[tuple[int, Path]] = set()


class DiskFull(OSError, ValueError):
    """No room for a file; the message names it. Nothing that was there is lost."""

    def __init__(self, path: Path | str, message: str = "") -> None:
        self.path = str(path)
        line = f"{path} cannot be written: no space left on the disk; make room"
        super().__init__(message or line)
        self.errno = errno.ENOSPC


# --- writing --------------------------------------------------------------------------------------


def write_atomically(path: Path | str, content: str | bytes | Callable[[Path], object]) -> None:
    """Writes text (UTF-8), bytes, or what the function ``content`` writes to the path it is given.

    Missing parent folders are created. When writing fails, an old file stays as it is; raises
    DiskFull where that was for want of room.
    """
    path = Path(path)
    with named_when_full(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = _draft(path)
        try:
            if callable(content):
                content(draft)
            elif isinstance(content, str):
                draft.write_text(content, encoding="utf-8")
            else:
                draft.write_bytes(content)
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


@contextmanager
def create_folder(path: Path, replace: bool = False) -> Iterator[Path]:
    """A draft folder that becomes ``path`` when the block ends without an error.

    Where another process was quicker, its folder stays and the draft goes; with ``replace`` a
    folder that was there goes. Raises DiskFull.
    """
    with named_when_full(path):
        draft = _draft(path)
        draft.mkdir(parents=True)
        try:
            yield draft
            if replace:
                drop(path)
            try:
                draft.rename(path)
            except OSError:
                if not path.is_dir():
                    raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def named_when_full(path: Path | str) -> Iterator[None]:
    """Turns whatever says in the block that a disk is full into DiskFull, of the file that it
    names, else of ``path``."""
    try:
        yield
    except DiskFull:
        raise
    except Exception as error:
        full = _find_full(error)
        if full is None:
            raise
        # Of a copy, the second is the one that is written
        own = getattr(full, "filename2", None) or getattr(full, "filename", None)
        own = full.path if isinstance(full, DiskFull) else own
        # A draft's name says nothing to a person
        if isinstance(own, str) and not any(map(DRAFT.fullmatch, Path(own).parts)):
            path = own
        raise DiskFull(path) from error


def _find_full(error: BaseException) -> BaseException | None:
    """The error in a chain of causes that says that the disk is full."""
    seen: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in seen:
        if _is_full(one):
            return one
        seen.append(one)
        one = one.__cause__ or one.__context__
    return None


def _is_full(error: BaseException) -> bool:
    if isinstance(error, DiskFull) or (isinstance(error, OSError) and error.errno in FULL):
        return True
    return isinstance(error, Exception) and bool(FULL_WORDS.search(str(error)))


# --- drafts ---------------------------------------------------------------------------------------


def sweep_drafts(folder: Path) -> None:
    """Removes the drafts in ``folder`` whose processes are dead. Those of other machines go when
    they have not changed for two days."""
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.name.startswith(".draft-")]
    except OSError:
        return
    for name in names:
        found = DRAFT.fullmatch(name)
        if found is None:
            continue
        host, process = found[1], int(found[2])
        path = folder / name
        with suppress(OSError):  # Another process may sweep, too
            if host == _host():
                dead = not _is_alive(process)
            else:
                dead = path.lstat().st_mtime < time.time() - ABANDONED
            if dead:
                drop(path)


def _is_alive(process: int) -> bool:
    import psutil  # Slow, and drafts are rarely left

    return bool(psutil.pid_exists(process))


def _draft(path: Path) -> Path:
    """A new name beside ``path``, with its suffix: some writers derive the format from it. What
    dead processes left there is removed when this one writes there first."""
    here = os.getpid(), path.parent
    if here not in _swept:
        _swept.add(here)
        sweep_drafts(path.parent)
    token = secrets.token_hex(4)
    return path.with_name(f".draft-{_host()}-{os.getpid()}-{token}-{path.name}")


@cache
def _host() -> str:
    """Where a process's number is its own: a machine, or a container on it."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return hashlib.sha256(f"{socket.gethostname()} {space}".encode()).hexdigest()[:8]


# --- reading what was kept ------------------------------------------------------------------------


def read_kept(
    path: Path,
    read: Callable[[Path], T],
    emit: Emit | None = None,
    then: str = "made again",
) -> T | None:
    """What ``read`` makes of a file that can be made again; None where there is none.

    One that cannot be read, because it was cut off, is dropped: None, and a line to ``emit`` (or to
    the log) names it and says what comes ``then``. Trouble of the system (permissions, a lost disk)
    is raised.
    """
    try:
        return read(path)
    except FileNotFoundError:
        return None
    except Exception as error:
        if not is_damage(error):
            raise
        drop(path, emit, error, then)
        return None


def is_damage(error: Exception) -> bool:
    """Whether an error of reading is about what a file holds, or that it is a folder: any other
    error number is the system's."""
    if isinstance(error, IsADirectoryError):
        return True
    return not (isinstance(error, OSError) and error.errno is not None) and not isinstance(
        error, MemoryError
    )


def drop(
    path: Path,
    emit: Emit | None = None,
    error: Exception | str = "",
    then: str = "made again",
) -> None:
    """Removes a file or a folder, if it is there; says so where an ``error`` is given."""
    if error:
        reason = " ".join(str(error).split()) or type(error).__name__
        line = f"{path} is damaged ({reason[:120]}): dropped, {then}"
        emit(line, 0.0) if emit else log.warning(line)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def read_json(path: Path, emit: Emit | None = None, then: str = "made again") -> Any:
    """The content of a JSON file that can be made again (see `read_kept`)."""
    return read_kept(path, lambda path: json.loads(path.read_text(encoding="utf-8")), emit, then)


# --- JSON -----------------------------------------------------------------------------------------


def to_json(content: Any) -> str:
    """Plain containers as JSON that any reader takes: NaN and infinity, which JSON does not have,
    are null."""
    return json.dumps(_without_undefined(content), indent=1, allow_nan=False)


def _without_undefined(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_undefined(item) for key, item in value.items()}
    return (
        [_without_undefined(item) for item in value] if isinstance(value, list | tuple) else value
    )
