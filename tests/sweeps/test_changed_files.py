"""Files that change at the same path: their trials are kept apart from earlier ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.coco_files import write_coco
from helpers.in_place import overwrite, replace_text, touch
from helpers.sweep_states import SWEEP

from lightning_modules.training.contents import contents_of
from sweeps.command import main
from sweeps.engine.request import Request

Command = Callable[..., int]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    root = tmp_path / "files"
    (root / "model" / "unet").mkdir(parents=True)
    (root / "model" / "unet" / "model.safetensors").write_bytes(b"weights")
    (root / "found.jsonl").write_text('{"image": 0, "detections": []}\n')
    write_coco(root / "coco", "train", range(3))
    write_coco(root / "coco", "val", range(10, 13))
    return root


@pytest.fixture
def command(trainer: Any, reports: list[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """A sweep whose trials say what they read, as those of the real trainer do."""
    # Captions do not say what a detector looks for: the trainer here asks none
    monkeypatch.setattr(Request, "check_records", lambda self: [])
    # The model here has weights alone
    monkeypatch.setattr("lightning_modules.training.checks.check_configs", lambda *_, **__: None)

    def train(config: Any, folder: Path, *more: Any) -> dict[str, Any]:
        contents = contents_of(config)
        result = trainer(config, folder, *more) | {"contents": contents}
        (folder / "result.json").write_text(json.dumps(result))
        return result

    return lambda *words: main(SWEEP, words, train=train)


@pytest.fixture
def start(command: Command, output: Path, files: Path) -> Command:
    """The sweep on the files."""
    words = [
        *("data=coco", f"data.root={files / 'coco'}", "data.train_split=train", "seeds=1"),
        *("data.min_phrases=0", "evaluation.splits=[val]", "evaluation.prompts=3"),
        *("evaluation.extractor=none", f"evaluation.detector={files / 'found.jsonl'}"),
        *(f"backbone.path={files / 'model'}", f"output={output}", "backbone.resolution=64"),
        *("trainer=sepen_joint", "evaluation.steps=8", "evaluation.guidance=3"),
    ]
    return lambda *more: command(*words, *more)


EDITS: dict[str, Callable[[Path], Any]] = {
    "backbone.path": lambda p: overwrite(p / "model" / "unet" / "model.safetensors"),
    "evaluation.detector": lambda p: replace_text(p / "found.jsonl", "0", "1"),
    "data.root": lambda p: overwrite(p / "coco" / "val" / "000000000011.jpg"),
}


@pytest.mark.parametrize("setting", EDITS)
def test_trials_of_other_content_are_kept_apart(
    start: Command, trainer: Any, output: Path, files: Path, capsys: Any, setting: str
) -> None:
    assert start() == 0 and len(trainer.ran) == 4
    for path in files.rglob("*"):
        touch(path)
    assert start() == 0 and len(trainer.ran) == 4
    before = {path: path.read_bytes() for path in files.rglob("*") if path.is_file()}
    capsys.readouterr()
    EDITS[setting](files)
    assert start("--plan") == 0
    planned = "".join(capsys.readouterr().out.split())
    assert "0of4done" in planned and "othercontent" in planned
    assert start() == 0 and len(trainer.ran) == 8
    printed = "".join(capsys.readouterr().out.split())
    (other,) = output.glob("threshold-*")
    assert f"4finishedtrialsof{output / 'threshold'}" in printed and f"{setting}=" in printed
    assert f"keptapartin{other}" in printed
    # Each goes on as long as its files are there
    assert start() == 0 and len(trainer.ran) == 8
    for path, content in before.items():
        path.write_bytes(content)
    assert start() == 0 and len(trainer.ran) == 8
    assert "otherresults" not in capsys.readouterr().out


@pytest.mark.parametrize("shipped", ["embedded", "judge"])
def test_trials_of_other_shipped_weights_are_kept_apart(
    command: Command,
    trainer: Any,
    output: Path,
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    shipped: str,
) -> None:
    """Those of an earlier version: cells of two worlds never stand in one table."""
    assets = files / "assets"
    for folder in ("backbone", "judge"):
        (assets / folder).mkdir(parents=True)
        (assets / folder / "model.safetensors").write_bytes(b"weights")
        (assets / folder / "README.md").write_text("A card.")
    for module in ("backbone.weights", "training.contents"):
        monkeypatch.setattr(f"lightning_modules.{module}.ASSETS", assets)
    words = ["seeds=1", f"output={output}"]
    assert command(*words) == 0 and len(trainer.ran) == 4
    for folder in ("backbone", "judge"):  # What people write beside them changes no trial
        (assets / folder / "README.md").write_text("A longer card.")
        (assets / folder / "labels.csv").write_text("person,judge\n")
    assert command(*words) == 0 and len(trainer.ran) == 4
    folder = {"embedded": "backbone"}.get(shipped, shipped)
    overwrite(assets / folder / "model.safetensors")
    assert command(*words) == 0 and len(trainer.ran) == 8
    assert len(list(output.glob("threshold-*"))) == 1


def test_a_change_while_a_sweep_runs_ends_it(
    start: Command, trainer: Any, files: Path, output: Path, capsys: Any
) -> None:
    def edit(config: Any, count: int) -> None:
        if count == 2:
            overwrite(files / "model" / "unet" / "model.safetensors")

    trainer.before = edit
    assert start("retries=0") == 1
    assert "holds something else than when this sweep began" in capsys.readouterr().err
    # Two had read what was there at the start
    assert len(list((output / "threshold").rglob("result.json"))) == 2
    ran = len(trainer.ran)
    assert start() == 0 and len(trainer.ran) == ran + 4


def test_data_that_cannot_be_used_are_refused_at_the_start(
    start: Command, trainer: Any, files: Path, capsys: Any
) -> None:
    (files / "coco" / "annotations" / "captions_val.json").write_text("{")
    assert start() == 2 and not trainer.ran
    assert "captions_val.json" in capsys.readouterr().err


def test_more_prompts_read_more_images_and_stay_in_the_study(
    start: Command, trainer: Any, files: Path, output: Path
) -> None:
    assert start() == 0 and start("evaluation.prompts=4") == 0
    assert len(trainer.ran) == 8 and not list(output.glob("threshold-*"))
    overwrite(files / "coco" / "val" / "000000000011.jpg")
    assert start("evaluation.prompts=4") == 0
    assert len(trainer.ran) == 12 and list(output.glob("threshold-*")), "they are read all the same"
