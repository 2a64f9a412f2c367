from __future__ import annotations

from pathlib import Path

import pytest

from conf.files import create_folder, write_atomically


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
