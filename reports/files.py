"""Files of reports: what is new replaces the last as a whole, and a full disk is named in one
line."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

__all__ = ["FullDisk", "ReportError", "drafting", "is_damage", "named_when_full", "publish"]

DRAFT = ".draft-report-"
ABANDONED = 24 * 3600.0  # Seconds after which a draft is nobody's
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What libraries say that keep no error number
FULL_WORDS = re.compile(r"No space left on device|disk is full|File too large|Disk quota exceeded")


class ReportError(Exception):
    """One line that says what is missing and what to do."""


class FullDisk(ReportError):
    """No room for a file, which the message names."""


@contextmanager
def drafting(folder: Path) -> Iterator[Path]:
    """A new folder inside of ``folder``, which is created; it goes when the block ends, with all
    that `publish` did not take out. Raises FullDisk, and ReportError where none
    can be made there."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    with named_when_full(folder), ExitStack() as stack:
        if new:  # Where nothing came of it, nothing is left
            stack.callback(_remove_empty, new)
        yield Path(stack.enter_context(_make_draft(folder)))


def _make_draft(folder: Path) -> tempfile.TemporaryDirectory[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{DRAFT}*"):  # By a process that was killed
            if left.stat().st_mtime < time.time() - ABANDONED:
                shutil.rmtree(left, ignore_errors=True)
        return tempfile.TemporaryDirectory(prefix=DRAFT, dir=folder)
    except OSError as error:
        if error.errno in FULL:
            raise
        raise ReportError(
            f"{folder} cannot be written to: {error.strerror or error}; expected a folder that "
            "this user may create files in"
        ) from None


def _remove_empty(folders: Sequence[Path]) -> None:
    """The first is in the second, and so on."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def publish(draft: Path, names: Sequence[str], folder: Path | None = None) -> None:
    """Moves the files and folders of these names from a draft to ``folder`` (the one that it was
    made in), in the place of earlier ones. Takes no room on the disk."""
    folder = folder or draft.parent
    for name in names:
        if (folder / name).is_dir():
            (folder / name).rename(draft / f"{name}.earlier")
        os.replace(draft / name, folder / name)


@contextmanager
def named_when_full(path: Path) -> Iterator[None]:
    """Turns what says in the block that a disk is full into FullDisk, of the file that it names,
    else of ``path``."""
    try:
        yield
    except FullDisk:
        raise
    except Exception as error:
        if getattr(error, "errno", None) not in FULL and not FULL_WORDS.search(str(error)):
            raise
        # Of a copy, the second is the one that is written
        own = getattr(error, "filename2", None) or getattr(error, "filename", None)
        place = own if isinstance(own, str) and DRAFT not in own else path
        reason = "no space left on the disk; make room"
        raise FullDisk(f"{place} cannot be written: {reason}") from error


def is_damage(error: Exception) -> bool:
    """Whether an error of reading is about what a file holds, or that it is a folder: any other
    error number is the system's."""
    if isinstance(error, IsADirectoryError):
        return True
    return not (isinstance(error, OSError) and error.errno is not None) and not isinstance(
        error, MemoryError
    )
