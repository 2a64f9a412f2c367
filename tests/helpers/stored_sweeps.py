"""Sweeps as planner and trials of earlier versions left them, and an MLflow in memory.

Cells have the tags ``baseline`` and ``reference``, the untouched backbone is called "baseline:
untouched backbone", and params have the names of settings of their time: reports must be possible
of all that.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

KEY = "method.gate.threshold"
UNTOUCHED = "baseline: untouched backbone"
LABELS = {
    "recipe": "Method",
    "preset": "Preset",
    "method.gate.bias": "Start bias",
    "method.gate.surrogate": "Surrogate",
    "method.gate.protect": "Protected tokens",
    "method.gate.keep": "Kept share",
}
# Text that typst, Markdown, LaTeX or matplotlib would run if it were pasted
SPECIAL = "*bold* #panic() $x$ _ & % <b> `code` \\alpha {y} | ~^ [z](w) 漢 −"
METRICS = [
    {"key": key, "label": label, "better": better, "unit": unit}
    for key, label, better, unit in (
        ("success", "Success", "higher", "share"),
        ("success_val", "Success, seen pairs", "higher", "share"),
        ("success_heldout", "Success, held-out pairs", "higher", "share"),
        ("score", "Graded score", "higher", "probability"),
        ("extra_objects", "Extra objects", "lower", "per image"),
        ("fid", "FID", "lower", ""),
        ("precision", "Precision", "higher", "share"),
        ("recall", "Recall", "higher", "share"),
        ("gate_closed", "Gates closed", "none", "share"),
    )
]
MORE_METRICS = [
    {"key": key, "label": label, "better": better, "unit": unit}
    for key, label, better, unit in (
        ("overhead", "UNet time", "lower", "× without gates"),
        ("parameters", "Trained parameters", "lower", ""),
        ("gates_reopened", "Gates re-opened", "none", "share"),
    )
]
CONFIG: dict[str, Any] = {
    "backbone": {"name": "embedded", "path": "embedded", "dtype": "float32", "resolution": 64},
    "method": {"name": "maskattn", "gate": {"threshold": 0.5, "bias": 2.0, "protect": "bos"}},
    "data": {"name": "shapes", "root": "auto", "train_images": 2048, "eval_images": 512},
    "trainer": {"steps": 60, "batch": 16, "lr": 0.001, "precision": "32-true"},
    "evaluation": {"splits": ["val", "heldout"], "prompts": 64, "steps": 12, "guidance": 3.0},
}
VERSIONS = {
    "commit": "0123456789abcdef",
    "dirty": False,
    "hardware": "2 CPU cores",
    "torch": "2.13.0",
    "lightning": "2.6.6",
}


@dataclass
class StoredSweep:
    """One sweep to put into MLflow.

    ``value(metric, level, seed)`` gives a trial's number, or None where it has none; level None is
    the untouched backbone. With ``factors``, key -> levels, each of ``levels`` is a combination.
    """

    name: str
    value: Callable[[str, Any, int], float | None]
    levels: tuple[Any, ...] = (0.4, 0.5, 0.6)
    control: Any = 0.5
    seeds: int = 3
    numeric: bool = True
    metrics: list[dict[str, str]] = field(default_factory=lambda: METRICS[:1])
    images: bool = False
    masks: bool = False  # Target masks and attention maps, as methods that are steered by masks
    failed: dict[tuple[Any, int], str] = field(default_factory=dict)  # (level, seed) -> error
    running: tuple[tuple[Any, int], ...] = ()
    unstarted: bool = False
    tags: dict[str, str] = field(default_factory=dict)
    factors: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    within: str = ""  # Key of the first factor, whose levels have a control cell each
    versions: Callable[[Any], dict[str, Any]] = lambda level: {}  # Of a level's trials
    trained: Callable[[Any, int], bool] = lambda level, seed: False  # Whether a training is logged

    def values(self, level: Any) -> dict[str, str]:
        """Swept key -> level, as MLflow keeps them."""
        if level is None:
            return {}
        if not self.factors:
            return {KEY: str(level)}
        return {key: str(part) for key, part in zip(self.factors, level, strict=True)}

    def cell(self, level: Any) -> str:
        values = self.values(level).items()
        return ", ".join(f"{key.rpartition('.')[2]}={text}" for key, text in values) or UNTOUCHED

    def describe_factors(self) -> list[dict[str, Any]]:
        factors = self.factors or {KEY: self.levels}
        return [
            {
                "key": key,
                "label": LABELS.get(key, "Gate threshold"),
                "levels": list(levels),
                "unit": "",
                "numeric": self.numeric and not isinstance(levels[0], str),
            }
            for key, levels in factors.items()
        ]

    def is_control(self, level: Any) -> bool:
        if level is None or not self.within:
            return level == self.control
        return level[1:] == self.control[1:]


# ---- Numbers


def noisy(
    spread: float, effect: dict[Any, float] | None = None
) -> Callable[[str, Any, int], float]:
    """A base per metric, seed noise that all cells share, and a little of their own."""
    base = {"fid": 31.0, "extra_objects": 0.4, "gate_closed": 0.2, "recall": 0.55}
    slopes = {"recall": -0.35, "precision": 0.25, "gate_closed": 1.2, "fid": 0.6}

    def value(metric: str, level: Any, seed: int) -> float:
        if metric == "gate_closed" and level is None:
            return 0.0
        shared = np.random.default_rng([seed, len(metric)]).normal(0, 0.02)
        cell = int(100 * level) if isinstance(level, float) else sum(map(ord, str(level)))
        own = np.random.default_rng([seed, len(metric), 7 + cell]).normal(0, spread)
        slope = slopes.get(metric, 0.0) * ((level - 0.5) if isinstance(level, float) else 0.0)
        scale, shift = 20 if metric == "fid" else 1, (effect or {}).get(level, 0.0)
        return round(base.get(metric, 0.48) + scale * (shared + own + slope + shift), 6)

    return value


def factorial(metric: str, level: Any, seed: int) -> float | None:
    """Damage where gates start half closed, little noise; only gates have some of the metrics."""
    if metric in ("gate_closed", *(m["key"] for m in MORE_METRICS)) and level is None:
        return None
    if metric == "parameters":
        return 465921.0
    bias, surrogate, protect = level or (2.0, "renormalised", "bos")
    key = crc32(repr(level).encode())
    own = np.random.default_rng([seed, len(metric), key]).normal(0, 0.006)
    shared = np.random.default_rng([seed, len(metric)]).normal(0, 0.02)
    damage = 0.25 * (bias == 0.0) * (1.5 if surrogate == "released" else 1.0)
    damage *= 1.2 if protect == "none" else 1.0
    base = {"overhead": 1.2, "fid": 31.0, "gate_closed": 0.03}.get(metric, 0.74)
    sign = {"gate_closed": 1.0, "fid": 9.0, "overhead": 0.0}.get(metric, -1.0)
    return round(base + own + shared + damage * sign, 6)


def peaked(metric: str, level: Any, seed: int) -> float | None:
    """Best in the middle; one corner is clearly worse."""
    bias, keep = level or (2.0, 0.5)
    own = np.random.default_rng([seed, crc32(repr(level).encode())]).normal(0, 0.004)
    corner = 0.3 * (bias == 0.0 and keep == 0.25)
    return round(0.7 + 0.01 * seed + own - 0.02 * abs(bias - 2.0) - corner, 6)


def additive(metric: str, level: Any, seed: int) -> float:
    parts = {"maskattn": 0.1, "mcgm": 0.3, "sound": 0.0, "released": -0.05}
    curve = 0.002 * seed**2 * (level is None)
    return 0.3 + 0.01 * seed + sum(parts[part] for part in level or ()) - curve


GRID = {
    "method.gate.bias": (0.0, 2.0, 4.0),
    "method.gate.surrogate": ("released", "renormalised"),
    "method.gate.protect": ("none", "bos", "specials"),
}
PLANE = {"method.gate.bias": (0.0, 1.0, 2.0, 4.0), "method.gate.keep": (0.25, 0.5, 0.75)}
PUBLISHED = {
    "what": "MaskAttn-SDXL",
    "metric": "FID",
    "value": "24.57",
    "data": "COCO val2014",
    "backbone": "SDXL",
    "n": "3,000",
    "source": "Table I",
}
SWEEPS = [
    StoredSweep(
        "threshold",
        noisy(0.012),
        levels=(0.3, 0.4, 0.5, 0.6, 0.7),
        metrics=METRICS,
        images=True,
        trained=lambda level, seed: level is not None,
        tags={
            "question": "Is 0.5 the best gate threshold, and what is the precision–recall trade?",
            "origin": "MaskAttn-SDXL sets the threshold to 0.5 and does not vary it.",
            "published": json.dumps([PUBLISHED]),
        },
    ),
    StoredSweep(
        "clear",
        noisy(0.004, {"soft": -0.3, None: -0.2}),
        levels=("hard", "soft", "top_k"),
        control="hard",
        numeric=False,
    ),
    StoredSweep("same", lambda metric, level, seed: 0.5 + 0.01 * seed, metrics=METRICS[:2]),
    StoredSweep(
        "broken",
        noisy(0.01),
        failed={
            (0.6, 2): f"Traceback …\nRuntimeError: {SPECIAL}",
            (0.4, 0): "OutOfMemoryError: 3 GiB",
        },
        running=((0.4, 1),),
        images=True,
        versions=lambda level: {
            "dirty": True,
            "code": "0b501e7e" if level == 0.6 else "c0ffee00",
        },
        tags={
            "question": SPECIAL,
            "origin": SPECIAL,
            "published": json.dumps([{"what": SPECIAL, "metric": "FID", "value": 1.5}]),
        },
    ),
    StoredSweep("eight", noisy(0.004, {0.6: 0.1}), levels=(0.5, 0.6), seeds=8),
    StoredSweep("unstarted", noisy(0.0), unstarted=True),
    StoredSweep(
        "grid",
        factorial,
        levels=tuple(itertools.product(*GRID.values())),
        control=(2.0, "renormalised", "bos"),
        factors=GRID,
        metrics=[*METRICS, *MORE_METRICS],
        images=True,
        masks=True,
        tags={"question": "What do the released gate choices cost?"},
    ),
    StoredSweep(
        "blocks",
        additive,
        levels=tuple(itertools.product(("maskattn", "mcgm"), ("sound", "released"))),
        control=("maskattn", "sound"),
        factors={"recipe": ("maskattn", "mcgm"), "preset": ("sound", "released")},
        within="recipe",
    ),
    StoredSweep(
        "plane",
        peaked,
        levels=tuple(x for x in itertools.product(*PLANE.values()) if x != (4.0, 0.75)),
        control=(2.0, 0.5),
        factors=PLANE,
        failed={
            **{((1.0, 0.25), seed): "RuntimeError: diverged" for seed in range(3)},
            ((4.0, 0.5), 1): "RuntimeError: diverged",
        },
        tags={"without": '[{"method.gate.bias": "4.0", "method.gate.keep": "0.75"}]'},
        # The adapters of other kept shares were there already
        trained=lambda level, seed: level is not None and level[1] == 0.5,
    ),
]


# ---- Files of a trial


def write_files(folder: Path, sweep: StoredSweep, level: Any, seed: int) -> None:
    folder.mkdir(parents=True)
    result = {
        "metrics": {},
        "counts": {"trained_parameters": 0 if level is None else 123456},
        "seconds": {"data": 1.5, "train": 0.0 if level is None else 20.0, "evaluate": 12.0},
        "versions": VERSIONS | sweep.versions(level),
        "facts": {},
    }
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "environment.txt").write_text("torch==2.13.0\n")
    if sweep.versions(level).get("dirty"):
        (folder / "changes.diff").write_text("--- a/x.py\n+++ b/x.py\n")
    val = {"layout": "coco", "split": "val", "captions": 1720, "count": 512, "problems": {}}
    val["facts"] = {"root": "/data", "images": "1b68"}
    manifest = {"train": 2048, "evaluation": {"val": val}, "notes": []}
    (folder / "data.json").write_text(json.dumps(manifest))
    if sweep.images:
        _write_images(folder, sweep, level, seed)


def _write_images(folder: Path, sweep: StoredSweep, level: Any, seed: int) -> None:
    (folder / "samples").mkdir()
    colors, shapes = ("red", "green", "blue", "orange"), ("circle", "square", "star")
    cell = int(100 * level) if isinstance(level, float) else crc32(repr(level).encode())
    rng = np.random.default_rng([seed, 0 if level is None else cell])
    targets = np.zeros((64, 64), np.uint8)
    targets[10:30, 5:25], targets[30:50, 30:60] = 1, 2
    rows = []
    for i in range(32):
        a, b = colors[i % 4], colors[(i + 1) % 4]
        first, second = shapes[i % 3], shapes[(i + 1) % 3]
        prompt = f"a {a} {first} to the left of a {b} {second}"
        row = {
            "split": "val" if i < 16 else "heldout",
            "id": str(i % 16),
            "prompt": SPECIAL if sweep.name == "broken" and i == 0 else prompt,
            "noise": 1000 * seed + i,
            "sample": None,
            "success": bool(rng.random() < 0.5),
            "score": 0.5,
            "mask": None,
        }
        if i % 16 < 6:
            row["sample"] = f"samples/{i:03d}.png"
            image = Image.new("RGB", (64, 64), (225, 225, 220))
            draw = ImageDraw.Draw(image)
            x, y = rng.integers(2, 14, 2)
            draw.ellipse((x, y + 10, x + 22, y + 32), fill=a)
            draw.rectangle((x + 28, y + 12, x + 46, y + 32), fill=b)
            image.save(folder / row["sample"], compress_level=1)
            if sweep.masks:
                row["mask"] = f"samples/{i:03d}-mask.png"
                Image.fromarray(targets).save(folder / row["mask"], compress_level=1)
        rows.append(row)
    table = pd.DataFrame(rows)
    for name in ("sample", "mask"):
        table[name] = table[name].astype(object)
    table.to_parquet(folder / "scores.parquet")
    if sweep.masks:
        maps = (rng.random((120, 100)) * 255).astype(np.uint8)
        Image.fromarray(maps).save(folder / "maps.png")
        note = {"prompt": rows[0]["prompt"], "timestep": 500, "objects": ["red circle"]}
        (folder / "maps.json").write_text(json.dumps([note]))
    if level is not None:
        tokens = {"tokens": ["BOS", "a", "EOS"], "open": {"16": [1.0, 0.5, 0.5]}}
        note = [{"prompt": rows[i]["prompt"], **tokens} for i in (0, 16)]
        (folder / "gates.json").write_text(json.dumps(note))
        maps = (np.kron(rng.random((4, 10)), np.ones((40, 40))) * 255).astype(np.uint8)
        Image.fromarray(maps).save(folder / "gates.png")


# ---- MLflow


def store(client: Any, sweep: StoredSweep, folder: Path) -> None:
    """Put one sweep into MLflow as planner and trials do; files go through the client."""
    config = CONFIG | {"seeds": sweep.seeds, "output": "runs"}
    where = "64 prompts per split (val, heldout), 12 sampler steps, guidance 3.0"
    tags = {
        "sweep": sweep.name,
        "question": "Does it matter?",
        "origin": "",
        "factors": json.dumps(sweep.describe_factors()),
        "within": sweep.within,
        "metrics": json.dumps(sweep.metrics),
        "headline": "success",
        "seeds": json.dumps(list(range(sweep.seeds))),
        "config": json.dumps(config),
        "command": f"python -m sweeps.{sweep.name}",
        "published": "[]",
        "evaluation": f"{where}, noise seed = trial seed",
    }
    experiment = client.create_experiment(sweep.name, tags=tags | sweep.tags)
    for level in (*reversed(sweep.levels), None):  # Not the order of the plan
        name = sweep.cell(level)
        flags = {"baseline": sweep.is_control(level), "reference": level is None, "planned": True}
        marks = {key: str(flag).lower() for key, flag in flags.items()}
        cell_tags = {"role": "cell", "cell": name, **marks}
        parent = client.create_run(experiment, run_name=name, tags=cell_tags).info.run_id
        for key, text in sweep.values(level).items():
            client.log_param(parent, key, text)
        for seed in range(0 if sweep.unstarted else sweep.seeds):
            _store_trial(client, sweep, experiment, parent, level, seed, folder)


def _store_trial(
    client: Any,
    sweep: StoredSweep,
    experiment: str,
    parent: str,
    level: Any,
    seed: int,
    folder: Path,
) -> None:
    tags = {"role": "seed", "mlflow.parentRunId": parent}
    run = client.create_run(experiment, run_name=f"seed={seed}", tags=tags).info.run_id
    for key, text in {"seed": str(seed), **sweep.values(level)}.items():
        client.log_param(run, key, text)
    if (level, seed) in sweep.running:
        return
    if (level, seed) in sweep.failed:
        client.set_tag(run, "error", sweep.failed[level, seed])
        client.set_terminated(run, "FAILED")
        return
    for metric in sweep.metrics:
        value = sweep.value(metric["key"], level, seed)
        if value is not None:
            client.log_metric(run, f"eval/{metric['key']}", value)
    if sweep.trained(level, seed):
        rng = np.random.default_rng([seed, 3])
        for step in range(10, 61, 10):
            client.log_metric(run, "train/loss", float(rng.normal(0.2, 0.03)), step=step)
            client.log_metric(run, "train/gate_closed", step / 100, step=step)
    own = folder / sweep.name / f"{sweep.cell(level)}-{seed}"
    write_files(own, sweep, level, seed)
    client.log_artifacts(run, str(own))
    client.set_terminated(run, "FINISHED")


class _Page(list[Any]):
    token: str | None = None


class MemoryClient:
    """As much of MlflowClient as ``store`` and reports need, without a database: seconds less."""

    PAGE = 7

    def __init__(self) -> None:
        self.experiments: dict[str, Any] = {}
        self.runs: dict[str, Any] = {}
        self.histories: dict[tuple[str, str], list[Any]] = {}
        self.clock = itertools.count(1_790_000_000_000, 1000)

    def create_experiment(self, name: str, tags: dict[str, str]) -> str:
        self.experiments[name] = SimpleNamespace(
            experiment_id=str(len(self.experiments)), name=name, tags=tags, lifecycle_stage="active"
        )
        return self.experiments[name].experiment_id

    def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> Any:
        run_id = f"{crc32(run_name.encode()):08x}{len(self.runs):024x}"
        info = SimpleNamespace(
            run_id=run_id,
            run_name=run_name,
            experiment_id=experiment,
            status="RUNNING",
            start_time=next(self.clock),
            end_time=None,
            artifact_uri="file:///nowhere",
        )
        data = SimpleNamespace(tags=tags, params={}, metrics={})
        self.runs[run_id] = SimpleNamespace(info=info, data=data)
        return self.runs[run_id]

    def set_tag(self, run: str, key: str, value: str) -> None:
        self.runs[run].data.tags[key] = value

    def log_param(self, run: str, key: str, value: str) -> None:
        self.runs[run].data.params[key] = value

    def log_metric(self, run: str, key: str, value: float, step: int = 0) -> None:
        self.runs[run].data.metrics[key] = value
        entry = SimpleNamespace(value=value, step=step, timestamp=next(self.clock))
        self.histories.setdefault((run, key), []).append(entry)

    def log_artifacts(self, run: str, folder: str) -> None:
        self.runs[run].info.artifact_uri = Path(folder).as_uri()

    def set_terminated(self, run: str, status: str) -> None:
        self.runs[run].info.status, self.runs[run].info.end_time = status, next(self.clock)

    def get_experiment_by_name(self, name: str) -> Any:
        return self.experiments.get(name)

    def get_metric_history(self, run: str, key: str) -> list[Any]:
        return self.histories.get((run, key), [])

    def search_experiments(self, page_token: str | None = None) -> _Page:
        return self._page(list(self.experiments.values()), page_token)

    def search_runs(
        self,
        experiment_ids: list[str],
        filter_string: str,
        max_results: int,
        order_by: list[str],
        page_token: str | None = None,
    ) -> _Page:
        role = re.fullmatch(r"tags\.role = '(\w+)'", filter_string)
        assert role and order_by == ["attributes.start_time ASC"]
        runs = [run for run in self.runs.values() if run.info.experiment_id in experiment_ids]
        found = [run for run in runs if run.data.tags["role"] == role[1]]
        return self._page(found, page_token)

    def _page(self, entries: list[Any], token: str | None) -> _Page:
        start = int(token or 0)
        page = _Page(entries[start : start + self.PAGE])
        more = start + self.PAGE < len(entries)
        page.token = str(start + self.PAGE) if more else None
        return page
