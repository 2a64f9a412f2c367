"""A disk that is really full (the system's limit on the size of files): one line names the path,
the earlier file stays as it was, and no draft is left."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.full_disk import file_size_limit, snapshot

from conf import load as conf
from conf.contents import FileFacts
from conf.files import DiskFull
from conf.schema import Run
from datamodules.cache import TextCache, text_facts
from datamodules.formats.index import Record, build_index
from datamodules.shapes.dataset import write_dataset
from datamodules.shapes.scene import write_scene
from datamodules.shards import fill
from lightning_modules.evaluation.evaluate import write_scores
from lightning_modules.evaluation.images import ImageStore
from lightning_modules.evaluation.plan import Prompt
from lightning_modules.methods.registry import build_method
from lightning_modules.metrics.real_stats import RealStats
from lightning_modules.training import run as train
from lightning_modules.training.checkpoints import LAST, KeptCheckpoints

Write = Callable[[int], Any]  # Of a version of the content


def noise(version: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(version))


def pixels(version: int) -> torch.Tensor:
    return (noise(version, 3, 64, 64) * 50 + 128).clamp(0, 255).to(torch.uint8)


def checkpoint(folder: Path) -> tuple[Write, Path]:
    path = folder / LAST
    content = lambda version: {"global_step": version, "w": noise(version, 4096)}  # noqa: E731
    return lambda version: KeptCheckpoints().save_checkpoint(content(version), path), path


def images(folder: Path) -> tuple[Write, Path]:
    store = ImageStore(folder, {"sampling": {"image_format": "png"}}, ["first"])
    return lambda version: store.save(0, pixels(version)), store.path(0)


class Pictures:
    def __init__(self, version: int) -> None:
        self.version = version

    def name(self, row: int) -> str:
        return f"{self.version}/{row}.png"

    def load(self, rows: Any) -> torch.Tensor:
        return torch.stack([pixels(self.version) for _ in rows])


def scores(folder: Path, kept: int, name: str) -> tuple[Write, Path]:
    prompts = [Prompt("val", i, i, f"prompt {i}", (), i) for i in range(200)]

    def write(version: int) -> None:
        success = {"success": [(i + version) % 2 == 0 for i in range(200)]}
        write_scores(folder, prompts, Pictures(version), success, kept, None)

    return write, folder / name


def result(folder: Path) -> tuple[Write, Path]:
    values = {f"eval/{i}": i / 7 for i in range(1000)}
    return lambda version: train._write({"of": version} | values, folder), folder / "result.json"


def shards(folder: Path) -> tuple[Write, Path]:
    def write(version: int) -> Path:
        compute = lambda rows: {"latents": torch.ones(len(rows), 999)}  # noqa: E731
        return fill(folder, {"version": version}, 9, compute, per_shard=9).path(0)

    return write, folder


def texts(folder: Path) -> tuple[Write, Path]:
    encode = lambda texts: {"hidden": torch.ones(len(texts), 1, 1)}  # noqa: E731
    many = [f"text {i}" for i in range(400)]
    path = TextCache.fill(folder, text_facts("x", "float32"), many, encode).path
    return lambda version: TextCache.fill(folder, text_facts("x", "float32"), many, encode), path


def index(folder: Path) -> tuple[Write, Path]:
    records = [Record(i, Path(f"/data/{i}.jpg"), 40, 30) for i in range(400)]

    def write(version: int) -> None:
        build_index(folder, {"version": version}, lambda problems: records)

    return write, folder


def file_facts(folder: Path) -> tuple[Write, Path]:
    path = folder / "facts.db"

    def write(version: int) -> None:
        many = {f"/data/{i}": (f"state {version}", "fact" * 9) for i in range(900)}
        FileFacts(path, "sha256").keep(many)

    return write, path


def real_stats(folder: Path) -> tuple[Write, Path]:
    def write(version: int) -> None:
        _ = RealStats(noise(version, 80, 40), folder / str(version)).moments

    return write, folder / "2" / "moments.safetensors"


def scene(folder: Path) -> tuple[Write, Path]:
    return lambda version: write_scene(folder / "scene", version), folder / "scene"


def world(folder: Path) -> tuple[Write, Path]:
    return lambda version: write_dataset(folder / "world", {"val": 12}, version), folder / "world"


WRITERS: dict[str, Callable[[Path], tuple[Write, Path]]] = {
    "checkpoint": checkpoint,
    "images": images,
    "samples": lambda folder: scores(folder, 4, "samples"),
    "scores": lambda folder: scores(folder, 0, "scores.parquet"),
    "result": result,
    "shards": shards,
    "texts": texts,
    "index": index,
    "file_facts": file_facts,
    "real_stats": real_stats,
    "scene": scene,
    "world": world,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_named_and_loses_nothing(name: str, tmp_path: Path) -> None:
    write, path = WRITERS[name](tmp_path)
    write(1)
    before = snapshot(tmp_path)
    limit = 100 if name == "scene" else 1024  # Its files are small
    with file_size_limit(limit), pytest.raises(DiskFull) as caught:
        write(2)
    line = str(caught.value)
    assert re.search(rf"{re.escape(str(path))}\S* cannot be written: no space left", line), line
    assert "draft" not in line and "\n" not in line
    after = snapshot(tmp_path)
    # A description of what is to come may be there already
    assert {n: c for n, c in after.items() if n in before} == before
    assert not [n for n in after if "draft" in n or "/." in f"/{n}"], "nothing is left over"
    write(2)
    assert snapshot(tmp_path) != before or name == "texts"


def test_an_adapter_is_there_whole_or_not_at_all(base: Run, embedded: Any, tmp_path: Path) -> None:
    method = build_method(base, embedded)
    method.save_adapter(tmp_path)
    before = snapshot(tmp_path)
    with torch.no_grad():
        next(method.adapter.parameters()).add_(1)
    with file_size_limit(1024), pytest.raises(DiskFull, match="adapter.safetensors cannot be writ"):
        method.save_adapter(tmp_path)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("limit", [0, 4096])
def test_a_whole_run_says_the_path_and_keeps_the_earlier_result(
    base: Run, tmp_path: Path, limit: int
) -> None:
    config = conf.replace(base, {"method": "untouched", "output": str(tmp_path / "runs")})
    config = replace(config, evaluation=replace(config.evaluation, costs=False))
    folder = tmp_path / "trial"
    train.run(config, folder)
    before = {n: c for n, c in snapshot(folder).items() if n != "log.txt"}
    other = conf.replace(config, {"evaluation.guidance": 2.0})
    with file_size_limit(limit), pytest.raises(DiskFull, match="cannot be written: no") as caught:
        train.run(other, folder)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
    after = {n: c for n, c in snapshot(folder).items() if n not in ("log.txt", "run.yaml")}
    assert after == {n: c for n, c in before.items() if n != "run.yaml"}
    assert not [n for n in snapshot(tmp_path) if "draft" in n]
    assert np.isfinite(train.run(other, folder)["metrics"]["eval/success"])
