"""Numbers that different code measured never stand together; ``--remeasure`` brings them to one
code, and loses nothing when it is stopped."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from helpers.memory_mlflow import MemoryMlflow
from helpers.sweep_states import SWEEP

from conf.schema import Run
from lightning_modules.tracking.provenance import MEASURED_BY
from lightning_modules.tracking.store import client
from lightning_modules.training import remeasure as one_run
from lightning_modules.training.remeasure import PENDING, NotKept
from reports.measuring import DROPPED, REPLACING
from sweeps.engine import remeasure
from sweeps.engine.catalogue import brief_words
from sweeps.engine.remeasure import ComparableValues
from sweeps.engine.run_all import main as run_all

Command = Callable[..., int]
PARTS = {"judge": "now", "distribution": "now", "diagnostics": "now"}
OF = {"success": "judge", "fid": "distribution"}


def measured(at: int = 1, **codes: str) -> dict[str, Any]:
    parts = {name: {"code": code, "at": at} for name, code in (PARTS | codes).items()}
    return {"code": "-".join(part["code"] for part in parts.values()), "parts": parts, "of": OF}


@pytest.fixture
def code(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The code that measures now, by its parts; a test may change it."""
    parts = dict(PARTS)
    monkeypatch.setattr(
        "lightning_modules.training.versions.measuring_parts", lambda config: dict(parts)
    )
    return parts


@pytest.fixture
def command(sweep: Command, trainer: Any, code: dict[str, str]) -> Command:
    """The sweep, whose trials say what measured them, one after another."""
    clock = itertools.count(10)
    trainer.measured = lambda config: measured(next(clock), **code)
    return sweep


def write_table(folder: Path) -> None:
    columns = ("split", "id", "prompt", "noise", "image")
    pd.DataFrame({name: ["0"] for name in columns}).to_parquet(folder / "scores.parquet")


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch, code: dict[str, str]) -> list[Path]:
    """What was measured again: success is .9 then."""
    folders: list[Path] = []

    def score(config: Run, folder: Path) -> dict[str, Any]:
        folders.append(folder)
        result: dict[str, Any] = json.loads((folder / "result.json").read_text())
        result["metrics"] = {"eval/success": 0.9}
        result["measured"] = measured(1000, **code)
        (folder / PENDING).mkdir()
        (folder / PENDING / "result.json").write_text(json.dumps(result))
        write_table(folder / PENDING)
        return result

    monkeypatch.setattr(remeasure, "remeasure", score)
    return folders


def store_of(output: Path) -> MemoryMlflow:
    return client(f"sqlite:///{(output / 'mlflow.db').resolve()}")  # type: ignore[return-value]


def seeds(output: Path) -> list[Any]:
    return [r for r in store_of(output).search_runs(["1"]) if r.data.tags["role"] == "seed"]


def cells(output: Path) -> dict[str, dict[str, float]]:
    runs = store_of(output).search_runs(["1"])
    return {r.data.tags["cell"]: r.data.metrics for r in runs if r.data.tags["role"] == "cell"}


def test_other_code_is_told_at_the_start(
    command: Command, code: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    command("seeds=1")
    assert "measured by" not in capsys.readouterr().out
    assert command("seeds=1") == 0
    assert "measured by" not in capsys.readouterr().out
    code["judge"] = "changed"
    assert command("seeds=1", "--plan") == 0
    planned = [line for line in capsys.readouterr().out.splitlines() if "measured by" in line]
    assert command("seeds=1") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "measured by" in line]
    assert len(lines) == 1 and lines[0].startswith("4 of 4 finished trials were measured by other")
    assert "(judge)" in lines[0] and "--remeasure" in lines[0]
    assert planned == lines, "a plan says it before"


def test_a_result_of_an_earlier_version_is_of_unknown_code(
    sweep: Command, trainer: Any, capsys: pytest.CaptureFixture[str], output: Path
) -> None:
    trainer.measured = lambda config: None
    sweep("seeds=1")
    capsys.readouterr()
    assert sweep("seeds=1") == 0
    printed = capsys.readouterr().out
    assert "4 of 4 finished trials were measured by code that they do not name" in printed
    assert "--remeasure" in printed
    assert cells(output)["threshold=0.5"]["agg/success_n"] == 1, "they still report"


def test_means_are_never_over_numbers_of_different_code(
    command: Command, code: dict[str, str], output: Path
) -> None:
    command("seeds=2")
    assert cells(output)["threshold=0.5"]["agg/success_n"] == 2
    code["judge"] = "changed"
    command("seeds=3")
    for metrics in cells(output).values():
        assert metrics["agg/success_n"] == 1, "only the third seed is of the code of today"
        assert metrics["agg/fid_n"] == 3, "what measures it has not changed"


