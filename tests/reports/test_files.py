"""Reports on a disk that is full, and of a store whose files were cut off."""

from __future__ import annotations

import copy
import itertools
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlparse

import pytest
from helpers.full_disk import file_size_limit, snapshot
from helpers.stored_sweeps import MemoryClient

from reports import collect as collect_module
from reports.collect import collect
from reports.compare import write_comparison
from reports.content import _warn
from reports.files import DRAFT, FullDisk, drafting, publish
from reports.overview import write_overview
from reports.provenance import explain_missing
from reports.report import attach_report, read_answer, write_report
from reports.results import ReportError, SweepResults
from reports.user_study.page import StudyPage, write_page
from reports.user_study.pairs import fetch_pairs, list_pairs

MEMORY = "memory:"


@pytest.fixture
def stored(memory: MemoryClient, tmp_path: Path) -> Iterator[MemoryClient]:
    """The stored sweeps with files of their own, which a test may cut off."""
    other = copy.deepcopy(memory)
    for run in other.runs.values():
        folder = local(run.info.artifact_uri)
        if folder.is_dir() and folder != Path("/nowhere"):
            own = tmp_path / "store" / run.info.run_id
            shutil.copytree(folder, own)
            run.info.artifact_uri = own.as_uri()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collect_module, "connect", lambda uri: other)
        yield other


def local(uri: str) -> Path:
    return Path(unquote(urlparse(uri).path))


def folder_of(results: SweepResults, cell: str, seed: int) -> Path:
    trial = next(t for c, t in results.trials() if c.label == cell and t.seed == seed)
    return local(trial.artifacts)


def cut(path: Path, share: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


# --- a full disk ----------------------------------------------------------------------------------


def write_one(folder: Path) -> None:
    write_report(MEMORY, "threshold", folder)


def write_all(folder: Path) -> None:
    write_overview(MEMORY, folder)


def write_both(folder: Path) -> None:
    write_comparison((("threshold", "a", MEMORY), ("broken", "b", MEMORY)), folder)


def write_study(folder: Path) -> None:
    write_page(StudyPage("<html>" + 9999 * " ", {"study": "one"}), folder / "study.html")


@pytest.mark.usefixtures("coarse", "memory")
@pytest.mark.parametrize(
    "write",
    [
        write_one,
        write_study,
        pytest.param(write_all, marks=pytest.mark.slow),
        pytest.param(write_both, marks=pytest.mark.slow),
    ],
)
def test_a_full_disk_is_named_and_leaves_the_last_report(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    write(folder)
    before = snapshot(tmp_path)
    for limit in (0, 5000):  # At the first file, and at one in the middle
        with file_size_limit(limit), pytest.raises(FullDisk) as caught:
            write(folder)
        line = str(caught.value)
        assert str(folder) in line or "report-" in line
        assert "cannot be written: no space left" in line and "\n" not in line and DRAFT not in line
        assert snapshot(tmp_path) == before
    write(folder)


def test_a_report_replaces_all_files_of_the_last_and_leaves_others(tmp_path: Path) -> None:
    for version in ("1", "2"):
        with drafting(tmp_path / "out") as draft:
            (draft / "figures").mkdir()
            (draft / "figures" / f"{version}.png").write_text(version)
            (draft / "report.pdf").write_text(version)
            publish(draft, ["figures", "report.pdf"])
        (tmp_path / "out" / "mine").write_text("mine")
    files = {"figures/2.png": b"2", "report.pdf": b"2", "mine": b"mine"}
    assert snapshot(tmp_path / "out") == files
    with pytest.raises(KeyError), drafting(tmp_path / "new"):
        raise KeyError
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("content", [None, "", '{"answer"', "[]", "{}"])
def test_an_answer_that_was_cut_off_is_none(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    assert read_answer(tmp_path) is None
    (tmp_path / "report.json").write_text('{"answer": "It does."}')
    assert read_answer(tmp_path) == "It does."


def test_a_store_without_room_is_named(
    memory: MemoryClient, quick_report: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def copy_there(run: str, path: str) -> None:
        shutil.copy2(path, tmp_path / Path(path).name)

    run = SimpleNamespace(info=SimpleNamespace(run_id="r", start_time=0))
    client = SimpleNamespace(
        get_experiment_by_name=lambda name: SimpleNamespace(experiment_id="1"),
        search_runs=lambda *_, **__: [run],
        log_artifact=copy_there,
    )
    monkeypatch.setattr("reports.report.connect", lambda uri: client)
    with file_size_limit(10), pytest.raises(FullDisk, match="cannot be written: no space left"):
        attach_report("sqlite:////store/mlflow.db", "threshold", quick_report("threshold"))


# --- files that were cut off ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["scores.parquet", "result.json"])
@pytest.mark.parametrize("share", [0, 0.5, 0.98])
def test_a_trial_whose_table_was_cut_off_is_left_out_and_named(
    stored: MemoryClient, name: str, share: float
) -> None:
    folder = folder_of(collect(MEMORY, "threshold"), "0.6", 1)
    cut(folder / name, share)
    results = collect(MEMORY, "threshold")
    cell = next(cell for cell in results.cells if cell.label == "0.6")
    assert 1 not in cell.trials and len(cell.trials) == len(results.seeds) - 1
    reason = cell.unfinished[1]
    assert reason.startswith(f"left out: {folder.as_uri()}/{name} is damaged (")
    assert f"delete run {folder.name} in MLflow" in reason and "\n" not in reason
    assert reason in explain_missing(results) and "1 of " in _warn(results)


def test_a_sweep_of_which_nothing_can_be_read_says_why(stored: MemoryClient) -> None:
    for _, trial in collect(MEMORY, "threshold").trials():
        cut(local(trial.artifacts) / "result.json")
    with pytest.raises(ReportError, match="nothing of 'threshold' can be shown: left out: .*damag"):
        collect(MEMORY, "threshold")


@pytest.mark.usefixtures("coarse")
def test_pictures_and_notes_that_were_cut_off_are_left_out_and_named(
    stored: MemoryClient, tmp_path: Path, words_of: Any
) -> None:
    results = collect(MEMORY, "threshold")
    names = []
    for _, trial in results.trials():
        folder = local(trial.artifacts)
        wanted = ("samples/*.png", "gates.png", "data.json")
        for path in itertools.chain.from_iterable(map(folder.glob, wanted)):
            cut(path)
            names.append(f"{folder.as_uri()}/{path.relative_to(folder)}")
    assert names
    write_report(MEMORY, "threshold", tmp_path / "out")
    words = words_of(tmp_path / "out" / "report.json")
    assert "damaged files of the store: see “What is missing”" in words
    assert sum(f"{name} is damaged (" in words for name in names) > 1
    assert not (tmp_path / "out" / "figures" / "gates.png").exists()
    assert json.loads((tmp_path / "out" / "report.json").read_text())["answer"]


def test_a_study_of_a_picture_that_was_cut_off_is_refused(stored: MemoryClient) -> None:
    results = collect(MEMORY, "threshold")
    one, other = results.levels[:2]
    pairs = list_pairs(one, other)[:1]
    trial = one.trials[pairs[0].seed]
    cut(local(trial.artifacts) / pairs[0].images[0])
    with pytest.raises(ReportError, match=f"is damaged .*delete run {trial.run_id}"):
        list(fetch_pairs(results, one, other, pairs))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
def test_a_folder_that_takes_no_files_is_one_line() -> None:
    with (
        pytest.raises(ReportError, match="/proc/x cannot be written to.*expected a folder"),
        drafting(Path("/proc/x")),
    ):
        pass
