"""Images that are drawn before anything judges them: what is asked for, what the list says, and
that measuring later trains and draws nothing again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from helpers.printed_commands import check_printed
from PIL import Image

from conf import load as conf
from conf.schema import Run
from lightning_modules.evaluation import gate_diagnostics
from lightning_modules.evaluation.images import ImageStore
from lightning_modules.evaluation.manifest import read_manifest, rows_of_scores, write_manifest
from lightning_modules.methods.maskattn import MaskAttn
from lightning_modules.metrics.detectors import DetectionsFile
from lightning_modules.training import run as train
from lightning_modules.training.progress import DRAWN
from lightning_modules.training.remeasure import FILES, PENDING

FOUND = {"label": "cat", "box": [1, 2, 30, 40], "score": 0.9}


class Counter:
    """How many steps were trained, and images drawn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps = self.images = 0
        step, save = MaskAttn.training_step, ImageStore.save

        def counted_step(method: MaskAttn, *given: Any) -> torch.Tensor:
            self.steps += 1
            return step(method, *given)

        def counted_save(images: ImageStore, *given: Any) -> None:
            self.images += 1
            save(images, *given)

        monkeypatch.setattr(MaskAttn, "training_step", counted_step)
        monkeypatch.setattr(ImageStore, "save", counted_save)


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Counter:
    return Counter(monkeypatch)


@pytest.mark.slow
def test_drawn_first_and_measured_later(
    base: Run, tmp_path: Path, counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_diagnostics, "draw_maps", lambda *args: Image.new("L", (1, 1)))
    common = {"seed": 4321, "evaluation.prompts": 2, "evaluation.noise_seeds": 2}
    common |= {"trainer.steps": 1, "evaluation.extractor": "none"}
    measuring = conf.replace(base, {**common, "output": str(tmp_path / "runs")})
    models = {"evaluation.aligners": ["/nowhere/clip"], "evaluation.extractor": "/nowhere/dino"}
    # Models that cannot be had are not asked for
    drawing = conf.replace(measuring, {"evaluation.draw_only": True, **models})
    folder = tmp_path / "trial"
    lines: list[str] = []
    result = train.run(drawing, folder, progress=lambda text, _: lines.append(text))
    assert (counter.steps, counter.images) == (1, 8)
    assert result["metrics"] == {} and result["drawn"]["images"] == 8
    assert json.loads((folder / DRAWN).read_text())["drawn"] == result["drawn"]
    assert not (folder / "result.json").exists(), "nothing is taken for a measured run"
    path = Path(result["drawn"]["manifest"])
    assert path.parent == tmp_path / "runs" / "images" and str(path) in lines[-1]

    measured = train.run(measuring, folder)
    assert (counter.steps, counter.images) == (1, 8), "nothing is trained or drawn again"
    assert not (folder / DRAWN).exists() and (folder / "result.json").exists()
    assert "eval/success" in measured["metrics"]

    rows, table = read_manifest(path), pd.read_parquet(folder / "scores.parquet")
    assert rows == rows_of_scores(table, 4321), "a list can be made of what was measured, too"
    assert [row["image"] for row in rows] == table["image"].tolist()
    assert [row["noise_number"] for row in rows] == [0, 1] * 4
    assert {row["split"] for row in rows} == {"val", "heldout"}
    assert {row["seed"] for row in rows} == {4321}
    for row in rows:
        with Image.open(path.parent / row["image"]) as image:
            assert image.size == (64, 64)


