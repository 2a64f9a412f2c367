"""What stands in a report and in which order, as plain data for the template: page one (answer, figure, table), then the details."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reports.answer import Answer
from reports.figures import Picture
from reports.heatmap import leads
from reports.precision_recall import CROWD
from reports.statistics import clustered_difference, detectable_effect, smallest_sign_flip_p, wilson
from reports.study import Cell, Study
from reports.tables import (
    HOLM_FROM,
    Entry,
    Table,
    decimals,
    difference_tables,
    headline_table,
    in_sentence,
    listed,
    mean_tables,
    number,
    of_metric,
    signed,
)

__all__ = ["document"]

POWER = 0.8
DRAWS = 4000
LONG = 12  # rows that the table on page one may have
WIDE_METRIC = 4.4  # cm: the first column of the tables that have one row per metric


def document(study: Study, found: Sequence[Entry], said: Answer, pictures: Mapping[str, Picture], no_cases: str = "") -> dict[str, Any]:
    """The content of report.json; strings, numbers of layout, lists and dicts only. `no_cases` says why best and worst cases are absent."""
    first, second = ("heatmap", "response") if leads(study) else ("response", "heatmap")
    widths = {second: 100, "precision_recall": 78 if len(study.cells) <= CROWD else 100}
    widths |= dict.fromkeys(("images", "cases", "gates", "maps", "curves"), 100)
    blocks = [_picture(pictures[name], width) | {"float": True} for name, width in widths.items() if name in pictures]
    if len(study.metrics) > 1:  # else the table on page one says it all
        blocks += [_heading("All metrics")]
        for table in (*mean_tables(study, found), *difference_tables(study, found)):
            blocks.append(_table(table, widths=[WIDE_METRIC, *["fill"] * (len(table.columns) - 1)], size=8.2))
    if images := _images_table(study):
        blocks += [_heading("Image by image"), _table(images, widths=["fill", *["auto"] * 5], size=8.8)]
        blocks += [_text(no_cases)] if no_cases else []
    blocks += [_heading("Statistics"), *map(_text, _statistics(study, found, said))]
    blocks += measured(study)
    blocks += [_heading("Context"), *_context(study)]
    blocks += [_heading("What is missing"), _text(_missing(study))]
    blocks += _provenance(study)
    front = headline_table(study, found)
    long = len(front.rows) > LONG  # for page one; the details follow it at once
    # where the untouched backbone is what all are compared with, methods themselves are
    method = study.config.get("method", {}).get("name", "method") if study.reference else "several methods"
    return {
        "title": study.sweep,
        "kicker": f"Ablation report · {method} · {len(study.cells)} cells × {len(study.seeds)} seeds",
        "footer": study.sweep,
        "question": study.tags.get("question", ""),
        "origin": study.tags.get("origin", ""),
        "warning": _warning(study),
        "answer": said.text,
        "small": f"{said.brackets} {_resolution(study, of_metric(found, study.headline), decimals(found, study.headline))}".strip(),
        "front": [
            _picture(pictures[first], 100),
            _table(front, widths=["fill", *["auto"] * (len(front.columns) - 1)], size=8.8 if long else 9.5),
        ],
        "alone": not long,
        "blocks": blocks,
    }


def _heading(text: str) -> dict[str, Any]:
    return {"kind": "heading", "text": text}


def _text(text: str) -> dict[str, Any]:
    return {"kind": "text", "text": text}


def _picture(picture: Picture, width: int) -> dict[str, Any]:
    return {"kind": "picture", "file": picture.file, "caption": picture.caption, "alt": picture.alt, "width": width, "float": False}


def _table(table: Table, widths: list[Any], size: float, left: Sequence[int] = (0,)) -> dict[str, Any]:
    marks = {str(row): mark for row, mark in table.marks.items()}
    shown = {"title": table.title, "note": table.note, "columns": table.columns, "rows": table.rows, "marks": marks}
    return {"kind": "table", **shown, "widths": widths, "size": size, "left": list(left)}


def _pairs(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    return {"kind": "pairs", "pairs": [[name, value] for name, value in pairs]}


def _warning(study: Study) -> str:
    lacking = sum(len(cell.unfinished) for cell in study.cells)
    total = len(study.cells) * len(study.seeds)
    parts = [f"Unfinished: {lacking} of {total} trials are missing, see “What is missing”. The answer may change."] if lacking else []
    if study.tags.get("mode") == "search":
        tried = sum(not cell.baseline for cell in study.levels)
        parts.append(
            f"Searched: the best of {tried} settings was chosen on these very seeds, so that its mean flatters it. Measure it on other "
            "seeds before you claim it."
        )
    return " ".join(parts)


# ---- image by image


def _outcomes(left: Cell, right: Cell) -> tuple[np.ndarray, np.ndarray] | None:
    """Success of two cells as [seeds, prompts], a prompt's mean over its images, over the seeds and prompts that both have."""
    sides = [{s: t.samples.by_prompt() for s, t in cell.trials.items() if t.samples} for cell in (left, right)]
    seeds = sorted(sides[0].keys() & sides[1].keys())
    if not seeds:
        return None
    prompts = sorted(set.intersection(*(set(side[s]) for side in sides for s in seeds)))
    if not prompts:
        return None
    first, second = (np.array([[side[s][p] for p in prompts] for s in seeds], dtype=float) for side in sides)
    return first, second


