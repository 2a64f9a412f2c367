"""A finished run measured again: equal numbers with the same code, new ones with other code, and
nothing lost whenever it is stopped."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from conf import load as conf
from conf.schema import Backbone, Data, Evaluation, Method, Run
from lightning_modules.backbone.backbone import Backbone as LoadedBackbone
from lightning_modules.metrics.judge import JudgeScorer
from lightning_modules.training import remeasure as module
from lightning_modules.training import run as train
from lightning_modules.training import versions
from lightning_modules.training.remeasure import NotKept, adopt, discard, remeasure


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(
        backbone=Backbone(),
        method=Method(name="untouched"),
        data=Data(train_images=16, eval_images=8),
        evaluation=Evaluation(prompts=3, steps=1, keep_images=1, costs=False),
        output=str(tmp_path_factory.mktemp("runs")),
    )


@pytest.fixture(scope="module")
def finished(config: Run) -> Path:
    """The folder of a finished run."""
    folder = Path(config.output) / "finished"
    train.run(config, folder)
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "trial"))


def result(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return content


@pytest.fixture
def other_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge's metric that gives other numbers, and other code that measures."""
    finish = JudgeScorer.finish

    def other(self: JudgeScorer) -> dict[str, float]:
        return finish(self) | {"success": 0.75}

    monkeypatch.setattr(JudgeScorer, "finish", other)
    parts = versions.measuring_parts
    monkeypatch.setattr(versions, "measuring_parts", lambda c: parts(c) | {"judge": "other"})


def test_the_same_code_gives_the_same_numbers_and_draws_nothing(
    config: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LoadedBackbone, "load", lambda *_: pytest.fail("nothing is drawn"))
    before, table = result(folder), pd.read_parquet(folder / "scores.parquet")
    new = remeasure(config, folder)
    assert result(folder) == before, "the old result stays until the new one is adopted"
    assert adopt(folder) == new == result(folder)
    discard(folder)
    assert new["metrics"] == before["metrics"] and new["facts"] == before["facts"]
    assert new["measured"]["code"] == before["measured"]["code"]
    assert new["measured"]["of"] == before["measured"]["of"]
    assert new["versions"] == before["versions"] and "torch" in new["measured"]["versions"]
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "scores.parquet"), table)
    assert (folder / "samples" / "0-00000-0.png").is_file()
    assert {path.name for path in folder.iterdir()} == {
        path.name for path in Path(config.output, "finished").iterdir()
    }


@pytest.mark.usefixtures("other_code")
def test_other_code_gives_new_numbers_and_says_so(config: Run, folder: Path) -> None:
    before = result(folder)
    remeasure(config, folder)
    adopt(folder)
    after = result(folder)
    assert after["metrics"]["eval/success"] == 0.75 != before["metrics"]["eval/success"]
    assert after["metrics"]["eval/fid"] == before["metrics"]["eval/fid"]
    parts = [{n: p["code"] for n, p in r["measured"]["parts"].items()} for r in (before, after)]
    assert {name for name in parts[0] if parts[0][name] != parts[1][name]} == {"judge"}
    assert after["measured"]["code"] != before["measured"]["code"]


def test_what_looks_at_the_method_stays_as_it_was(config: Run, folder: Path) -> None:
    before = result(folder)
    before["metrics"]["eval/gate_closed"] = 0.25
    before["measured"]["parts"]["diagnostics"]["code"] = "older"
    (folder / "result.json").write_text(json.dumps(before))
    after = remeasure(config, folder)
    assert after["metrics"]["eval/gate_closed"] == 0.25
    assert after["measured"]["parts"]["diagnostics"]["code"] == "older"


