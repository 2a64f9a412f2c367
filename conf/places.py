"""Whether a folder can be made and written to, found out before long work begins."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from conf.values import expand_home

__all__ = ["as_path", "check_folder", "find_obstacle"]


def as_path(place: str | Path) -> Path:
    """The path of a file or folder that code or a command names; ``~`` at its beginning is the home
    of a user. Raises ValueError where there is no such user, and for nothing but blanks."""
    return Path(expand_home(os.fspath(place)))


def check_folder(setting: str, folder: str | Path) -> None:
    """Raises ValueError, which names ``setting`` and its value, for a folder that cannot be made or
    written to. Makes nothing that stays."""
    if reason := find_obstacle(folder):
        raise ValueError(
            f"{setting}={folder} cannot be written to: {reason}; expected a folder that this user "
            "may create files in"
        )


def find_obstacle(folder: str | Path) -> str:
    """Why no files can be made in ``folder``, or it cannot be made itself; "" where nothing stands
    against it."""
    try:
        there = Path(folder).absolute()
        while not there.exists() and there != there.parent:
            there = there.parent
        if not there.is_dir():
            return f"{there} is a file"
        if not os.access(there, os.W_OK | os.X_OK):
            return f"no permission in {there}"
        try:  # Permissions say nothing of file systems that take no files, such as /proc
            tempfile.TemporaryFile(dir=there).close()
        except OSError as error:
            return f"no file can be made in {there} ({error.strerror or error})"
        long = [part for part in Path(folder).parts if len(os.fsencode(part)) > 255]
        return f"the name {long[0][:20]}… is too long" if long else ""
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
