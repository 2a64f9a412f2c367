"""A sweep that only draws: its trials count for nothing that is measured, its images are listed,
and the same command without the setting goes on in the same study."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.printed_commands import check_printed
from helpers.sweep_states import CELLS, SWEEP, everything, finished, runs, states

from conf.schema import Run
from sweeps.engine.run_all import main as run_all

Command = Callable[..., int]
DRAW = "evaluation.draw_only=true"


def listed(output: Path) -> list[str]:
    path = output / "images" / "threshold.jsonl"
    return [json.loads(line)["image"] for line in path.read_text().splitlines()]


def test_drawn_trials_are_not_measured_ones(
    sweep: Command, trainer: Any, output: Path, mlflow: Any, reports: list[str], capsys: Any
) -> None:
    assert sweep("seeds=1", DRAW, "--plan") == 0
    plan = capsys.readouterr().out
    assert f"{output}/images/threshold.jsonl; nothing is measured" in plan
    assert sweep("seeds=1", DRAW) == 0
    printed = capsys.readouterr().out
    assert len(trainer.ran) == 4 and all(config.evaluation.draw_only for config in trainer.ran)
    assert states(output) == {"FAIL": 4} and not reports
    assert not (output / "threshold" / "report.pdf").exists()
    assert {run.info.status for run in runs(mlflow, "seed")} == {"KILLED"}
    assert {run.data.tags["error"] for run in runs(mlflow, "seed")} == {
        "2 images drawn, not measured"
    }
    assert {run.info.status for run in runs(mlflow, "cell")} == {"SCHEDULED"}
    assert (
        f"8 images below {output}/images" in printed and "report" not in printed.split("seed 0")[-1]
    )
    assert len(set(listed(output))) == 8, "two of each of four trials"
    assert all((output / "images" / image).is_file() for image in listed(output))
    assert sweep("seeds=1", "--plan") == 0
    assert "0 of 4 done, 4 only drawn" in capsys.readouterr().out


def test_the_same_command_without_it_goes_on(
    sweep: Command, trainer: Any, output: Path, mlflow: Any, reports: list[str], capsys: Any
) -> None:
    sweep("seeds=1", DRAW)
    printed = capsys.readouterr().out
    (line,) = (line for line in printed.splitlines() if line.startswith("to measure them: "))
    check_printed(line)
    *_, where, seeds = shlex.split(line)
    assert (where, seeds) == (f"output={output}", "seeds=1")
    assert sweep(seeds) == 0
    assert len(trainer.ran) == 8 and reports == ["threshold"]
    assert finished(mlflow) == everything(1)
    assert {run.info.status for run in runs(mlflow, "cell")} == {"FINISHED"}
    assert not list(output.glob("threshold-*")), "it is no study of its own"
    command = mlflow.get_experiment_by_name("threshold").tags["command"]
    assert command == "python -m sweeps.threshold seeds=1"
    assert sweep(seeds, DRAW) == 0 and len(trainer.ran) == 8, "nothing is drawn again"
    assert "4 of 4 done" in (sweep(seeds, "--plan"), capsys.readouterr().out)[1]


def test_images_of_measured_trials_are_listed_too(
    sweep: Command, trainer: Any, output: Path
) -> None:
    sweep("seeds=1")
    (output / "images" / "kept").mkdir(parents=True)
    for number, folder in enumerate(sorted((output / "threshold" / "trials").iterdir())):
        names = [f"kept/{number}.png", f"lost/{number}.png"]
        (output / "images" / names[0]).touch()
        columns = {"image": names, "prompt": "a cat", "split": "val", "id": "1", "noise": 10**11}
        pd.DataFrame(columns).to_parquet(folder / "scores.parquet")
    assert sweep("seeds=2", DRAW) == 0
    images = listed(output)
    assert len(trainer.ran) == 8 and len(images) == 4 + 8
    assert sum(image.startswith("kept/") for image in images) == 4
    assert not any(image.startswith("lost/") for image in images), "what is not kept"


def test_a_trial_that_fails_is_said(
    sweep: Command, trainer: Any, output: Path, capsys: Any
) -> None:
    def fail(config: Run, count: int) -> None:
        if config.method.name == "untouched":
            raise ValueError("no luck")

    trainer.before = fail
    assert sweep("seeds=1", "retries=0", DRAW) == 1
    shown = capsys.readouterr()
    assert f"failed: {CELLS[0]}, seed 0: ValueError: no luck" in shown.err
    assert len(listed(output)) == 6
    assert sweep("seeds=1", "--plan") == 0
    assert "0 of 4 done, 1 failed, 3 only drawn" in capsys.readouterr().out


def test_without_detections_the_whole_command_is_said(
    sweep: Command, trainer: Any, output: Path, capsys: Any
) -> None:
    for more in ([], ["--plan"]):
        assert sweep("evaluation.detector=my found.jsonl", "seeds=1", *more) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert error.startswith("error: evaluation.detector=my found.jsonl: there is no such file")
        command = (
            f"python -m sweeps.threshold output={output} 'evaluation.detector=my found.jsonl' "
            f"seeds=1 {DRAW}"
        )
        assert error.endswith(f": {command}")
        check_printed(error)
    assert not trainer.ran
    sweep("evaluation.detector=my found.jsonl", "seeds=1", DRAW, "--plan")
    assert "no such file" not in capsys.readouterr().err, "it is not asked for"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mode=search"], "evaluation.draw_only=true with mode=search: cells follow from"),
        (["mode=path"], "evaluation.draw_only=true with mode=path: cells follow from"),
        (["--remeasure"], "--remeasure with evaluation.draw_only=true: nothing would be measured"),
    ],
)
def test_what_does_not_go_with_it_is_refused(
    sweep: Command, trainer: Any, words: list[str], message: str, capsys: Any
) -> None:
    assert sweep(DRAW, *words) == 2
    assert message in capsys.readouterr().err and not trainer.ran


def test_all_sweeps_may_be_drawn(
    trainer: Any, output: Path, reports: list[str], capsys: Any
) -> None:
    words = [f"output={output}", "seeds=1", DRAW]
    assert run_all(words, [SWEEP], trainer) == 0
    assert "4 trials only drawn" in " ".join(capsys.readouterr().out.split()) and not reports