def test_an_older_table_gets_its_columns_and_keeps_those_of_the_method(
    config: Run, folder: Path
) -> None:
    path = folder / "scores.parquet"
    table = pd.read_parquet(path)
    old = ["split", "id", "prompt", "noise", "image", "sample", "mask", "success"]
    maps = pd.Series([None, *range(len(table) - 1)], dtype=float)
    stale = table[old].assign(success=False, object_rate=7.0, map_overlap=maps, gone=1)
    stale.to_parquet(path, index=False)
    remeasure(config, folder)
    adopt(folder)
    after = pd.read_parquet(path)
    pd.testing.assert_frame_equal(after[table.columns], table)
    pd.testing.assert_series_equal(after.pop("map_overlap"), maps, check_names=False)
    assert [*after] == [*table]


def test_a_result_of_an_earlier_version_learns_what_measured_it(config: Run, folder: Path) -> None:
    before = result(folder)
    del before["measured"], before["code_parts"]
    before["metrics"]["eval/gate_closed"] = 0.25
    (folder / "result.json").write_text(json.dumps(before))
    after = remeasure(config, folder)
    assert after["metrics"] == before["metrics"]
    assert after["measured"]["of"]["fid"] == "distribution"
    assert "diagnostics" not in after["measured"]["parts"], "what measured them is not known"


