from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reports.overview import Line, line_of, summary_csv, summary_table, write_all
from reports.statistics import mean_interval
from reports.study import Metric, ReportError
from reports.tables import entries


@pytest.fixture(scope="module")
def lines(study: Callable[[str], Any]) -> dict[str, Line]:
    return {
        name: line_of(study(name), entries(study(name)))
        for name in ("clear", "same", "broken", "threshold")
    }


def test_a_line_has_the_largest_difference_with_the_interval_that_the_answer_goes_by(
    lines: dict[str, Line], study: Callable[[str], Any]
) -> None:
    clear = lines["clear"]
    entry = next(e for e in entries(study("clear")) if e.cell.label == "soft")
    assert (clear.at, clear.base_words, clear.effect, clear.answer) == (
        "soft",
        "hard",
        entry.wide,
        "worse: soft",
    )
    assert clear.whole and (clear.finished, clear.planned, clear.seeds) == (12, 12, 3)
    assert (
        lines["same"].answer == "changes nothing at all"
        and lines["threshold"].answer == "no level differs by more than its interval"
    )
    assert not lines["broken"].whole and (lines["broken"].finished, lines["broken"].planned) == (
        9,
        12,
    )


def test_the_table_and_its_csv_say_the_same(lines: dict[str, Line]) -> None:
    nothing = Line("unstarted", "Does it matter?", "nothing finished yet", 0, 12)
    table = summary_table([*lines.values(), nothing])
    read = list(csv.DictReader(io.StringIO(summary_csv([*lines.values(), nothing]))))
    for row, shown in zip(read, table.rows, strict=True):
        assert (row["sweep"], row["answer"], f"{row['finished']} of {row['planned']}") == (
            shown[0],
            shown[4],
            shown[6],
        )
        if row["difference"]:
            assert shown[3].startswith(
                f"{float(row['difference']):+.3f}".replace("-", "−").replace("+0.000", "0.000")
            )
            assert shown[3].endswith(f"at {row['largest_at']}")
    assert table.rows[-1] == [
        "unstarted",
        "Does it matter?",
        "–",
        "–",
        "nothing finished yet",
        "–",
        "0 of 12",
    ]
    assert (
        table.marks == {2: "reference", 4: "reference"} and "In italics: not finished" in table.note
    )


def test_one_seed_is_shown_without_an_interval() -> None:
    metric, base, effect = (
        Metric("s", "S", "higher", ""),
        mean_interval([0.5]),
        mean_interval([0.1]),
    )
    alone = Line("one", "?", "one seed cannot tell", 2, 2, 1, metric, 3, base, "a", effect)
    assert summary_table([alone]).rows[0][3] == "+0.100\n–\nat "
    assert next(csv.DictReader(io.StringIO(summary_csv([alone]))))["difference_low_widened"] == ""


@pytest.fixture(scope="module")
def written(uri: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("all")
    assert write_all(uri, folder) == folder / "all.pdf"
    return folder


def test_all_sweeps_stand_in_one_pdf(written: Path, text_of: Callable[[Path], str]) -> None:
    assert {path.name for path in written.iterdir()} == {"all.pdf", "all.csv", "all.md", "all.tex"}
    pages = text_of(written / "all.pdf").split("\f")
    first = " ".join(pages[0].split())
    assert (
        "Not finished: broken (9 of 12 trials)" in first
        and "unstarted: nothing finished yet" in first
    )
    total = len(pages) - 1
    for name in (
        "threshold",
        "clear",
        "same",
        "eight",
        "grid",
        "broken (unfinished: 9 of 12 trials)",
    ):
        line = next(line for line in pages[0].splitlines() if line.strip().startswith(name))
        number = int(line.split(".")[-1].strip(" \u2060"))
        assert (
            name.split()[0] in pages[number - 1].split()[:20]
            and f"{number} / {total}" in pages[number - 1]
        )
    flat = " ".join(pages[1].split())
    assert (
        "0 of 12" in flat
        and "nothing finished yet" in flat
        and "Sweeps are not adjusted for each other" in flat
    )
    assert "Provenance" in pages[-3] + pages[-2]


def test_the_same_content_gives_the_same_bytes(uri: str, written: Path, tmp_path: Path) -> None:
    write_all(uri, tmp_path)
    assert [
        path.name
        for path in written.iterdir()
        if path.read_bytes() != (tmp_path / path.name).read_bytes()
    ] == []


def test_markdown_and_latex_have_every_sweep(written: Path) -> None:
    for form in ("md", "tex"):
        text = (written / f"all.{form}").read_text(encoding="utf-8")
        assert all(name in text for name in ("threshold", "unstarted", "nothing finished yet"))


def test_nothing_to_report_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    from reports import overview

    monkeypatch.setattr(overview, "sweeps", lambda uri: {"unstarted": "?"})
    with pytest.raises(
        ReportError, match="none of 1 sweeps has finished a trial at .*python -m sweeps"
    ):
        write_all(uri, tmp_path)
    assert not list(tmp_path.iterdir())
