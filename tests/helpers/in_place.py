"""Changes of files at the same path that sizes and times do not tell."""

from __future__ import annotations

import builtins
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


def overwrite(path: Path, content: bytes | None = None) -> Path:
    """Other content of the same size in the same file, whose time is put back: by default its last
    byte is another."""
    before, old = path.stat(), path.read_bytes()
    content = old[:-1] + bytes([old[-1] ^ 1]) if content is None else content
    assert len(content) == len(old) and content != old
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    same = ("st_size", "st_mtime_ns", "st_ino")
    assert all(getattr(before, name) == getattr(after, name) for name in same)
    return path


def replace_text(path: Path, old: str, new: str) -> Path:
    """`overwrite` with words of the same length."""
    content = path.read_bytes()
    assert old.encode() in content
    return overwrite(path, content.replace(old.encode(), new.encode(), 1))


def touch(path: Path) -> Path:
    """The same content with another time."""
    os.utime(path, ns=(time.time_ns(), time.time_ns() + 10**9))
    return path


@contextmanager
def opened_files(monkeypatch: pytest.MonkeyPatch, below: Path) -> Iterator[list[str]]:
    """The files below a folder that Python code opens meanwhile, by their names in it."""
    names: list[str] = []
    real = builtins.open

    def spy(file: Any, *args: Any, **options: Any) -> Any:
        path = os.path.abspath(file) if isinstance(file, str | Path) else ""
        if path.startswith(f"{below}{os.sep}"):
            names.append(os.path.relpath(path, below))
        return real(file, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", spy)
        yield names
