"""An archive of a report: it holds elsewhere, and what was changed in it is found."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas as pd
import pytest
from helpers.stored_sweeps import MemoryClient, StoredSweep, noisy, store

from reports import collect
from reports.report import write_report
from sweeps.__main__ import main
from sweeps.engine.evidence import EvidenceError, verify, write_bundle
from sweeps.sweep import trial_folder

NAME, MEMORY = "pair", "memory:"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An output with a report, its trials as they left their folders; MLflow is in memory."""
    output, client = tmp_path_factory.mktemp("evidence") / "runs", MemoryClient()
    output.mkdir()
    real = collect.connect
    trained = {"images": True, "trained": lambda level, seed: level is not None}
    sweep = StoredSweep(NAME, noisy(0.004, {0.6: 0.1}), levels=(0.5, 0.6), seeds=2, **trained)
    store(client, sweep, output / "artifacts")
    seeds = [run for run in client.runs.values() if run.data.tags["role"] == "seed"]
    for run in seeds:
        parent = client.runs[run.data.tags["mlflow.parentRunId"]]
        cell, seed = parent.data.tags["cell"], int(run.data.params["seed"])
        own = output / NAME / "trials" / trial_folder(cell, seed)
        shutil.copytree(unquote(run.info.artifact_uri.removeprefix("file://")), own)
        (own / "log.txt").write_text("/home/somebody")
        path = own / "result.json"
        result = json.loads(path.read_text()) if path.exists() else {}
        result["metrics"] = {k: v for k, v in run.data.metrics.items() if k.startswith("eval/")}
        path.write_text(json.dumps(result))
        table = pd.read_parquet(own / "scores.parquet")
        table["image"] = [f"abc/{seed}-{number}.png" for number in range(len(table))]
        table.to_parquet(own / "scores.parquet")
    (output / "images" / "abc").mkdir(parents=True)
    (output / "images" / "abc" / "0-0.png").write_bytes(b"an image")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collect, "connect", lambda uri: client if uri == MEMORY else real(uri))
        write_report(MEMORY, NAME, output / NAME)
        assert main(["bundle", NAME, f"output={output}", f"tracking_uri={MEMORY}"]) == 0
        yield output


@pytest.fixture(scope="module")
def bundle(made: Path) -> Path:
    return made / f"{NAME}.bundle.zip"


def change(bundle: Path, place: Path, edit: Callable[[dict[str, bytes]], None]) -> Path:
    """A copy of the archive whose members were edited."""
    with zipfile.ZipFile(bundle) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    edit(members)
    with zipfile.ZipFile(place, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return place


def test_it_holds_without_the_output(
    made: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    alone = tmp_path / "alone.zip"
    shutil.copy(bundle, alone)
    assert main(["verify", str(alone)]) == 0
    printed = capsys.readouterr().out
    assert "it holds" in printed and "1 image not looked at" in printed
    with zipfile.ZipFile(alone) as archive:
        names = archive.namelist()
        manifest = json.loads(archive.read("manifest.json"))
        everything = b"".join(archive.read(name) for name in names)
        sums = archive.read("images.sha256").decode()
    assert {"report/report.pdf", "experiment.json", "report/answer.json"} <= {*names}
    assert {*manifest["files"]} == {*names} - {"manifest.json"}
    assert sums == f"{hashlib.sha256(b'an image').hexdigest()}  abc/0-0.png\n"
    assert b"/home/somebody" not in everything and manifest["trials"] == 6


def test_the_same_output_is_the_same_archive(made: Path, bundle: Path, tmp_path: Path) -> None:
    write_bundle(made, NAME, MEMORY, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == bundle.read_bytes()


def test_a_changed_file_is_named(bundle: Path, tmp_path: Path, capsys: Any) -> None:
    def edit(members: dict[str, bytes]) -> None:
        members["report/report.csv"] += b"1,2\n"
        members["trials/extra.txt"] = b""
        del members["report/report.md"]

    assert main(["verify", str(change(bundle, tmp_path / "b.zip", edit))]) == 1
    printed = capsys.readouterr().out
    assert "differs: report/report.csv has SHA-256" in printed and "it does not hold" in printed
    assert "report/report.md is missing" in printed and "trials/extra.txt is not in" in printed


def test_a_number_that_its_trials_do_not_give_is_found(bundle: Path, tmp_path: Path) -> None:
    """The manifest goes with it, as whoever forges an archive would write it."""

    def edit(members: dict[str, bytes]) -> None:
        experiment = json.loads(members["experiment.json"])
        run = next(run for run in experiment["runs"] if "files" in run)
        run["metrics"]["eval/success"] += 0.25
        members["experiment.json"] = json.dumps(experiment).encode()
        manifest = json.loads(members["manifest.json"])
        digest = hashlib.sha256(members["experiment.json"]).hexdigest()
        manifest["files"]["experiment.json"]["sha256"] = digest
        members["manifest.json"] = json.dumps(manifest).encode()

    wrong, _ = verify(change(bundle, tmp_path / "b.zip", edit))
    text = "\n".join(wrong)
    assert "eval/success is" in text and "report.csv, made again: line" in text
    assert "report.json, made again" in text and "answer.json, made again" in text


def test_an_image_that_was_replaced_is_found(made: Path, bundle: Path) -> None:
    image = made / "images" / "abc" / "0-0.png"
    image.write_bytes(b"another")
    try:
        wrong, notes = verify(bundle, made)
    finally:
        image.write_bytes(b"an image")
    assert wrong == [f"{image} is another image"]
    assert notes[-1] == f"1 image in {image.parents[1]} looked at, 0 not there"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"text"])
def test_another_file_is_one_error(content: bytes, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "b.zip").write_bytes(content)
    assert main(["verify", str(tmp_path / "b.zip")]) == 2
    error = capsys.readouterr().err
    assert "no archive of python -m sweeps bundle" in error and error.count("\n") == 1


def test_names_that_lead_outside_are_refused(bundle: Path, tmp_path: Path) -> None:
    def edit(members: dict[str, bytes]) -> None:
        manifest = json.loads(members["manifest.json"])
        manifest["files"]["../outside"] = {"sha256": "0", "bytes": 0}
        members["manifest.json"] = json.dumps(manifest).encode()
        members["../outside"] = b"x"

    with pytest.raises(EvidenceError, match="outside.*no name of a file inside"):
        verify(change(bundle, tmp_path / "b.zip", edit))
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["bundle", "nothing"], "run the sweep to its end first"),
        (["bundle"], "expected one name, got nothing"),
        (["bundle", NAME, "outptu=x"], "did you mean output?"),
        (["verify", "missing.zip"], "missing.zip: there is no such file"),
    ],
)
def test_wrong_words(words: list[str], expected: str, capsys: pytest.CaptureFixture) -> None:
    assert main(words) == 2 and expected in capsys.readouterr().err


def test_a_trial_without_its_result_is_named(made: Path, tmp_path: Path, capsys: Any) -> None:
    (path,) = list((made / NAME / "trials").glob("threshold=0.6-seed1/result.json"))
    content = path.read_bytes()
    path.unlink()
    try:
        assert (
            main(
                [
                    "bundle",
                    NAME,
                    f"output={made}",
                    f"to={tmp_path / 'b.zip'}",
                    f"tracking_uri={MEMORY}",
                ]
            )
            == 2
        )
    finally:
        path.write_bytes(content)
    assert "threshold=0.6-seed1 has no result.json" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
