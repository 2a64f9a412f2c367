from __future__ import annotations

import csv
import dataclasses
import io
import math
import re
from typing import Any

import pytest
from helpers.stored_sweeps import MemoryClient
from scipy import stats

from reports import prose
from reports.export import escape_latex, escape_markdown, to_csv, to_latex, to_markdown, write_csv
from reports.results import ReportedMetric
from reports.statistics import mean_interval
from reports.tables import (
    CellMetric,
    Table,
    compare_cells,
    count_decimals,
    difference_tables,
    effect_tables,
    headline_table,
    mean_tables,
)
from reports.verdicts import MetricVerdicts


@pytest.fixture
def rows(results: Any, entries: Any) -> Any:
    """The lines of a sweep's CSV."""

    def read(name: str) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(to_csv(results(name), entries(name)))))

    return read


def test_the_csv_holds_mlflows_numbers(memory: MemoryClient, rows: Any) -> None:
    place = memory.experiments["threshold"].experiment_id
    runs = [run for run in memory.runs.values() if run.info.experiment_id == place]
    names = {r.info.run_id: r.data.tags["cell"] for r in runs if r.data.tags["role"] == "cell"}
    values: dict[tuple[str, str], dict[str, float]] = {}
    for run in runs:
        if run.data.tags["role"] == "seed":
            cell = names[run.data.tags["mlflow.parentRunId"]]
            for key, value in run.data.metrics.items():
                values.setdefault((cell, key), {})[run.data.params["seed"]] = value
    table = rows("threshold")
    assert len(table) == 6 * 9
    for row in table:
        own = values[row["cell"], f"eval/{row['metric']}"]
        mean = sum(own.values()) / 3
        assert float(row["mean"]) == pytest.approx(mean, abs=1e-12)
        assert (row["n"], row["seeds"], row["missing_seeds"]) == ("3", "0 1 2", "")
        if float(row["sd"]) > 0:
            bounds = stats.t.interval(0.95, 2, mean, stats.sem(list(own.values())))
            if row["unit"] == "share":
                bounds = max(bounds[0], 0), min(bounds[1], 1)
            assert (float(row["low95"]), float(row["high95"])) == pytest.approx(bounds)
        if row["role"] == "control":
            assert row["difference"] == row["difference_low95"] == ""
            continue
        control = values["threshold=0.5", f"eval/{row['metric']}"]
        shift = sum(own[seed] - control[seed] for seed in own) / 3
        assert float(row["difference"]) == pytest.approx(shift, abs=1e-12)
    assert {row["role"] for row in table} == {"untouched", "level", "control"}


def test_missing_seeds_are_in_the_csv(rows: Any) -> None:
    by_cell = {row["cell"]: row for row in rows("broken")}
    assert by_cell["threshold=0.4"]["missing_seeds"] == "0 1"
    assert by_cell["threshold=0.4"]["low95"] == ""
    assert by_cell["threshold=0.6"]["seeds"] == "0 1"
    assert by_cell["threshold=0.6"]["paired_n"] == "2"


def test_the_shown_tables_hold_the_same_numbers(results: Any, entries: Any, rows: Any) -> None:
    threshold, found = results("threshold"), entries("threshold")
    shown = {row[0]: row for row in headline_table(threshold, found).rows}
    row = next(
        row
        for row in rows("threshold")
        if (row["cell"], row["metric"]) == ("threshold=0.3", "success")
    )
    assert shown["0.3"][1] == f"{float(row['mean']):.3f}"
    assert shown["0.3"][3] == f"{float(row['difference']):+.3f}".replace("-", "−")
    assert shown["0.5 (control)"][3:5] == [prose.DASH, prose.DASH]
    assert [len(table.rows) for table in mean_tables(threshold, found)] == [9]
    [table] = difference_tables(threshold, found)
    assert table.columns[1:] == ["untouched backbone", "0.3", "0.4", "0.6", "0.7"]
    [effects] = effect_tables(threshold, found)
    assert effects.rows[1][1] == shown["0.3"][3] and effects.marks == {0: "untouched"}


def test_p_values_only_where_they_can_speak(results: Any, entries: Any) -> None:
    table = headline_table(results("eight"), entries("eight"))
    assert "p (Holm)" not in headline_table(results("clear"), entries("clear")).columns
    shown = {row[0]: row[table.columns.index("p (Holm)")] for row in table.rows}
    assert shown["0.6"] == "0.008" and shown["untouched backbone"] == prose.DASH  # 2 / 2^8
    assert "p = 0.008" in difference_tables(results("eight"), entries("eight"))[0].rows[0][-1]


