"""A finished run gets more prompts: the images, numbers and tables of a run of all of them at once,
of which only the new images are drawn."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from conf.prompts import Extent, with_prompts
from conf.schema import Backbone, Data, Evaluation, Gate, Method, Run, Trainer
from lightning_modules.evaluation import evaluate as evaluation
from lightning_modules.methods.maskattn import MaskAttn
from lightning_modules.training import remeasure as module
from lightning_modules.training import run as train
from lightning_modules.training.remeasure import PENDING, adopt, discard, remeasure


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(
        backbone=Backbone(),
        method=Method(name="maskattn", gate=Gate(width=16)),
        data=Data(train_images=16, eval_images=8),
        trainer=Trainer(steps=2, batch=4),
        evaluation=Evaluation(prompts=2, steps=1, keep_images=1, costs=False, batch=2),
        output=str(tmp_path_factory.mktemp("runs")),
    )


@pytest.fixture(scope="module")
def few(config: Run) -> Path:
    """The folder of a run of two prompts."""
    folder = Path(config.output) / "few"
    train.run(config, folder)
    return folder


@pytest.fixture(scope="module")
def at_once(config: Run, few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That of four, from the same adapter, whose images are its own."""
    output = tmp_path_factory.mktemp("other")
    shutil.copytree(Path(config.output) / "adapters", output / "adapters")
    train.run(with_prompts(replace(config, output=str(output)), 4), output / "all")
    return output / "all"


@pytest.fixture
def folder(config: Run, few: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(few, tmp_path / "trial"))


def result(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return content


def test_the_images_and_numbers_are_those_of_all_at_once(
    config: Run, folder: Path, at_once: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, table = result(folder), pd.read_parquet(folder / "scores.parquet")
    drawn: list[list[int]] = []
    generate = MaskAttn.generate

    def count(self: MaskAttn, prompts: list[str], noises: list[int], *more: Any, **named: Any):
        drawn.append(noises)
        return generate(self, prompts, noises, *more, **named)

    monkeypatch.setattr(MaskAttn, "generate", count)
    monkeypatch.setattr(evaluation, "diagnose", lambda *_: pytest.fail("the method is the same"))
    new = train.run(with_prompts(config, 4), folder)
    whole, own = (
        pd.read_parquet(at_once / "scores.parquet"),
        pd.read_parquet(folder / "scores.parquet"),
    )
    added = set(own["noise"]) - set(table["noise"])
    assert sorted(sum(drawn, [])) == sorted(added) and len(added) == 6
    assert set(table["image"]) < set(own["image"]) == set(whole["image"])
    for name in own["image"]:
        one, other = Path(config.output) / "images" / name, at_once.parent / "images" / name
        assert one.read_bytes() == other.read_bytes(), "bit by bit"
    pd.testing.assert_frame_equal(own, whole)
    scored = result(at_once)["measured"]["of"]
    for name in (*scored, "gate_closed", "gate_closed_kind/word"):
        key = f"eval/{name}"
        assert new["metrics"].get(key) == result(at_once)["metrics"].get(key), key
    assert new == result(folder) and not (folder / PENDING).exists()
    assert (before["prompts"], new["prompts"]) == (2, 4)
    assert new["metrics"].keys() >= before["metrics"].keys()
    assert new["measured"]["parts"]["diagnostics"] == before["measured"]["parts"]["diagnostics"]
    assert new["seconds"]["train"] == before["seconds"]["train"] + new["added_seconds"]["train"]
    assert all((folder / sample).is_file() for sample in own["sample"].dropna())
    # And fewer again change nothing: what is there is scored again on what it has
    assert remeasure(config, folder)["metrics"] == new["metrics"]


@pytest.mark.parametrize("stop", ["draw_missing", "write_scores", "rename", "adopt", "discard"])
def test_stopped_at_any_moment_there_is_a_whole_result(
    config: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    before = {path.name: path.read_bytes() for path in folder.glob("*.parquet")}

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if stop == "rename":
            patch.setattr(Path, "rename", interrupt)
        else:
            place: Any = train if stop in ("adopt", "discard") else evaluation
            patch.setattr(place, stop, interrupt)
        with pytest.raises(KeyboardInterrupt):
            train.run(with_prompts(config, 4), folder)
    assert result(folder)["prompts"] == (4 if stop == "discard" else 2)
    if stop != "discard":
        assert before == {path.name: path.read_bytes() for path in folder.glob("*.parquet")}
    assert (adopt(folder) is not None) == (stop in ("adopt", "discard"))
    discard(folder)
    assert train.run(with_prompts(config, 4), folder)["prompts"] == 4
    rows = len(pd.read_parquet(folder / "scores.parquet"))
    assert rows == 12 and result(folder)["prompts"] == 4
    assert not (folder / PENDING).exists() and not (folder / module.DRAFT).exists()


def test_another_method_is_measured_whole(
    config: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(config, evaluate_with={"method.gate.threshold": 0.9})
    looked: list[int] = []
    diagnose = evaluation.diagnose
    monkeypatch.setattr(evaluation, "diagnose", lambda *a: looked.append(1) or diagnose(*a))
    new = train.run(with_prompts(other, 4), folder)
    assert looked and new["prompts"] == 4 and "added_seconds" not in new


def test_what_is_asked_for_and_what_there_is() -> None:
    assert Extent(2).lacks(4) and Extent(2).lacks(None) and not Extent(4).lacks(2)
    assert not Extent(8, every=True).lacks(None) and not Extent(None).lacks(4)
    for extent in (Extent(2), Extent(8, every=True), Extent(None)):
        assert Extent.read(extent.facts) == extent
    older = {"ran": {"sampling": {"prompts": {"val": 5, "heldout": 3}}}}
    assert Extent.read(older) == Extent(5)
    late = Run(evaluate_with={"evaluation.prompts": 3, "evaluation.steps": 2})
    assert with_prompts(late, 3) is late
    assert with_prompts(late, 4).evaluate_with == {"evaluation.steps": 2}
    assert with_prompts(late, 4).evaluation.prompts == 4