def _images_table(study: Study) -> Table | None:
    rows: list[list[str]] = []
    marks: dict[int, str] = {}
    for cell in study.cells:
        outcomes = [right for trial in cell.trials.values() if trial.samples for right in trial.samples.success]
        judged = [right for right in outcomes if right is not None]
        if not judged:
            continue
        if cell.baseline or cell.reference:
            marks[len(rows)] = "baseline" if cell.baseline else "reference"
        low, high = wilson(sum(judged), len(judged))
        row = [
            cell.label + (" (baseline)" if cell.baseline else ""),
            f"{sum(judged)} of {len(judged)}",
            f"[{number(low, 3)}, {number(high, 3)}]",
        ]
        base = study.base_of(cell)
        both = None if base is None else _outcomes(cell, base)
        if both is None:
            rows.append([*row, "–", "–", "–"])
            continue
        mean, low, high = clustered_difference(*both, draws=DRAWS)
        gained, lost = int((both[0] > both[1]).sum()), int((both[0] < both[1]).sum())
        rows.append([*row, f"{gained} / {lost}", signed(mean, 3), f"[{signed(low, 3)}, {signed(high, 3)}]"])
    if not rows:
        return None
    title = (
        "Images that are right, over all seeds and prompts, and the same prompt and seed compared with the baseline "
        f"{study.noun}: "
        "images won and lost, and "
        f"the difference in share with a 95 % interval from {DRAWS} bootstrap samples that draw prompts and seeds independently "
        f"(generator seed 0). Wilson's interval "
        "takes images as independent, which they are not: it is a lower bound of the uncertainty. With few seeds the bootstrap interval "
        "is somewhat too narrow; "
        "the answer does not rest on it."
    )
    return Table(title, ["Cell", "Right", "Wilson 95 %", "Won / lost", "Difference", "Clustered 95 %"], rows, "", marks)


# ---- statistics, how it was measured, context, what is missing


def measured(study: Study) -> list[dict[str, Any]]:
    """What each number was measured with, metrics of the same way together; warnings; what is not shown, and why."""
    ways: dict[str, list[str]] = {}
    for metric in study.metrics:
        facts = next((t.facts[metric.key] for _, t in study.trials() if t.facts.get(metric.key)), None)
        if facts:
            way = "; ".join(f"{name.replace('_', ' ')} {_plain(value)}" for name, value in facts.items())
            ways.setdefault(way, []).append(metric.label)
    pairs = [(", ".join(labels), way) for way, labels in ways.items()]
    pairs += [(label, f"not shown: {why}") for label, why in study.refused.items()]
    return [_heading("How it was measured"), _pairs(pairs)] if pairs else []


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _statistics(study: Study, found: Sequence[Entry], said: Answer) -> list[str]:
    entries = of_metric(found, study.headline)
    digits, name = decimals(found, study.headline), in_sentence(study.headline.label)
    n = len(study.seeds)
    texts = [
        said.rule,
        "Seeds are the unit of replication: a seed fixes training order, initial noise and prompts alike in every cell, so that cells "
        "are compared seed by seed. "
        "Intervals of means and of differences are t-intervals over seeds. Differences use common seeds only.",
    ]
    if n >= HOLM_FROM:
        texts.append(
            f"Below each difference stands the p value of the exact sign-flip test over all {2**n} sign patterns, adjusted by Holm's "
            f"method over the compared "
            f"{study.noun}s of one metric; metrics are not adjusted for each other."
        )
    else:
        texts.append(
            f"With {n} seeds an exact sign-flip test cannot give a p below {smallest_sign_flip_p(n):g}, whatever the data; so no p values "
            f"and no stars are shown. "
            f"Six seeds are the fewest that can reach p < .05."
        )
    spreads = [(e.cell, e.summary.sd) for e in entries if e.cell.baseline and e.summary and math.isfinite(e.summary.sd)]
    if spreads:
        unit = f" ({study.headline.unit})" if study.headline.unit else ""
        told = [f"{number(sd, digits + 1)}{unit}" + (f" ({study.words(cell)})" if study.within else "") for cell, sd in spreads]
        noise = f"Noise floor: the standard deviation of {name} over the seeds of the baseline {study.noun} is {listed(told)}. "
        texts.append((noise + _resolution(study, entries, digits)).strip())
    return texts


def _resolution(study: Study, entries: Sequence[Entry], digits: int) -> str:
    """The smallest difference that the seeds at hand could have shown; empty where there is no spread to go by."""
    spreads = [e.versus.interval for e in entries if e.versus and e.wide and e.versus.interval.n > 1]
    wide = next((e.wide for e in entries if e.wide), None)
    if not spreads or wide is None:
        return ""
    n = max(s.n for s in spreads)
    pooled = math.sqrt(sum(s.sd**2 for s in spreads) / len(spreads))
    if pooled == 0:
        return ""
    smallest = number(detectable_effect(pooled, n, wide.level, POWER), digits)
    return (
        f"Differences from the baseline {study.noun} scatter by {number(pooled, digits + 1)} between seeds (standard deviation, pooled "
        f"over {study.noun}s); with {n} seeds a true "
        f"difference in {in_sentence(study.headline.label)} has to be {smallest} to be found with probability {100 * POWER:.0f} %."
    )