def test_each_cell_is_compared_with_the_control_of_its_own_level(
    results: Any, entries: Any, rows: Any
) -> None:
    blocks, found = results("blocks"), {e.cell.name: e for e in entries("blocks")}
    sound = [f"recipe={method}, preset=sound" for method in ("maskattn", "mcgm")]
    assert [cell.name for cell in blocks.controls] == sound
    for method in ("maskattn", "mcgm"):
        versus = found[f"recipe={method}, preset=released"].versus
        assert versus is not None and versus.differences == pytest.approx([-0.05] * 3)
    assert all(found[name].versus is None for name in (blocks.cells[0].name, *sound))
    # Of two comparisons, not of four cells
    assert found["recipe=mcgm, preset=released"].verdict.family == 2
    table = headline_table(blocks, entries("blocks"))
    assert "difference from the control combination of the same method and" in table.title
    assert [row[3] for row in table.rows] == [
        prose.DASH,
        prose.DASH,
        "−0.050",
        prose.DASH,
        "−0.050",
    ]
    assert [row["role"] for row in rows("blocks")].count("control") == 2


@pytest.mark.parametrize(
    ("value", "digits", "plain", "with_sign"),
    [
        (0.12345, 3, "0.123", "+0.123"),
        (-0.5, 2, "−0.50", "−0.50"),
        (-0.0001, 3, "0.000", "0.000"),
        (float("nan"), 3, "–", "–"),
        (31, 0, "31", "+31"),
    ],
)
def test_numbers_as_text(value: float, digits: int, plain: str, with_sign: str) -> None:
    assert prose.show(value, digits) == plain and prose.show_signed(value, digits) == with_sign


def test_undefined_metrics_are_dashes(changeable: Any) -> None:
    clear, metric = changeable("clear"), ReportedMetric("never", "Never", "none", "")
    clear.metrics.append(metric)
    found = compare_cells(clear)
    assert count_decimals(found, metric) == 3 and prose.show_interval(None, 3) == prose.DASH
    for table in (*mean_tables(clear, found), *difference_tables(clear, found)):
        assert set(table.rows[1][1:]) == {prose.DASH}


@pytest.mark.parametrize(
    ("means", "unit", "digits"),
    [
        ((0.00042, 0.00021), "", 6),  # Two KIDs: 0.000 and 0.000 would be equal
        ((0.052, 0.0004), "", 4),
        ((0.1, 0.04), "", 3),
        ((0.00042, 0.00021), "share", 3),
        ((1e-12, 0.0), "", 8),
        ((0.0, 0.0), "", 0),
    ],
)
def test_small_numbers_keep_three_digits(
    results: Any, means: tuple[float, ...], unit: str, digits: int
) -> None:
    metric, cell = ReportedMetric("kid", "KID", "lower", unit), results("clear").cells[0]
    entries = [
        CellMetric(cell, metric, mean_interval([mean, mean]), MetricVerdicts(metric, (), ()))
        for mean in means
    ]
    assert count_decimals(entries, metric) == digits


def test_wide_sweeps_get_several_tables(changeable: Any) -> None:
    wide = changeable("clear")
    last = wide.cells[-1]
    wide.cells += [dataclasses.replace(last, name=f"x={i}", label=str(i)) for i in range(11)]
    tables = mean_tables(wide, compare_cells(wide))
    assert [len(table.columns) - 1 for table in tables] == [5, 5, 5]
    names = [name.removesuffix("\n(control)") for table in tables for name in table.columns[1:]]
    assert names == [cell.label for cell in wide.cells]


def test_special_signs_are_escaped(special: str) -> None:
    shown = escape_latex(special)
    assert r"\textbackslash{}alpha \{y\}" in shown and r"$\x$" not in shown and "$-$" in shown
    assert r"\$x\$ \_ \& \%" in shown and r"\#panic()" in shown
    assert not re.search(r"(?<!\\)[#&%_]", shown)
    text = escape_markdown(special)
    assert r"\*bold\*" in text and r"\<b\>" in text and r"\|" in text and "](" not in text
    table = Table(special, ["a", special], [[special, "1"]], special, {0: "control"})
    line = to_markdown(table).splitlines()[4]
    assert len(re.findall(r"(?<!\\)\|", line)) == 3  # Two cells, whatever they hold
    assert line.startswith("| **") and r"\textbf{" in to_latex(table, "x")
    body = to_latex(table, "x").split(r"\midrule")[1]
    assert len(re.findall(r"(?<!\\)&", body)) == 1 and body.count(r"\\") == 1


