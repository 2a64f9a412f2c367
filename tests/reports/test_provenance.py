from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from reports.provenance import codes, data_digest, facts_of, missing, provenance

MANIFEST = {
    "train": {
        "layout": "coco", "captions": 6885, "count": 2048,
        "facts": {
            "root": "/data/shapes", "images": "c5e081b4cfd9e033", "limit": 2048,
            "files": [["captions", "/data/shapes/captions_train.json", 850686, 1795906557086862338]],
        },
    },
    "evaluation": {"val": 512},
}  # fmt: skip


def test_a_data_digest_knows_no_folder_and_no_time() -> None:
    moved = copy.deepcopy(MANIFEST)
    moved["train"]["facts"] |= {
        "root": "C:\\elsewhere",
        "images": "00",
        "files": [["captions", "C:\\elsewhere\\captions_train.json", 850686, 1795906557086862999]],
    }
    assert data_digest(moved) == data_digest(MANIFEST)
    for part, value in (("captions", 6886), ("layout", "flickr")):
        other = copy.deepcopy(MANIFEST)
        other["train"][part] = value
        assert data_digest(other) != data_digest(MANIFEST)
    other = copy.deepcopy(MANIFEST)
    other["train"]["facts"]["files"][0][2] += 1  # a file of another size
    assert data_digest(other) != data_digest(MANIFEST)


def test_what_was_recorded_is_said(study: Callable[[str], Any]) -> None:
    facts = facts_of(study("threshold"))
    assert (
        facts["Commit"] == "0123456789abcdef, without uncommitted changes"
        and facts["Code"] == "not recorded"
    )
    assert facts["Packages"].startswith("all of them in environment.txt of each run; SHA-256 ")
    lines = facts["Data"].splitlines()
    assert lines[:2] == [
        "train: 2048 samples",
        "val: layout coco, split val, 1720 captions",
    ] and lines[2].startswith("digest ")
    pairs = dict(
        next(block["pairs"] for block in provenance(study("threshold")) if block["kind"] == "pairs")
    )
    assert (
        "run.yaml" not in pairs["Files of a run"]
        and "scores.parquet (a row an image" in pairs["Files of a run"]
    )
    assert (
        "python -m reports threshold makes this report again" in pairs["MLflow"]
        and " UTC" in pairs["Time"]
    )


def test_uncommitted_changes_and_several_versions_of_the_code_are_said(
    study: Callable[[str], Any],
) -> None:
    broken = study("broken")
    assert (
        "with uncommitted changes (changes.diff of each run has them; SHA-256 "
        in facts_of(broken)["Commit"]
    )
    assert codes(broken) == ["c0ffee00", "0b501e7e"] and codes(study("threshold")) == [
        "0123456789abcdef"
    ]
    runs = next(block for block in provenance(broken) if block["kind"] == "table")
    assert runs["columns"] == ["Cell", "Seed", "Code", "Run id", "Minutes"]
    assert {(row[0], row[2]) for row in runs["rows"]} >= {("0.6", "0b501e7e"), ("0.5", "c0ffee00")}
    assert "threshold=0.6, seed 2: failed" in missing(broken)
