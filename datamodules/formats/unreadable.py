"""What is wrong with a text file that cannot be read, by how it begins, and the cure."""

from __future__ import annotations

import os
from pathlib import Path

# How files begin -> what they are, and the cure
BEGINNINGS = {
    b"\x1f\x8b": "it is packed by gzip: unpack it (gunzip)",
    b"PK\x03\x04": "it is a ZIP archive: unpack it",
    b"BZh": "it is packed by bzip2: unpack it",
    b"\xfd7zXZ": "it is packed by xz: unpack it",
    b"\x28\xb5\x2f\xfd": "it is packed by zstd: unpack it",
    b"version https://git-lfs": "it is a pointer of Git LFS: fetch the file (git lfs pull)",
    b"<": "it is a page of HTML or XML: download the file itself",
}


def explain_unreadable(path: Path, error: Exception, cure: str = "download it again") -> str:
    """What a file is instead, or ``error``, and what to do; ``cure`` is that where the beginning
    says nothing."""
    try:
        with open(path, "rb") as file:
            head = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
            file.seek(-min(file.seek(0, os.SEEK_END), 64), os.SEEK_END)
            tail = file.read().rstrip()
    except OSError:
        return str(error)
    if not head:
        return f"it is empty: {cure}"
    for beginning, what in BEGINNINGS.items():
        if head.startswith(beginning):
            return what
    # What was cut off hardly ever ends so
    by_hand = "correct it there, or " if tail.endswith((b"}", b"]")) else ""
    return f"{error}: {by_hand}{cure}"