def read_back(text: str) -> str:
    """A text of a CSV as it was: without the apostrophe, which is of the export where one of these
    follows."""
    return re.sub(
        r"(?:^|(?<=[;\t|\n]))'('*[^;\t|\n\w]*[=+\-@\u2212\uff1d\uff0b\uff0d\uff20])", r"\1", text
    )


@pytest.mark.parametrize(
    "sign", ["=", "+", "-", "@", "−", "＝", "＋", "－", "＠", "﹢", "﹣", "﹫"]
)
@pytest.mark.parametrize(
    "before",
    [
        "",
        "\t",
        "\n",
        "\r",
        " ",
        "\u00a0",
        "\u200b",
        "\ufeff",
        "\u3000",
        "\u3164",
        "\u0301",
        "'",
        " \n\u200d",
    ],
)
def test_no_text_is_a_formula_to_a_spreadsheet(sign: str, before: str) -> None:
    text = f"{before}{sign}A1"
    written = write_csv([{text: text, "effect": -0.5}])
    (row,) = csv.DictReader(io.StringIO(written, newline=""))
    shown = text.replace("\r", "\n")
    at = max(shown.rfind(mark) for mark in "\t\n") + 1  # Behind what may divide cells
    shown = f"{shown[:at]}'{shown[at:]}"
    assert row == {shown: shown, "effect": "-0.5"}, "names of columns, too"


@pytest.mark.parametrize("mark", [";", "\t", "|", "\n", "; ", ";;"])
def test_no_part_of_a_text_is_a_formula_to_a_reader_of_another_separator(mark: str) -> None:
    written = write_csv([{"cell": f"a{mark}=1+1", f"b{mark}@c": f"=d{mark}-e", "n": -0.5}])
    for line in written.splitlines():
        for cell in line.split(mark[0]):
            assert not cell.strip().startswith(("=", "@", "-e")), written
    (row,) = csv.DictReader(io.StringIO(written, newline=""))
    assert [read_back(text) for text in row.values()] == [f"a{mark}=1+1", f"=d{mark}-e", "-0.5"]


def test_texts_and_numbers_come_back_from_a_csv() -> None:
    values = ["-1.5", "-2e-05", "12", "a=1", "it's", "'quoted'", "", "x,y", 'say "a"', "two\nlines"]
    values += ["=A1", "'=A1", "''=A1", " -a", "- 1", "-1+1", "@a"]
    values += ["a;=1", "a;'=1", "a;b", "a|-2", "'x;'y", "=a;=b\n+c"]
    row: dict[str, Any] = {str(i): value for i, value in enumerate(values)}
    row |= {"n": -1.5, "small": -2e-05, "none": None, "nan": math.nan, "whole": -3}
    (read,) = csv.DictReader(io.StringIO(write_csv([row]), newline=""))
    assert [read_back(read[str(i)]) for i in range(len(values))] == values
    assert (read["0"], read["1"]) == ("-1.5", "-2e-05"), "numbers stay numbers"
    assert [read[name] for name in ("n", "small", "none", "nan", "whole")] == [
        "-1.5",
        "-2e-05",
        "",
        "",
        "-3",
    ]


@pytest.mark.parametrize(
    ("text", "markdown", "latex"),
    [
        ("a|b", r"a\|b", r"a\textbar{}b"),
        ("a & b &lt;", r"a \& b \&lt;", r"a \& b \&lt;"),
        ("#1 $x_1$", r"\#1 \$x\_1\$", r"\#1 \$x\_1\$"),
        ("a\\b", r"a\\b", r"a\textbackslash{}b"),
        ("a\nb", "a<br>b", "a b"),
        ("a\r\nb\rc", "a<br>b<br>c", "a b c"),
        ("a\x0cb", "a<br>b", "a b"),
        ("a--b–c", "a--b–c", "a-{}-b--c"),
        ("- a", r"\- a", "- a"),
        ("1. a", r"1\. a", "1. a"),
        ("0.4 lacks", "0.4 lacks", "0.4 lacks"),
        ("1.", r"1\.", "1."),
        ("===", r"\===", "==="),
        ("[x]: y", r"\[x]: y", "{[}x]: y"),
        ("    a", "a", "    a"),
    ],
)
def test_signs_of_a_name_are_printed_as_they_are(text: str, markdown: str, latex: str) -> None:
    assert (escape_markdown(text), escape_latex(text)) == (markdown, latex)
