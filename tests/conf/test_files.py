from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conf import files
from conf.files import DiskFull, create_folder, named_when_full, read_kept, write_atomically


@pytest.mark.parametrize(
    "content", ["é", "é".encode(), lambda path: path.write_bytes("é".encode())]
)
def test_writes_text_bytes_and_what_a_function_writes(tmp_path: Path, content: object) -> None:
    path = tmp_path / "new" / "file.txt"
    write_atomically(path, content)
    assert path.read_text(encoding="utf-8") == "é"
    assert [*path.parent.iterdir()] == [path]


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.png"
    write_atomically(path, "old")

    def interrupted(draft: Path) -> None:
        assert draft.suffix == ".png" and draft.parent == tmp_path
        draft.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, interrupted)
    assert path.read_text() == "old" and [*tmp_path.iterdir()] == [path]


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "a" / "folder"
    with create_folder(target) as draft:
        (draft / "file").write_text("1")
        assert not target.exists()
    assert (target / "file").read_text() == "1"
    with pytest.raises(OSError, match="full"), create_folder(tmp_path / "b"):
        raise OSError("disk full")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def test_the_folder_of_a_quicker_process_stays(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with create_folder(target) as draft:
        (draft / "mine").write_text("")
        target.mkdir()
        (target / "theirs").write_text("")
    assert [path.name for path in target.iterdir()] == ["theirs"]
    assert [*tmp_path.iterdir()] == [target]


# --- what killed processes leave ------------------------------------------------------------------

KILLED = """
import os, sys
from pathlib import Path
from conf.files import create_folder, write_atomically
def stop(draft):
    draft.write_text("half")
    os._exit(9)
folder = Path(sys.argv[1])
if sys.argv[2] == "file":
    write_atomically(folder / "file.txt", stop)
else:
    with create_folder(folder / "folder") as draft:
        stop(draft / "file")
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_drafts_of_killed_processes_go_and_those_of_others_stay(tmp_path: Path, kind: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), kind])
    (left,) = tmp_path.iterdir()
    assert done.returncode == 9 and left.name.startswith(".draft-")
    # Of this process, which lives, and of another machine
    own = tmp_path / files._draft(tmp_path / "own").name
    old, new = (tmp_path / f".draft-0000000{i}-1-0000000{i}-x" for i in (1, 2))
    for path in (own, old, new):
        path.write_text("half")
    os.utime(old, (0, 0))
    files._swept.clear()
    write_atomically(tmp_path / "file.txt", "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"file.txt", own.name, new.name}


# --- a full disk ----------------------------------------------------------------------------------


def _no_room(path: Path) -> None:
    path.write_text("half")
    raise OSError(errno.ENOSPC, "No space left on device")


def _no_room_in_a_library(path: Path) -> None:
    try:
        _no_room(path)
    except OSError:
        raise RuntimeError("file write failed") from None


@pytest.mark.parametrize("write", [_no_room, _no_room_in_a_library])
def test_a_full_disk_is_named_and_leaves_what_was_there(tmp_path: Path, write: Any) -> None:
    path = tmp_path / "file.txt"
    write_atomically(path, "old")
    with pytest.raises(DiskFull, match=re.escape(f"{path} cannot be written: no space left")):
        write_atomically(path, write)
    with (
        pytest.raises(DiskFull, match="folder cannot be written"),
        create_folder(tmp_path / "folder") as draft,
    ):
        write(draft / "part")
    assert path.read_text() == "old" and [*tmp_path.iterdir()] == [path]


def test_a_library_that_says_it_in_words_is_understood(tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match="mlflow.db"), named_when_full(tmp_path / "mlflow.db"):
        raise RuntimeError("(sqlite3.OperationalError) database or disk is full")
    with pytest.raises(DiskFull, match="/named"), named_when_full(tmp_path):
        raise OSError(errno.EDQUOT, "Disk quota exceeded", "/named")
    with pytest.raises(RuntimeError, match="other"), named_when_full(tmp_path):
        raise RuntimeError("other")


# --- what was kept --------------------------------------------------------------------------------


def test_a_kept_file_that_cannot_be_read_is_dropped_with_its_name(tmp_path: Path) -> None:
    path, lines = tmp_path / "kept.json", []
    read = lambda path: json.loads(path.read_text())  # noqa: E731
    tell = lambda text, share: lines.append(text)  # noqa: E731
    assert read_kept(path, read, tell) is None and not lines
    for content in ("", '{"a": ', "\0\0\0"):
        path.write_text(content)
        assert read_kept(path, read, tell) is None and not path.exists()
    path.mkdir()
    assert read_kept(path, read, tell) is None and not path.exists()
    assert len(lines) == 4 and all(str(path) in line for line in lines)
    path.write_text("[1]")
    assert read_kept(path, read, tell) == [1]

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "not allowed")

    with pytest.raises(PermissionError):
        read_kept(path, refuse, tell)
    assert path.exists()
