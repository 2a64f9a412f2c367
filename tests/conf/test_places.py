"""Folders that cannot be written to are told apart before work begins."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from conf.places import check_folder, find_obstacle


def test_a_folder_that_can_be_made_leaves_no_trace(tmp_path: Path) -> None:
    assert find_obstacle(tmp_path / "a" / "b") == find_obstacle(tmp_path) == ""
    assert list(tmp_path.iterdir()) == []


def test_folders_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"output=.*file/x cannot be written to: .*file is a file"):
        check_folder("output", tmp_path / "file" / "x")
    assert "too long" in find_obstacle(tmp_path / "new" / ("n" * 300))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
def test_a_file_system_that_takes_no_files() -> None:
    assert "no file can be made in /proc" in find_obstacle("/proc/x")
