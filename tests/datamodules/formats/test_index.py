"""Indices on disk: read back as written, made once, small in every process; and what a file on disk
is good for."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.coco_files import ROTATED, picture
from PIL import Image

from datamodules.batch import Caption
from datamodules.formats.images import check_image, check_images, orientation, read_image
from datamodules.formats.index import DataError, Problems, Record, Records, build_index


def record(i: int) -> Record:
    captions = [Caption(f"caption {i} “é”", "left of"), Caption("b")]
    return Record(
        i * 7,
        Path(f"/data/{i}.jpg"),
        40 + i,
        30,
        captions,
        [{"label": "dog", "n": n} for n in range(i)],
    )


def made(folder: Path, count: int = 30) -> Records:
    return build_index(folder, {"count": count}, lambda problems: map(record, range(count)))


def test_records_come_back_in_any_order_and_process(tmp_path: Path):
    records = made(tmp_path)
    assert len(records) == 30 and list(records) == [record(i) for i in range(30)]
    assert records[-1] == record(29) and records[np.int64(3)] == record(3)
    with pytest.raises(IndexError):
        records[30]
    copy = pickle.dumps(records)
    assert len(copy) < 2000 and pickle.loads(copy)[17] == record(17)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(records.__getitem__, range(30)) == list(records)


def test_columns_need_no_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "x.bin"
    file.write_bytes(b"12345")
    records = build_index(tmp_path / "i", {}, lambda problems: [Record("a", file, 1, 1), record(2)])
    monkeypatch.setattr(Records, "_parse", None)
    assert records.columns() == (["a", 14], [("x.bin", 5), ("2.jpg", -1)])


def test_an_index_is_made_once_for_its_facts(tmp_path: Path):
    calls = []

    def make(problems: Problems) -> Iterator[Record]:
        calls.append(1)
        problems.notes["split"] = "odd"
        problems.add("missing", "/data/0.jpg")
        yield record(1)
        problems.add("truncated", Path("/data/2.jpg"), "3 bytes")

    first, again = (build_index(tmp_path, {"a": 1}, make) for _ in range(2))
    assert len(calls) == 1 and first.folder == again.folder
    expected = {
        "missing": {"count": 1, "examples": ["/data/0.jpg"]},
        "truncated": {"count": 1, "examples": ["/data/2.jpg: 3 bytes"]},
    }
    assert again.manifest == {"split": "odd", "facts": {"a": 1}, "count": 1, "problems": expected}
    assert build_index(tmp_path, {"a": 2}, make).folder != first.folder and len(calls) == 2
    with pytest.raises(DataError, match="^/data/0.jpg: missing$"):
        build_index(tmp_path, {"a": 1}, make, "raise")
    with pytest.raises(DataError, match="^/data/0.jpg: missing$"):
        build_index(tmp_path, {"a": 3}, make, "raise")


def test_an_index_whose_making_was_interrupted_is_made_anew(tmp_path: Path):
    def interrupted(problems: Problems) -> Iterator[Record]:
        yield record(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_index(tmp_path, {"count": 30}, interrupted)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(made(tmp_path)) == 30


def _build_in(folder: Path) -> list[str]:
    def make(problems: Problems) -> Iterator[Record]:
        with open(folder / "calls", "a") as file:
            file.write("x")
        yield from map(record, range(200))

    return [r.captions[0].text for r in build_index(folder, {"shared": 1}, make)]


@pytest.mark.slow
def test_processes_share_one_build(tmp_path: Path):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        results = pool.map(_build_in, [tmp_path] * 4)
    assert (tmp_path / "calls").read_text() == "x" and all(
        len(found) == 200 and found == results[0] for found in results
    )


def test_problems_are_counted_and_the_first_places_kept():
    problems = Problems()
    for i in range(50):
        problems.add("missing", f"{i}.jpg")
    problems.add("broken", "x.jpg", "detail")
    assert problems.counts == {"missing": 50, "broken": 1} and problems.examples["broken"] == [
        "x.jpg: detail"
    ]
    assert problems.examples["missing"] == [f"{i}.jpg" for i in range(20)]
    assert json.loads(json.dumps(problems.summary()))["missing"]["count"] == 50
    with pytest.raises(DataError, match="^x.jpg: broken: detail$"):
        Problems("raise").add("broken", "x.jpg", "detail")
    with pytest.raises(ValueError, match="on_error='ignore': expected skip or raise"):
        Problems("ignore")


@pytest.mark.parametrize("verify", ["header", "full"])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_good_images_have_a_size_and_bad_ones_a_reason(tmp_path: Path, suffix: str, verify: str):
    good = picture(tmp_path / f"a.{suffix}")
    assert check_image(good, verify) == (96, 64)
    content = good.read_bytes()
    (tmp_path / "cut").write_bytes(content[: len(content) * 2 // 3])
    (tmp_path / "none").write_bytes(b"")
    (tmp_path / "page").write_text("<html>404</html>")
    (tmp_path / "more").write_bytes(content + bytes(9000))
    if suffix != "webp" or verify == "full":
        assert str(check_image(tmp_path / "cut", verify)).startswith(("truncated", "broken"))
    assert (
        check_image(tmp_path / "none", verify) == "empty"
        and check_image(tmp_path / "page", verify) == "no image"
    )
    assert (
        check_image(tmp_path / "nowhere" / "x", verify)
        == "missing"
        == check_image(tmp_path, verify)
    )
    assert check_image(tmp_path / "more", verify) == (96, 64), "what cameras append is no damage"
    with pytest.raises(ValueError, match="verify='fast': expected header or full"):
        check_image(good, "fast")


def test_damage_in_the_middle_is_found_by_decoding(tmp_path: Path):
    content = picture(tmp_path / "a.png").read_bytes()
    place = content.index(b"IDAT") + 8
    (tmp_path / "b.png").write_bytes(content[:place] + b"\0" * 12 + content[place + 12 :])
    assert check_image(tmp_path / "b.png") == (96, 64)
    assert str(check_image(tmp_path / "b.png", "full")).startswith("broken")
    with pytest.raises(DataError, match=r"b.png: image cannot be decoded .*verify=full finds all"):
        read_image(tmp_path / "b.png")


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_images_are_read_as_they_are_shown(tmp_path: Path, suffix: str, turn: int):
    path = picture(tmp_path / f"a.{suffix}", turn=turn)
    shown = (64, 96) if turn >= 5 else (96, 64)
    with Image.open(path) as file:
        assert orientation(file) == turn
    image = read_image(path)
    assert check_image(path) == shown == image.size and image.mode == "RGB"
    bright_first = {1: False, 2: True, 3: True, 4: False, 5: False, 6: False, 7: True, 8: True}[
        turn
    ]
    assert (image.getpixel((0, 0)) > (128,) * 3) == bright_first
    assert ROTATED == 6


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", "jpg"), ("CMYK", "jpg"), ("P", "png"), ("1", "png"), ("LA", "png"), ("RGBA", "png")],
)
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str, suffix: str):
    image = read_image(picture(tmp_path / f"a.{suffix}", mode))
    assert (
        image.mode == "RGB"
        and max(image.getpixel((0, 0))) < 60
        and min(image.getpixel((95, 63))) > 180
    )


def test_sixteen_bits_are_not_clipped_and_what_is_transparent_is_white(tmp_path: Path):
    Image.fromarray(np.full((4, 4), 0x8080, np.uint16)).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png").getpixel((0, 0)) == (128, 128, 128)
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert read_image(tmp_path / "clear.png").getpixel((0, 0)) == (255, 255, 255)


def _forget(records: Records) -> None:
    records._keeper = None


@pytest.mark.slow
def test_a_temporary_index_goes_with_its_records_but_not_with_a_copy_in_another_process():
    records = build_index(None, {"count": 3}, lambda problems: map(record, range(3)))
    child = multiprocessing.get_context("fork").Process(target=_forget, args=(records,))
    child.start()
    child.join()
    folder = records.folder
    assert child.exitcode == 0 and records[2] == record(2)
    del records
    assert not folder.exists()


def test_many_images_are_checked_in_order_and_no_thread_waits_in_between(tmp_path: Path):
    good, said = picture(tmp_path / "a.png"), []
    paths = [tmp_path / "missing.png" if i % 3 else good for i in range(300)]
    before = threading.active_count()
    found = check_images(paths, emit=said.append, what="pictures")
    assert next(found) == (96, 64) and threading.active_count() == before and not said
    assert list(found) == [(96, 64) if path == good else "missing" for path in paths[1:]]
    assert said == ["checking pictures: 256/300", "checking pictures: 300/300"]
