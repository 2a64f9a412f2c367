"""What may go of an output: old images, adapters and caches, and nothing that a report rests on."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pandas as pd
import pytest

from sweeps.__main__ import main
from sweeps.engine.locks import DriverLock
from sweeps.engine.prune import find_cited, read_age

OLD = time.time() - 40 * 24 * 3600


def put(path: Path, content: str = "x" * 1000, old: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    if old:
        for one in (path, path.parent):
            os.utime(one, (OLD, OLD))


def trial(folder: Path, images: list[str] | None) -> None:
    put(folder / "result.json", json.dumps({"metrics": {}}))
    if images is not None:
        pd.DataFrame({"image": images}).to_parquet(folder / "scores.parquet")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Two adapters with images: of a sweep with a report, and of one without."""
    folder = tmp_path / "runs"
    for sweep, key in (("reported", "a"), ("other", "b")):
        trial(folder / sweep / "trials" / "t-seed0", [f"{key}1/0.png", f"{key}1/1.png"])
        put(folder / "images" / f"{key}1" / "0.png")
        put(folder / "images" / f"{key}1" / "facts.json", json.dumps({"training": f"{key}2"}))
        put(folder / "adapters" / f"{key}2" / "adapter.safetensors")
    put(folder / "images" / "b1.jsonl")
    put(folder / "reported" / "report.json", "{}")
    put(folder / "images" / "new" / "0.png", old=False)
    put(folder / "cache" / "latents" / "c" / "0.bin")
    put(folder / "cache" / "locks" / "b2.lock")
    put(folder / "cache" / "contents.db")
    return folder


def names(output: Path) -> set[str]:
    places = ("images", "adapters", "cache/latents", "cache/locks")
    return {path.name for place in places for path in (output / place).iterdir()}


def test_sizes_are_shown_before_and_what_is_cited_stays(
    output: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["prune", "--older", "30d", "--keep-cited", f"output={output}"]
    before = names(output)
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "images: 1 folder, " in printed and "cache of latents: 1 folder" in printed
    assert "cited by a report, kept: 2 folders" in printed and "add --yes" in printed
    assert names(output) == before
    assert main([*words, "--yes"]) == 0
    assert names(output) == {"a1", "a2", "new", "b2.lock"}
    assert "removed" in capsys.readouterr().out
    assert (output / "other" / "trials" / "t-seed0" / "result.json").exists()
    assert (output / "cache" / "contents.db").exists()


def test_without_the_flag_all_that_is_old_goes(output: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["prune", "--older=5w", "--yes", "--json", f"output={output}"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    kinds = {event["kind"]: event["folders"] for event in told if event["event"] == "kind"}
    assert kinds == {"images": 2, "adapters": 2, "cache of latents": 1}
    assert told[-1] == {"event": "end", "status": 0}
    assert names(output) == {"new", "b2.lock"}
    assert main(["prune", "--older=5w", "--yes", f"output={output}"]) == 0
    assert "nothing in" in capsys.readouterr().out


def test_adapters_stay_where_no_image_says_which_it_was(output: Path) -> None:
    trial(output / "reported" / "trials" / "t-seed1", None)
    cited, why = find_cited(output)
    assert "t-seed1" in why and output / "adapters" / "a2" in cited
    assert main(["prune", "--older=30d", "--yes", "--keep-cited", f"output={output}"]) == 0
    assert names(output) == {"a1", "a2", "b2", "new", "b2.lock"}


def test_links_and_what_others_use_are_left_alone(output: Path, tmp_path: Path) -> None:
    put(tmp_path / "elsewhere" / "precious")
    (output / "images" / "link").symlink_to(tmp_path / "elsewhere")
    (output / "adapters" / "b2").rename(
        output / "adapters" / ".pruned-b2"
    )  # By one that was killed
    assert main(["prune", "--older=30d", "--yes", f"output={output}"]) == 0
    assert names(output) == {"new", "link", "b2.lock"}
    assert (tmp_path / "elsewhere" / "precious").exists()


def test_a_sweep_that_runs_keeps_all(output: Path, capsys: pytest.CaptureFixture) -> None:
    before, lock = names(output), DriverLock(output / "other")
    try:
        assert main(["prune", "--older=30d", "--yes", f"output={output}"]) == 2
    finally:
        lock.release()
    assert f"process {os.getpid()}" in capsys.readouterr().err and names(output) == before


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "say for example --older 30d"),
        (["--older", "30"], "--older 30: expected a number and h, d or w"),
        (["--older"], "expected a number and h, d or w"),
        (["--older=1d", "--keep-cite"], "did you mean --keep-cited?"),
        (["--older=1d", "output=/nowhere/at/all"], "there is no such folder"),
    ],
)
def test_wrong_words(words: list[str], expected: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["prune", *words]) == 2 and expected in capsys.readouterr().err


def test_ages() -> None:
    assert [read_age(text) for text in ("12h", "1.5d", "2w")] == [43200, 129600, 1209600]
