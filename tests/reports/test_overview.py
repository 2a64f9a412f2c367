from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from reports import overview, typeset
from reports.overview import (
    SweepSummary,
    summarize_sweep,
    summary_csv,
    summary_table,
    write_overview,
)
from reports.results import ReportedMetric, ReportError
from reports.statistics import mean_interval

MEMORY = "memory:"
NOTHING = SweepSummary("unstarted", "Does it matter?", "nothing finished yet", 0, 12)


@pytest.fixture(scope="module")
def lines(results: Any, entries: Any) -> dict[str, SweepSummary]:
    names = ("clear", "same", "broken", "threshold")
    return {name: summarize_sweep(results(name), entries(name)) for name in names}


def test_a_line_has_the_largest_difference_with_the_interval_of_the_answer(
    lines: dict[str, SweepSummary], entries: Any
) -> None:
    clear = lines["clear"]
    entry = next(e for e in entries("clear") if e.cell.label == "soft")
    assert (clear.at, clear.control_label, clear.effect) == ("soft", "hard", entry.wide)
    assert clear.complete and (clear.finished, clear.planned, clear.seeds) == (12, 12, 3)
    assert clear.answer == "worse: soft; no difference that matters: top_k"
    assert lines["same"].answer == "changes nothing at all"
    broken = lines["broken"]
    assert not broken.complete and (broken.finished, broken.planned) == (9, 12)


def test_the_table_and_its_csv_agree(lines: dict[str, SweepSummary]) -> None:
    table = summary_table([*lines.values(), NOTHING])
    rows = list(csv.DictReader(io.StringIO(summary_csv([*lines.values(), NOTHING]))))
    for row, shown in zip(rows, table.rows, strict=True):
        trials = f"{row['finished']} of {row['planned']}"
        answer = shown[4].partition("\nConclusive: ")
        assert (row["sweep"], row["answer"], trials) == (shown[0], answer[0], shown[6])
        assert row["conclusive"] == answer[2]
        if row["difference"]:
            difference = f"{float(row['difference']):+.3f}".replace("-", "−")
            assert shown[3].startswith(difference.replace("+0.000", "0.000"))
            assert shown[3].endswith(f"at {row['largest_at']}")
    question = ["unstarted", "Does it matter?"]
    assert table.rows[-1] == [*question, "–", "–", "nothing finished yet", "–", "0 of 12"]
    assert set(table.marks) == {2, 4} and "not finished" in table.note


def test_one_seed_is_shown_without_an_interval() -> None:
    metric = ReportedMetric("s", "S", "higher", "")
    control, effect = mean_interval([0.5]), mean_interval([0.1])
    alone = SweepSummary("one", "?", "", 2, 2, 1, metric, 3, control, "a", effect)
    assert summary_table([alone]).rows[0][3] == "+0.100\n–\nat "
    row = next(csv.DictReader(io.StringIO(summary_csv([alone]))))
    assert row["difference_low_widened"] == ""


@pytest.mark.usefixtures("memory", "coarse")
def test_all_sweeps_stand_in_one_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set; the PDF itself is made by a slow test."""
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr(typeset, "typeset", lambda root, content: shown.append(content) or b"%PDF")
    names = ("clear", "broken", "unstarted", "lost")
    monkeypatch.setattr(overview, "list_sweeps", lambda uri: dict.fromkeys(names, "Why?"))
    assert write_overview(MEMORY, tmp_path) == tmp_path / "all.pdf"
    assert {path.name for path in tmp_path.iterdir()} == {
        f"all.{form}" for form in ("pdf", "csv", "md", "tex")
    }
    [content] = shown
    entries = [part["entry"] for part in content["parts"]]
    assert entries == ["clear", "broken (unfinished: 9 of 12 trials)"]
    assert content["parts"][1]["front"][0]["file"] == "broken/forest.svg"
    assert "Not finished: broken (9 of 12 trials)" in content["warning"]
    assert "unstarted: nothing finished yet" in content["warning"]
    assert "lost: no report: no sweep 'lost'" in content["warning"]
    for form in ("md", "tex"):
        text = (tmp_path / f"all.{form}").read_text(encoding="utf-8")
        assert all(name in text for name in names)


@pytest.mark.slow
@pytest.mark.usefixtures("memory")
def test_the_pdf_has_contents_and_every_report(tmp_path: Path, text_of: Any) -> None:
    first, again = (write_overview(MEMORY, tmp_path / name) for name in ("a", "b"))
    for path in first.parent.iterdir():
        assert path.read_bytes() == (again.parent / path.name).read_bytes(), path.name
    pages = text_of(first).split("\f")
    for name in ("threshold", "clear", "grid", "broken (unfinished: 9 of 12 trials)"):
        line = next(line for line in pages[0].splitlines() if line.strip().startswith(name))
        number = int(line.split(".")[-1].strip(" \u2060"))
        assert name.split()[0] in pages[number - 1].split()[:20]
    assert "Sweeps are not adjusted for each other" in " ".join(pages[1].split())


@pytest.mark.usefixtures("memory")
def test_nothing_to_report_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "list_sweeps", lambda uri: {"unstarted": "?"})
    with pytest.raises(ReportError, match="none of 1 sweep has finished a trial at .*python -m"):
        write_overview(MEMORY, tmp_path)
    assert not list(tmp_path.iterdir())
