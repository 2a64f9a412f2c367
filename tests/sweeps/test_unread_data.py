"""Data that a plan cannot use, or that trials would ignore, are refused by the plan."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from conf.schema import Data, Evaluation, Run
from datamodules.inspect import main as inspect_data
from lightning_modules import train
from lightning_modules.training.foresee import foresee
from sweeps.command import main
from sweeps.engine.catalogue import discover

SWEEPS = {sweep.name: sweep for sweep in discover()}


@pytest.mark.parametrize(
    ("sweep", "words", "expected"),
    [
        ("threshold", ["data.train_split=nope"], "data.train_split=nope with data=shapes"),
        ("threshold", ["data.layout=flat"], "data.layout=flat with data=shapes"),
        ("threshold", ["data.joins=[and]"], "data.joins=[and] with data.concepts=[]"),
        ("sepen_losses", ["data.concepts=[fish,dog]"], "data.concepts names 'fish'"),
        ("generalisation", ["data.subjects=3"], "data.subjects=3 with data=shapes"),
    ],
)
def test_a_plan_refuses_it(
    sweep: str, words: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(SWEEPS[sweep], [f"output={tmp_path}", *words, "--plan"]) == 2
    err = capsys.readouterr().err
    assert expected in err and err.count("\n") == 1, err


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    root = tmp_path / "nowhere"
    for name in ("coco", "prompts", "scene"):
        config = Run(data=Data(name=name, root=str(root)), evaluation=Evaluation(prompts=0))
        with pytest.raises(FileNotFoundError, match=rf"data\.root=.* with data={name}: there"):
            foresee(config, lambda text, share: None)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
def test_a_folder_that_cannot_be_rendered_into(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"output={tmp_path}", "data.root=/proc/shapes", "--plan"]
    assert main(SWEEPS["threshold"], words) == 2
    assert "data.root=/proc/shapes cannot be written to" in capsys.readouterr().err


def test_other_commands_refuse_it_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect_data([f"output={tmp_path}", "data.train_split=nope"]) == 2
    assert "data.train_split=nope with data=shapes" in capsys.readouterr().err
    (tmp_path / "run.yaml").write_text(f"output: {tmp_path}\ndata: {{train_split: nope}}\n")
    assert train.main([str(tmp_path / "run.yaml")]) == 2
    assert "data.train_split=nope with data=shapes" in capsys.readouterr().err
