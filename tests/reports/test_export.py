from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from reports.export import latex, markdown, to_latex, to_markdown
from reports.study import Metric
from reports.tables import (
    DASH,
    Table,
    decimals,
    difference_tables,
    entries,
    headline_table,
    mean_tables,
    number,
    signed,
    span,
)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "report.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_csv_holds_mlflows_numbers(uri: str, report: Callable[[str], Path]) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("threshold").experiment_id
    runs = client.search_runs([experiment], "tags.role = 'seed'")
    names = {
        run.info.run_id: run.data.tags["cell"]
        for run in client.search_runs([experiment], "tags.role = 'cell'")
    }
    table = rows(report("threshold"))
    assert len(table) == 6 * 13
    values: dict[tuple[str, str], dict[str, float]] = {}
    for run in runs:
        for key, value in run.data.metrics.items():
            values.setdefault((names[run.data.tags["mlflow.parentRunId"]], key), {})[
                run.data.params["seed"]
            ] = value
    for row in table:
        own = values[row["cell"], f"eval/{row['metric']}"]
        assert (
            float(row["mean"]) == pytest.approx(sum(own.values()) / 3, abs=1e-12)
            and row["n"] == "3"
            and row["seeds"] == "0 1 2"
        )
        if float(row["sd"]) > 0:
            low, high = stats.t.interval(
                0.95, 2, sum(own.values()) / 3, stats.sem(list(own.values()))
            )
            assert (float(row["low95"]), float(row["high95"])) == pytest.approx((low, high))
        base = values["threshold=0.5", f"eval/{row['metric']}"]
        if row["role"] != "baseline":
            assert float(row["difference"]) == pytest.approx(
                sum(own[s] - base[s] for s in own) / 3, abs=1e-12
            )
        else:
            assert row["difference"] == row["difference_low95"] == ""
    assert {row["role"] for row in table} == {"reference", "level", "baseline"}


def test_missing_seeds_are_in_the_csv(report: Callable[[str], Path]) -> None:
    by_cell = {row["cell"]: row for row in rows(report("broken"))}
    assert (
        by_cell["threshold=0.4"]["missing_seeds"] == "0 1"
        and by_cell["threshold=0.4"]["low95"] == ""
    )
    assert (
        by_cell["threshold=0.6"]["seeds"] == "0 1" and by_cell["threshold=0.6"]["paired_n"] == "2"
    )


def test_the_shown_tables_hold_the_same_numbers(
    study: Callable[[str], Any], report: Callable[[str], Path]
) -> None:
    threshold = study("threshold")
    found = entries(threshold)
    shown = {row[0]: row for row in headline_table(threshold, found).rows}
    by_cell = {row["cell"]: row for row in rows(report("threshold")) if row["metric"] == "success"}
    assert shown["0.3"][1] == f"{float(by_cell['threshold=0.3']['mean']):.3f}"
    assert shown["0.3"][3] == f"{float(by_cell['threshold=0.3']['difference']):+.3f}".replace(
        "-", "−"
    )
    assert shown["0.5 (baseline)"][3:5] == [DASH, DASH]
    text = (report("threshold") / "report.md").read_text(encoding="utf-8")
    assert shown["0.3"][1] in text and shown["0.3"][4] in text
    assert [len(t.rows) for t in mean_tables(threshold, found)] == [13]
    assert [t.columns[1:] for t in difference_tables(threshold, found)] == [
        ["untouched backbone", "0.3", "0.4", "0.6", "0.7"]
    ]


def test_p_values_only_where_they_can_speak(study: Callable[[str], Any]) -> None:
    eight, three = study("eight"), study("clear")
    table = headline_table(eight, entries(eight))
    assert (
        "p (Holm)" in table.columns
        and "p (Holm)" not in headline_table(three, entries(three)).columns
    )
    shown = {row[0]: row[table.columns.index("p (Holm)")] for row in table.rows}
    assert shown["0.6"] == "0.008" and shown["untouched backbone"] == DASH  # 2 / 2^8
    assert "p = 0.008" in difference_tables(eight, entries(eight))[0].rows[0][-1]


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
    assert number(value, digits) == plain and signed(value, digits) == with_sign


def test_undefined_metrics_are_dashes(study: Callable[[str], Any]) -> None:
    clear = study("clear")
    metric = Metric("never", "Never", "none", "")
    clear.metrics.append(metric)
    try:
        found = entries(clear)
        assert decimals(found, metric) == 3 and span(None, 3) == DASH
        assert all(
            cell == DASH for row in mean_tables(clear, found)[0].rows[1:] for cell in row[1:]
        )
        assert all(
            cell == DASH for row in difference_tables(clear, found)[0].rows[1:] for cell in row[1:]
        )
    finally:
        clear.metrics.remove(metric)


def test_wide_sweeps_get_several_tables(study: Callable[[str], Any]) -> None:
    import dataclasses

    clear = study("clear")
    many = [dataclasses.replace(clear.cells[-1], name=f"x={i}", label=str(i)) for i in range(11)]
    wide = dataclasses.replace(clear, cells=[*clear.cells, *many])
    tables = mean_tables(wide, entries(wide))
    assert [len(t.columns) - 1 for t in tables] == [5, 5, 5]
    assert [name for t in tables for name in t.columns[1:]] == [
        c.label + ("\n(baseline)" if c.baseline else "") for c in wide.cells
    ]


def test_special_signs_are_escaped(special: str) -> None:
    shown = latex(special)
    assert (
        r"\textbackslash{}alpha \{y\}" in shown
        and r"\$x\$ \_ \& \%" in shown
        and r"\#panic()" in shown
        and "$-$" in shown
    )
    assert not re.search(r"(?<!\\)[#&%_]", shown)
    text = markdown(special)
    assert r"\*bold\*" in text and r"\<b\>" in text and r"\|" in text and "](" not in text
    table = Table(special, ["a", special], [[special, "1"]], special, {0: "baseline"})
    line = to_markdown(table).splitlines()[4]
    assert len(re.findall(r"(?<!\\)\|", line)) == 3  # two cells, whatever they hold
    body = to_latex(table, "x").split(r"\midrule")[1]
    assert len(re.findall(r"(?<!\\)&", body)) == 1 and body.count(r"\\") == 1