def _context(study: Study) -> list[dict[str, Any]]:
    backbone, data = (str(study.config.get(part, {}).get("name", "unknown")) for part in ("backbone", "data"))
    text = f"All numbers of this report come from the backbone “{backbone}” on the data “{data}”."
    if backbone == "embedded":
        text += (
            " That is a small rendered world with a small model trained in it: its numbers are not comparable with those of any paper, "
            "only with each other. "
            "An effect here is a reason to look for it in the large models, not evidence that it is there."
        )
    if not study.published:
        return [_text(text), _text("No published number is listed for this sweep.")]
    columns = {
        "what": "Published elsewhere",
        "metric": "Metric",
        "value": "Value",
        "data": "Data",
        "backbone": "Backbone",
        "n": "N",
        "source": "Source",
    }
    rows = [[str(entry.get(key) or "–") for key in columns] for entry in study.published]
    table = Table(
        "Numbers published elsewhere, not measured here and not comparable unless data, backbone and N agree.", list(columns.values()), rows
    )
    return [_text(text), _table(table, widths=[3.2, "auto", "auto", "fill", "auto", "auto", 2.6], size=8.5, left=range(len(columns)))]


def _missing(study: Study) -> str:
    parts = [f"{cell.name}, seed {seed}: {_short(why)}" for cell in study.cells for seed, why in sorted(cell.unfinished.items())]
    text = (
        f"{'; '.join(parts)}." if parts else f"Nothing: every cell has all {len(study.seeds)} seeds ({', '.join(map(str, study.seeds))})."
    )
    if study.left_out:
        text += f" Left out, since the plan no longer holds them: {', '.join(study.left_out)}."
    return text


def _short(why: str, most: int = 300) -> str:
    return why if len(why) <= most else f"{why[:most]} …"


# ---- provenance


def _provenance(study: Study) -> list[dict[str, Any]]:
    trials = [trial for _, trial in study.trials()]
    facts = _merged([trial.versions for trial in trials])
    commit = facts.pop("commit", "not recorded")
    dirty = {"True": "with uncommitted changes", "False": "without uncommitted changes"}.get(
        facts.pop("dirty", ""), "uncommitted changes not recorded"
    )
    hardware = facts.pop("hardware", "not recorded")
    phases = sorted({phase for trial in trials for phase in trial.seconds})
    spent = ", ".join(f"{phase} {sum(t.seconds.get(phase, 0.0) for t in trials) / 60:.1f} min" for phase in phases)
    counts = _merged([trial.counts for cell, trial in study.trials() if not cell.reference])
    pairs = [
        ("Command", study.tags.get("command", "not recorded")),
        ("Evaluation", study.tags.get("evaluation", "not recorded")),
        ("Seeds", ", ".join(map(str, study.seeds))),
        ("Factors", "; ".join(f"{f.key}: {', '.join(map(str, f.levels))}" for f in study.factors) + _without(study)),
        ("Counts", ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in counts.items()) or "not recorded"),
        ("Commit", f"{commit}, {dirty}"),
        ("Versions", ", ".join(f"{name} {value}" for name, value in facts.items()) or "not recorded"),
        ("Hardware", hardware),
        ("Time", f"{sum(t.minutes for t in trials):.1f} min over {len(trials)} finished trials" + (f": {spent}" if spent else "")),
        ("MLflow", f"experiment “{study.sweep}”, id {study.experiment_id}"),
    ]
    rows = [[cell.label, str(trial.seed), trial.run_id, f"{trial.minutes:.2f}"] for cell, trial in study.trials()]
    runs = Table("The MLflow runs behind every number.", ["Cell", "Seed", "Run id", "Minutes"], rows)
    return [
        _heading("Provenance"),
        _pairs(pairs),
        _table(runs, widths=["auto"] * 4, size=8.2, left=(0, 2)),
        _heading("Configuration"),
        {"kind": "mono", "lines": [f"{key} = {value}" for key, value in _flat(study.config)]},
    ]


def _without(study: Study) -> str:
    """The combinations that the plan leaves out."""
    texts = [" with ".join(f"{key.rpartition('.')[2]}={level}" for key, level in entry.items()) for entry in study.without]
    return f"; not combined: {', '.join(texts)}" if texts else ""


def _merged(facts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Name -> value; where trials disagree, all their values."""
    names = list(dict.fromkeys(name for fact in facts for name in fact))
    return {name: " / ".join(dict.fromkeys(str(fact[name]) for fact in facts if name in fact)) for name in names}


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in config.items():
        if isinstance(value, dict) and value:
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", json.dumps(value, ensure_ascii=False)))
    return found
