from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from helpers.printed_commands import check_printed

from reports.content import _warn
from reports.provenance import (
    NOT_RECORDED,
    _describe_data,
    code_conflicts,
    code_versions,
    digest_data,
    explain_missing,
    gather_facts,
    provenance_blocks,
)
from reports.results import SweepResults, Trial

FILE = ["captions", "/data/shapes/captions_train.json", 850686, 1795906557086862338]
FACTS = {"root": "/data/shapes", "images": "c5e081b4cfd9e033", "limit": 2048, "files": [FILE]}
TRAIN = {"layout": "coco", "captions": 6885, "count": 2048, "facts": FACTS}
MANIFEST: dict[str, Any] = {"train": TRAIN, "evaluation": {"val": 512}}


def trials(sweep: SweepResults) -> list[Trial]:
    return [trial for _, trial in sweep.trials()]


def test_a_data_digest_knows_no_folder_and_no_time() -> None:
    moved = copy.deepcopy(MANIFEST)
    file = ["captions", "C:\\elsewhere\\captions_train.json", 850686, 1795906557086862999]
    moved["train"]["facts"] |= {"root": "C:\\elsewhere", "images": "00", "files": [file]}
    assert digest_data(moved) == digest_data(MANIFEST)
    for part, value in (("captions", 6886), ("layout", "flickr")):
        other = copy.deepcopy(MANIFEST)
        other["train"][part] = value
        assert digest_data(other) != digest_data(MANIFEST)
    other = copy.deepcopy(MANIFEST)
    other["train"]["facts"]["files"][0][2] += 1  # A file of another size
    assert digest_data(other) != digest_data(MANIFEST)


def test_notes_on_the_data_are_reported(tmp_path: Path) -> None:
    made = "split 'train': captions are made of the names of the objects"
    path = tmp_path / "data.json"
    path.write_text(json.dumps(MANIFEST | {"notes": [made]}))
    stored: Any = SimpleNamespace(read=lambda trial, name, read: read(path))
    assert f"note: {made}" in _describe_data(stored, [object()]).splitlines()  # type: ignore[list-item]


def test_what_was_recorded_is_reported(results: Any) -> None:
    facts = gather_facts(results("threshold"))
    assert facts["Commit"] == "0123456789abcdef, without uncommitted changes"
    assert facts["Code"] == "not recorded"
    assert "environment.txt of each run; SHA-256 " in facts["Packages"]
    lines = facts["Data"].splitlines()
    assert lines[:2] == ["train: 2048 samples", "val: layout coco, split val, 1720 captions"]
    assert lines[2].startswith("digest ")
    blocks = provenance_blocks(results("threshold"))
    pairs = dict(next(block["pairs"] for block in blocks if block["kind"] == "pairs"))
    assert "run.yaml" not in pairs["Files of a run"]
    assert "scores.parquet (a row an image" in pairs["Files of a run"]
    check_printed(pairs["MLflow"])
    assert "python -m reports threshold" in pairs["MLflow"] and " UTC" in pairs["Time"]
    assert pairs["Counts"] == "trained parameters 123456"
    runs = next(block for block in blocks if block["kind"] == "table")
    ids = {trial.run_id for _, trial in results("threshold").trials()}
    assert len(ids) == 18 and ids == {row[2] for row in runs["rows"]}


def test_uncommitted_changes_and_several_versions_of_the_code_are_named(results: Any) -> None:
    broken = results("broken")
    commit = gather_facts(broken)["Commit"]
    assert "with uncommitted changes (changes.diff of each run has them; SHA-256 " in commit
    assert code_conflicts(trials(broken)) == {"all": "c0ffee00 / 0b501e7e"}
    assert code_conflicts(trials(results("threshold"))) == {}
    assert code_versions(trials(results("threshold"))) == {"all": "0123456789ab"}
    runs = next(block for block in provenance_blocks(broken) if block["kind"] == "table")
    assert runs["columns"] == ["Cell", "Seed", "Code", "Run id", "Minutes"]
    codes = {(row[0], row[2]) for row in runs["rows"]}
    assert codes >= {("0.6", "0b501e7e"), ("0.5", "c0ffee00")}
    assert "threshold=0.6, seed 2: failed" in explain_missing(broken)


def test_what_the_plan_leaves_out_is_named(results: Any) -> None:
    blocks = provenance_blocks(results("plane"))
    pairs = dict(next(block["pairs"] for block in blocks if block["kind"] == "pairs"))
    assert pairs["Factors"].endswith("; not combined: bias=4.0 with keep=0.75")


def test_what_ran_stands_beside_what_was_asked_for(changeable: Any) -> None:
    threshold = changeable("threshold")
    older = gather_facts(threshold)
    assert older["Training"] == older["Not as asked"] == NOT_RECORDED
    trials = [trial for _, trial in threshold.trials()]
    for trial in trials:
        trial.ran = {"training": {"precision": "bf16-mixed", "peak_lr": [0.002]}, "sampling": {}}
    assert gather_facts(threshold)["Not as asked"] == "nothing"
    trials[0].ran["differs"] = {"trainer.precision": "asked 16-mixed, ran bf16-mixed"}
    facts = gather_facts(threshold)
    assert facts["Training"] == "precision bf16-mixed; peak lr 0.002"
    said = f"trainer.precision asked 16-mixed, ran bf16-mixed (1 of {len(trials)} trials)"
    assert facts["Not as asked"] == said and said in _warn(threshold)
