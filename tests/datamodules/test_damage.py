"""Kept files of data that were cut off, or are empty: dropped with a line that names them, and made
again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from datamodules.batch import Caption
from datamodules.formats.index import Record, build_index
from datamodules.shapes.dataset import write_dataset
from datamodules.shapes.scene import write_scene
from datamodules.shards import fill

SHARES = pytest.mark.parametrize("share", [0, 0.5])


def cut(path: Path, share: float) -> bytes:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    return whole


@SHARES
@pytest.mark.parametrize(
    "name",
    [
        "val/000000000001.png",
        "annotations/instances_val.json",
        "annotations/captions_val.json",
        "annotations/made_val.json",
    ],
)
def test_a_rendered_world(
    tmp_path: Path, name: str, share: float, caplog: pytest.LogCaptureFixture
) -> None:
    write_dataset(tmp_path, {"val": 3})
    whole = cut(tmp_path / name, share)
    write_dataset(tmp_path, {"val": 3})
    assert (tmp_path / name).read_bytes() == whole
    assert len(caplog.messages) == 1 and str(tmp_path) in caplog.text
    before = (tmp_path / name).stat().st_mtime_ns
    write_dataset(tmp_path, {"val": 3})
    assert (tmp_path / name).stat().st_mtime_ns == before and len(caplog.messages) == 1


@SHARES
@pytest.mark.parametrize("name", ["img.png", "mask0.png", "scene.json"])
def test_a_rendered_scene(
    tmp_path: Path, name: str, share: float, caplog: pytest.LogCaptureFixture
) -> None:
    write_scene(tmp_path / "scene", 0)
    path = tmp_path / "scene" / name
    whole = cut(path, share)
    write_scene(tmp_path / "scene", 0)
    assert path.read_bytes() == whole and str(path) in caplog.text


@SHARES
@pytest.mark.parametrize(
    "name", ["records.jsonl", "offsets.npy", "columns.json", "paths.json", "manifest.json"]
)
def test_an_index(
    tmp_path: Path, name: str, share: float, caplog: pytest.LogCaptureFixture
) -> None:
    images = [Record(i, tmp_path / f"{i}.png", 8, 8, [Caption("a cat", None)]) for i in range(3)]
    records = build_index(tmp_path / "index", {}, lambda problems: images)
    cut(records.folder / name, share)
    again = build_index(tmp_path / "index", {}, lambda problems: images)
    assert [record.id for record in again] == [0, 1, 2] and again.columns()[0] == [0, 1, 2]
    assert str(records.folder) in caplog.text and name in caplog.text


@SHARES
@pytest.mark.parametrize("name", ["meta.json", "shard-00001.safetensors"])
def test_shards(tmp_path: Path, name: str, share: float) -> None:
    lines: list[str] = []

    def make() -> Path:
        compute = lambda rows: {"x": torch.tensor(rows)[:, None].float()}  # noqa: E731
        tell = lambda text, share: lines.append(text)  # noqa: E731
        return fill(tmp_path, {"a": 1}, 5, compute, per_shard=2, emit=tell).folder

    folder = make()
    cut(folder / name, share)
    make()
    assert load_file(folder / "shard-00001.safetensors")["x"].flatten().tolist() == [2, 3]
    assert sum(str(folder / name) in line for line in lines) == 1