def test_remeasuring_brings_all_to_one_code(
    command: Command,
    code: dict[str, str],
    scored: list[Path],
    output: Path,
    trainer: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command("seeds=2")
    code["judge"] = "changed"
    trained, ends = len(trainer.ran), [run.info.end_time for run in seeds(output)]
    assert command("seeds=3", "--remeasure") == 0
    assert len(trainer.ran) == trained, "nothing is trained or drawn"
    assert len(scored) == 8 and "measured again 8/8" in capsys.readouterr().out
    for run in seeds(output):
        assert run.data.metrics["eval/success"] == 0.9
        assert json.loads(run.data.tags[MEASURED_BY])["parts"]["judge"]["code"] == "changed"
        assert REPLACING not in run.data.tags and run.data.tags[DROPPED] == "fid"
    assert [run.info.end_time for run in seeds(output)] == ends, "when it was made stays"
    assert not list(output.rglob(PENDING))
    for metrics in cells(output).values():
        assert metrics["agg/success_mean"] == pytest.approx(0.9) and metrics["agg/success_n"] == 2
        assert metrics["agg/fid_n"] == 0, "a value that is measured no more counts no more"
    command("seeds=2")
    assert "measured by" not in capsys.readouterr().out


def test_only_what_other_code_measured_is_measured_again(
    command: Command,
    code: dict[str, str],
    scored: list[Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    command("seeds=1")
    code["judge"] = "changed"
    command("seeds=2")
    assert command("seeds=2", "--remeasure") == 0
    assert len(scored) == 4 and "4 of 8 were measured by this code already" in (
        capsys.readouterr().out
    )
    assert command("seeds=2", "--remeasure") == 0
    assert len(scored) == 12, "all, if there is no other code"


@pytest.mark.parametrize("stop", ["remeasure", "log_artifact", "delete_tag", "discard"])
def test_a_stopped_remeasuring_loses_nothing(
    command: Command,
    code: dict[str, str],
    scored: list[Path],
    output: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop: str,
) -> None:
    command("seeds=1")
    code["judge"] = "changed"

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if stop in ("remeasure", "discard"):
            patch.setattr(remeasure, stop, interrupt)
        else:
            patch.setattr(MemoryMlflow, stop, interrupt)
        assert command("seeds=1", "--remeasure") == 130
    folders = [path.parent for path in output.rglob("result.json") if path.parent.name != PENDING]
    assert len(folders) == 4 and all(one_run.adopt(folder) or folder for folder in folders)
    # Any later command ends what was begun, and no number was lost
    assert command("seeds=1") == 0
    assert not list(output.rglob(PENDING))
    runs = seeds(output)
    assert len(runs) == 4 and not any(REPLACING in run.data.tags for run in runs)
    new = [run for run in runs if run.data.metrics["eval/success"] == 0.9]
    assert len(new) == (0 if stop == "remeasure" else 1)
    for run in runs:
        by = json.loads(run.data.tags[MEASURED_BY])["parts"]["judge"]["code"]
        assert by == ("changed" if run in new else "now")
    assert command("seeds=1", "--remeasure") == 0
    assert all(run.data.metrics["eval/success"] == 0.9 for run in seeds(output))


def test_trials_whose_images_are_gone_are_named_with_the_cure(
    command: Command,
    scored: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command("seeds=1")
    score = remeasure.remeasure

    def missing(config: Run, folder: Path) -> dict[str, Any]:
        if config.method.name == "untouched":
            raise NotKept("2 of its 6 images are not kept below /images, such as a/00001.png")
        return score(config, folder)

    monkeypatch.setattr(remeasure, "remeasure", missing)
    capsys.readouterr()
    assert command("seeds=1", "--remeasure") == 1
    out = capsys.readouterr()
    assert len(scored) == 3 and "2 of its 6 images are not kept" in out.err
    assert "--fresh" in out.err


def test_a_plan_names_a_result_that_was_cut_off(
    command: Command, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command("seeds=1")
    capsys.readouterr()
    path = next(output.rglob("result.json"))
    path.write_text(path.read_text()[:40])
    assert command("seeds=1", "--plan") == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "damaged" in line)
    assert "result.json is damaged" in line and "--fresh" in line


def test_without_a_finished_trial_nothing_is_made(
    command: Command, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(output.iterdir())
    assert command("seeds=1", "--remeasure") == 2
    assert "run it first, without --remeasure" in capsys.readouterr().err
    assert sorted(output.iterdir()) == before


def test_the_catalogue_is_measured_again(
    command: Command, code: dict[str, str], scored: list[Path], trainer: Any, output: Path
) -> None:
    words = [f"output={output}", "seeds=1", "levels=[0.4,0.5]", "--remeasure"]
    assert run_all(words, [SWEEP], trainer) == 2
    command("seeds=1", "levels=[0.4,0.5]", *brief_words(SWEEP, words))
    trained = len(trainer.ran)
    code["judge"] = "changed"
    assert run_all(words, [SWEEP], trainer) == 0
    assert len(scored) == len(trainer.ran) == trained


def test_a_search_takes_no_numbers_of_two_kinds(
    command: Command, code: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("mode=search", "seeds=1")
    command("candidates=1", *words)
    assert command(*words, "candidates=1", "--remeasure") == 2
    assert "--fresh" in capsys.readouterr().err
    code["judge"] = "changed"
    assert command(*words, "candidates=1") == 0, "it is finished: nothing is mixed"
    assert command(*words, "candidates=2") == 1
    assert "a search cannot go on from numbers of two kinds" in capsys.readouterr().err


def run(at: int, code: str | None, **values: float) -> Any:
    by = {MEASURED_BY: json.dumps(measured(at, judge=code))} if code else {}
    metrics = {f"eval/{key}": value for key, value in values.items()}
    data = SimpleNamespace(tags=by, metrics=metrics, params={})
    return SimpleNamespace(info=SimpleNamespace(status="FINISHED", start_time=5), data=data)


def test_of_each_metric_the_code_that_measured_last_counts() -> None:
    comparable = ComparableValues()
    old, new, unknown = run(8, "old", success=1, fid=2), run(9, "new", success=3, fid=4), run(0, "")
    unknown.data.metrics = {"eval/success": 5, "eval/fid": 6}
    comparable.learn_runs([new, old, unknown])
    assert comparable.pick(old) == {"fid": 2}
    assert comparable.pick(new) == {"success": 3, "fid": 4}
    assert comparable.pick(unknown) == {}
    comparable.learn_runs([unknown])
    assert comparable.pick(unknown) == {"success": 5, "fid": 6}
    assert comparable.learn_result({"metrics": {"eval/success": 1}, "measured": measured(3)})
    assert comparable.pick(unknown) == {"fid": 6}
