"""Indices on disk: read back as written, made once, small in every process."""

from __future__ import annotations

import json
import multiprocessing
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from datamodules.batch import Caption
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
    assert len(again.manifest.pop("records")) == 16
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