@pytest.mark.usefixtures("other_code")
@pytest.mark.parametrize("stop", ["write_scores", "write_atomically", "adopt"])
def test_stopped_at_any_moment_there_is_a_whole_result(
    config: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    before = result(folder)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    if stop == "write_scores":
        monkeypatch.setattr("lightning_modules.evaluation.evaluate.write_scores", interrupt)
    elif stop == "write_atomically":  # Between the table and the result
        monkeypatch.setattr(module, "write_atomically", interrupt)
    if stop != "adopt":
        with pytest.raises(KeyboardInterrupt):
            remeasure(config, folder)
        monkeypatch.undo()
        assert adopt(folder) is None and result(folder) == before
        assert pd.read_parquet(folder / "scores.parquet")["image"].notna().all()
        return
    new = remeasure(config, folder)
    write, written = module.write_atomically, []

    def write_one(path: Path, content: bytes) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(path.name)
        write(path, content)

    monkeypatch.setattr(module, "write_atomically", write_one)
    with pytest.raises(KeyboardInterrupt):
        adopt(folder)
    assert len(written) == 1 and written != ["result.json"] and result(folder) == before
    monkeypatch.setattr(module, "write_atomically", write)
    assert adopt(folder) == new == result(folder)


def test_images_that_are_not_kept_are_named(config: Run, folder: Path) -> None:
    table = pd.read_parquet(folder / "scores.parquet")
    table.loc[1, "image"] = "gone/00001.png"
    table.to_parquet(folder / "scores.parquet")
    with pytest.raises(NotKept, match="1 of 9 images not kept .* gone/00001.png"):
        remeasure(config, folder)
    (folder / "scores.parquet").unlink()
    with pytest.raises(NotKept, match="no scores.parquet"):
        remeasure(config, folder)


@pytest.mark.parametrize(("column", "value"), [("noise", 7), ("prompt", "something else")])
def test_images_of_other_prompts_are_not_scored(
    config: Run, folder: Path, column: str, value: Any
) -> None:
    table = pd.read_parquet(folder / "scores.parquet")
    table.loc[2, column] = value
    table.to_parquet(folder / "scores.parquet")
    with pytest.raises(NotKept, match="other prompts or other noise"):
        remeasure(config, folder)


def test_images_of_other_data_are_not_scored(config: Run, folder: Path) -> None:
    before = result(folder)
    key = next(key for key in before["contents"] if key.startswith("backbone.path"))
    before["contents"][key] = "another"
    (folder / "result.json").write_text(json.dumps(before))
    with pytest.raises(NotKept, match="holds something else than when its images were drawn"):
        remeasure(config, folder)


def test_the_command_of_one_run(
    config: Run, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main([str(folder / "run.yaml"), "--remeasure"]) == 0
    assert "success" in capsys.readouterr().out and not (folder / module.PENDING).exists()
    (folder / "scores.parquet").unlink()
    assert train.main([str(folder / "run.yaml"), "--remeasure"]) == 2
    assert "fresh=" in capsys.readouterr().err


# --- inputs that were cut off ---------------------------------------------------------------------


def cut(path: Path, share: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


@pytest.mark.parametrize("share", [0, 0.5, 0.97])
@pytest.mark.parametrize("name", ["result.json", "scores.parquet"])
def test_a_result_that_was_cut_off_is_named_with_the_cure(
    config: Run, folder: Path, name: str, share: float, capsys: pytest.CaptureFixture[str]
) -> None:
    cut(folder / name, share)
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(NotKept, match=f"{folder / name} is damaged"):
        remeasure(config, folder)
    assert train.main([str(folder / "run.yaml"), "--remeasure"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{folder / name} is damaged" in line and "fresh=" in line
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.parametrize("content", ["[]", "{}", '{"metrics": 1}', "null"])
def test_a_result_that_is_another_file_is_named(config: Run, folder: Path, content: str) -> None:
    (folder / "result.json").write_text(content)
    with pytest.raises(NotKept, match="result.json is damaged"):
        remeasure(config, folder)


def test_a_table_without_its_columns_is_named(config: Run, folder: Path) -> None:
    table = pd.read_parquet(folder / "scores.parquet")
    table.drop(columns="noise").to_parquet(folder / "scores.parquet")
    with pytest.raises(NotKept, match="scores.parquet is damaged .*noise"):
        remeasure(config, folder)


@pytest.mark.parametrize("share", [0, 0.5, 0.97])
def test_an_image_that_was_cut_off_is_named_with_the_cure(
    config: Run, folder: Path, tmp_path: Path, share: float, capsys: pytest.CaptureFixture[str]
) -> None:
    output = Path(shutil.copytree(config.output, tmp_path / "runs"))
    own = dataclasses.replace(config, output=str(output))
    name = pd.read_parquet(folder / "scores.parquet")["image"][1]
    path, before = cut(output / "images" / name, share), result(folder)
    with pytest.raises(NotKept, match=f"{path} is damaged"):
        remeasure(own, folder)
    conf.write(own, folder / "run.yaml")
    assert train.main([str(folder / "run.yaml"), "--remeasure"]) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "error" in line)
    assert f"{path} is damaged" in line and "fresh=" in line
    assert result(folder) == before and not (folder / module.PENDING).exists()


@pytest.mark.parametrize("share", [0, 0.3, 0.6, 0.999])
def test_settings_that_were_cut_off_are_no_defaults(
    folder: Path, share: float, capsys: pytest.CaptureFixture[str]
) -> None:
    cut(folder / "run.yaml", share)
    assert train.main([str(folder / "run.yaml"), "--remeasure"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{folder / 'run.yaml'} is damaged" in line and "MLflow" in line


def test_facts_of_the_images_are_not_needed(config: Run, folder: Path, tmp_path: Path) -> None:
    output = Path(shutil.copytree(config.output, tmp_path / "runs"))
    name = pd.read_parquet(folder / "scores.parquet")["image"][0]
    facts = output / "images" / Path(name).parent / "facts.json"
    assert facts.is_file()
    cut(facts, 0.5)
    new = remeasure(dataclasses.replace(config, output=str(output)), folder)
    assert new["metrics"] == result(folder)["metrics"]


@pytest.mark.parametrize("name", ["result.json", "scores.parquet"])
@pytest.mark.parametrize("share", [0, 0.5])
def test_a_new_result_that_was_cut_off_does_not_replace_the_old_one(
    config: Run, folder: Path, name: str, share: float, caplog: pytest.LogCaptureFixture
) -> None:
    before, table = result(folder), (folder / "scores.parquet").read_bytes()
    remeasure(config, folder)
    cut(folder / module.PENDING / name, share)
    assert adopt(folder) is None and result(folder) == before
    assert (folder / "scores.parquet").read_bytes() == table
    assert str(folder / module.PENDING) in caplog.text and not (folder / module.PENDING).exists()
