"""Digests of what files hold: they see every change of content and nothing else, and read a file
once."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers.in_place import opened_files, overwrite, touch

from conf import contents
from conf.contents import digest_contents, list_files


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were made just now count as old."""
    monkeypatch.setattr(contents, "SETTLED", -3600.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(150):
        path = tmp_path / "files" / f"part{number % 3}" / "deep" / f"{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number]) * (number + 1))
    (tmp_path / "files" / ".hidden").write_bytes(b"never counts")
    return tmp_path / "files"


def digest(folder: Path, cache: Path | None = None) -> str:
    return digest_contents(list_files(folder), cache)


def test_content_counts_and_neither_time_nor_place(folder: Path, tmp_path: Path):
    first = digest(folder)
    assert len(first) == 16 and first == digest(folder, tmp_path / "cache")
    touch(folder / "part0" / "deep" / "0.bin")
    (folder / ".hidden").write_bytes(b"other")
    shutil.copytree(folder, tmp_path / "copy")
    assert first == digest(folder, tmp_path / "cache") == digest(tmp_path / "copy")
    overwrite(folder / "part0" / "deep" / "0.bin")
    assert digest(folder) != first


@pytest.mark.parametrize("change", ["content", "name", "new", "gone", "swapped"])
def test_every_change_is_seen_although_digests_are_kept(
    folder: Path, tmp_path: Path, settled: None, change: str
):
    first, cache = digest(folder, tmp_path), tmp_path
    one, two = folder / "part1" / "deep" / "1.bin", folder / "part1" / "deep" / "4.bin"
    if change == "content":
        overwrite(one)
    elif change == "name":
        one.rename(one.with_name("9999.bin"))
    elif change == "new":
        (folder / "new.bin").touch()
    elif change == "gone":
        one.unlink()
    else:
        one.rename(folder / "aside")
        two.rename(one)
        (folder / "aside").rename(two)
    assert digest(folder, cache) == digest(folder) != first


def test_a_file_that_is_listed_and_missing_counts_as_such(tmp_path: Path):
    files = {"a": tmp_path / "a"}
    missing = digest_contents(files)
    (tmp_path / "a").touch()
    assert digest_contents(files) != missing


def test_a_second_start_reads_only_what_changed(
    folder: Path, tmp_path: Path, settled: None, monkeypatch: pytest.MonkeyPatch
):
    def opened() -> list[str]:
        with opened_files(monkeypatch, folder) as names:
            digest(folder, tmp_path / "cache")
        return names

    assert len(opened()) == 150 and opened() == []
    overwrite(folder / "part2" / "deep" / "5.bin")
    touch(folder / "part0" / "deep" / "3.bin")
    assert sorted(opened()) == ["part0/deep/3.bin", "part2/deep/5.bin"] and opened() == []
    assert len(list((tmp_path / "cache").glob("*.db"))) == 1


def test_a_file_of_just_now_is_read_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    digest(folder, tmp_path)
    with opened_files(monkeypatch, folder) as names:
        digest(folder, tmp_path)
    assert len(names) == 150


def test_several_processes_read_a_file_once(
    folder: Path, tmp_path: Path, settled: None, monkeypatch: pytest.MonkeyPatch
):
    with opened_files(monkeypatch, folder) as names, ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: digest(folder, tmp_path / "cache"), range(8)))
    assert found == {digest(folder)} and len(names) == 150


def test_a_damaged_cache_is_made_again(folder: Path, tmp_path: Path, settled: None):
    first = digest(folder, tmp_path)
    (tmp_path / "contents.db").write_bytes(b"no database" * 100)
    assert digest(folder, tmp_path) == first == digest(folder, tmp_path)
    assert (tmp_path / "contents.db").read_bytes().startswith(b"SQLite")


def test_what_was_read_before_a_stop_is_kept(
    folder: Path, tmp_path: Path, settled: None, monkeypatch: pytest.MonkeyPatch
):
    real, stop = contents._read, folder / "part2" / "deep" / "98.bin"

    def read(path: str, *args):  # type: ignore[no-untyped-def]
        if path == str(stop):
            raise KeyboardInterrupt
        return real(path, *args)

    monkeypatch.setattr(contents, "_read", read)
    monkeypatch.setattr(contents, "BATCH", 10)
    with pytest.raises(KeyboardInterrupt):
        digest(folder, tmp_path / "cache")
    monkeypatch.setattr(contents, "_read", real)
    with opened_files(monkeypatch, folder) as names:
        digest(folder, tmp_path / "cache")
    assert len(names) == 10


def test_much_to_read_is_said_from_the_start(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(contents, "LARGE", 100)
    monkeypatch.setattr(contents, "EVERY", 0.0)
    lines: list[tuple[str, float]] = []
    digest_contents(list_files(folder), tmp_path, "images", lambda *line: lines.append(line))
    assert lines[0][1] == 0 and "150 files" in lines[0][0] and "images" in lines[0][0]
    assert lines[-1][1] == 1 and any("left" in text for text, _ in lines[1:-1])
    lines.clear()
    digest_contents({"a": folder / "part0" / "deep" / "0.bin"}, None, "one", lambda *_: 1 / 0)


def test_a_file_that_cannot_be_read_is_named(folder: Path, tmp_path: Path):
    path = folder / "part0" / "deep" / "0.bin"
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match=os.path.basename(path)):
        digest_contents({"a": path}, tmp_path)