def test_more_prompts_are_drawn_beside_a_measured_run(
    base: Run, tmp_path: Path, counter: Counter
) -> None:
    few = conf.replace(base, {"method.name": "untouched", "evaluation.steps": 1})
    few = conf.replace(few, {"output": str(tmp_path), "evaluation.extractor": "none"})
    few = conf.replace(few, {"evaluation.prompts": 1})
    folder = tmp_path / "trial"
    train.run(few, folder)
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.name in FILES}
    many = conf.replace(few, {"evaluation.prompts": 2})
    drawn = train.run(conf.replace(many, {"evaluation.draw_only": True}), folder)["drawn"]
    assert counter.images == drawn["images"] == 4, "two of each split, of which two were there"
    assert kept == {path: path.read_bytes() for path in kept} and len(kept) == 3
    assert not (folder / PENDING).exists()
    rows = read_manifest(Path(drawn["manifest"]))
    before = train.run(conf.replace(few, {"evaluation.draw_only": True}), folder)["drawn"]
    listed = [row["image"] for row in read_manifest(Path(before["manifest"]))]
    assert {*listed} < {row["image"] for row in rows} and len(listed) == 2
    assert len(read_manifest(Path(drawn["manifest"]))) == 4, "each has a list of its own"

    measured = train.run(many, folder)
    assert counter.images == 4 and not (folder / DRAWN).exists()
    assert measured["prompts"] == 2 and not (folder / PENDING).exists()
    table = pd.read_parquet(folder / "scores.parquet")
    assert table["image"].tolist() == [row["image"] for row in rows]


def test_a_list_becomes_a_file_of_detections_by_one_key(tmp_path: Path) -> None:
    facts = {"prompt": "ein Hund, größer", "split": "val", "id": "7", "seed": 0, "noise": 5}
    rows = [{"image": f"ab/{i}.png", **facts, "noise_number": 0} for i in (0, 1, 1)]
    assert write_manifest(tmp_path / "ab.jsonl", rows) == 2, "each image stands once"
    listed = read_manifest(tmp_path / "ab.jsonl")
    found = tmp_path / "found.jsonl"
    found.write_text("".join(json.dumps(r | {"detections": [FOUND]}) + "\n" for r in listed))
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    seen = DetectionsFile(found).detect(images, [row["image"] for row in listed])
    assert [[d.label for d in each] for each in seen] == [["cat"], ["cat"]]
    with pytest.raises(ValueError, match="nothing about image 'x.png' .*draw_only=true lists"):
        DetectionsFile(found).detect(images[:1], ["x.png"])


def test_the_command_without_detections_says_how_to_draw_first(
    base: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, absent = tmp_path / "a run" / "run.yaml", tmp_path / "found.jsonl"
    path.parent.mkdir()
    config = conf.replace(base, {"evaluation.detector": str(absent)})
    conf.write(config, path)
    assert train.main([str(path)]) == 2
    error = capsys.readouterr().err
    assert str(absent) in error and len(error.splitlines()) == 1
    assert "draw_only: true" in error
    assert f"python -m lightning_modules.train '{path}'" in error
    check_printed(error)


def test_the_command_that_draws_says_where_the_list_is(
    base: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.yaml"
    changes = {"method.name": "untouched", "evaluation.draw_only": True, "evaluation.steps": 1}
    conf.write(conf.replace(base, changes), path)
    assert train.main([str(path)]) == 0
    *_, drawn, listed, then = capsys.readouterr().out.splitlines()
    assert drawn.startswith("drawn, not measured: 8 images below")
    (manifest,) = (word for word in listed.split() if word.endswith(".jsonl:"))
    assert len(read_manifest(Path(manifest.rstrip(":")))) == 8 and "detections" in listed
    assert "draw_only: false" in then and conf.read_run(path).evaluation.draw_only
    assert train.main([str(path), "--remeasure"]) == 2
    assert "nothing would be measured" in capsys.readouterr().err


def test_what_no_prompt_asks_for_is_said_before_drawing(base: Run, tmp_path: Path) -> None:
    changes = {"evaluation.detector": "found.jsonl", "evaluation.draw_only": True}
    with pytest.raises(ValueError, match="no prompt says what it wants"):
        train.run(conf.replace(base, changes), tmp_path)


def test_a_list_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Whatever a reader may take for the end of a line, or cannot encode."""
    odd = "café\u2028a\u2029b\x85c\x0bd\x1ce\ud800 f"
    rows = [{"image": f"{i}.png", "prompt": text} for i, text in enumerate((odd, "a cat"))]
    write_manifest(tmp_path / "list.jsonl", rows)
    assert read_manifest(tmp_path / "list.jsonl") == rows
    text = (tmp_path / "list.jsonl").read_text(encoding="utf-8")
    assert len(text.splitlines()) == 2 and "café" in text
