"""One MLflow database for all report tests, filled as the planner and the trials fill it. Creating it takes seconds, so it is made once."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
import pytest

KEY = "method.gate.threshold"
LABELS = {
    "recipe": "Method", "preset": "Preset",
    "method.gate.bias": "Start bias", "method.gate.surrogate": "Surrogate", "method.gate.protect": "Protected tokens",
    "method.gate.keep": "Kept share",
}  # fmt: skip
SPECIAL = "*bold* #panic() $x$ _ & % <b> `code` \\alpha {y} | ~^ [z](w) 漢 −"
METRICS = [
    {"key": "success", "label": "Success", "better": "higher", "unit": "share"},
    {"key": "success_val", "label": "Success, seen pairs", "better": "higher", "unit": "share"},
    {
        "key": "success_heldout",
        "label": "Success, held-out pairs",
        "better": "higher",
        "unit": "share",
    },
    {"key": "score", "label": "Graded score", "better": "higher", "unit": "probability"},
    {"key": "object_rate", "label": "Objects right", "better": "higher", "unit": "share"},
    {"key": "color_rate", "label": "Colours right", "better": "higher", "unit": "share"},
    {"key": "shape_rate", "label": "Shapes right", "better": "higher", "unit": "share"},
    {"key": "relation_rate", "label": "Relations right", "better": "higher", "unit": "share"},
    {"key": "extra_objects", "label": "Extra objects", "better": "lower", "unit": "per image"},
    {"key": "fid", "label": "FID", "better": "lower", "unit": ""},
    {"key": "precision", "label": "Precision", "better": "higher", "unit": "share"},
    {"key": "recall", "label": "Recall", "better": "higher", "unit": "share"},
    {"key": "gate_closed", "label": "Gates closed", "better": "none", "unit": "share"},
]


@dataclass
class Fake:
    """One sweep to put into MLflow. `value(metric, level, seed)` gives a trial's number, or None where it has none; level None is the
    untouched backbone. With `factors`, key -> levels, each of `levels` is a combination."""

    name: str
    value: Callable[[str, Any, int], float | None]
    levels: tuple[Any, ...] = (0.4, 0.5, 0.6)
    baseline: Any = 0.5
    seeds: int = 3
    numeric: bool = True
    metrics: list[dict[str, str]] = field(default_factory=lambda: METRICS[:1])
    images: bool = False
    failed: dict[tuple[Any, int], str] = field(default_factory=dict)  # (level, seed) -> error
    running: tuple[tuple[Any, int], ...] = ()
    unstarted: bool = False
    tags: dict[str, str] = field(default_factory=dict)
    factors: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    within: str = ""  # key of the first factor, whose levels have a baseline cell each
    made: Callable[[Any], dict[str, Any]] = (
        lambda level: {}
    )  # what else is said of the versions that made a level's trials
    facts: dict[str, dict[str, Any]] = field(
        default_factory=dict
    )  # metric -> what it was measured with
    config: dict[str, Any] = field(
        default_factory=dict
    )  # section -> settings that differ from the others' fakes
    first_seed: int = 0
    trained: Callable[[Any, int], bool] = lambda level, seed: (
        False
    )  # whether a trial logged a training of its own

    def values(self, level: Any) -> dict[str, str]:
        """Swept key -> level, as MLflow keeps them."""
        if level is None:
            return {}
        return (
            {key: str(part) for key, part in zip(self.factors, level, strict=True)}
            if self.factors
            else {KEY: str(level)}
        )

    def cell(self, level: Any) -> str:
        if level is None:
            return "baseline: untouched backbone"
        return ", ".join(
            f"{key.rpartition('.')[2]}={text}" for key, text in self.values(level).items()
        )

    def described(self) -> list[dict[str, Any]]:
        if not self.factors:
            return [
                {
                    "key": KEY,
                    "label": "Gate threshold",
                    "levels": list(self.levels),
                    "unit": "",
                    "numeric": self.numeric,
                }
            ]
        return [
            {
                "key": key,
                "label": LABELS[key],
                "levels": list(levels),
                "unit": "",
                "numeric": not isinstance(levels[0], str),
            }
            for key, levels in self.factors.items()
        ]

    def compared_with(self, level: Any) -> bool:
        """Whether others are compared with the cell of this level."""
        return level is not None and (
            level[1:] == self.baseline[1:] if self.within else level == self.baseline
        )

    def trials(self) -> list[tuple[Any, int]]:
        return (
            [] if self.unstarted else list(itertools.product((None, *self.levels), self.seed_list))
        )

    @property
    def seed_list(self) -> list[int]:
        return list(range(self.first_seed, self.first_seed + self.seeds))


def factorial(metric: str, level: Any, seed: int) -> float | None:
    """Damage where gates start half closed, little noise; what only gates have, the untouched backbone has not."""
    if metric in ("gate_closed", "overhead", "parameters", "gates_reopened") and level is None:
        return None
    if metric == "parameters":
        return 465921.0
    bias, surrogate, protect = level or (2.0, "renormalised", "bos")
    own = np.random.default_rng([seed, len(metric), crc32(repr(level).encode())]).normal(0, 0.006)
    shared = np.random.default_rng([seed, len(metric)]).normal(0, 0.02)
    damage = (
        0.25
        * (bias == 0.0)
        * (1.5 if surrogate == "released" else 1.0)
        * (1.2 if protect == "none" else 1.0)
    )
    base = {"overhead": 1.2, "fid": 31.0, "gate_closed": 0.03}.get(metric, 0.74)
    return round(
        base
        + own
        + shared
        + damage * {"gate_closed": 1.0, "fid": 9.0, "overhead": 0.0}.get(metric, -1.0),
        6,
    )


def noisy(
    spread: float, effect: dict[Any, float] | None = None
) -> Callable[[str, Any, int], float]:
    """Numbers shaped like a sweep's: a base per metric, seed noise that all cells share, and a little of their own."""
    base = {
        "fid": 31.0,
        "extra_objects": 0.4,
        "gate_closed": 0.2,
        "recall": 0.55,
        "precision": 0.62,
    }

    def value(metric: str, level: Any, seed: int) -> float:
        shared = np.random.default_rng([seed, len(metric)]).normal(0, 0.02)
        cell = int(100 * level) if isinstance(level, float) else sum(map(ord, str(level)))
        own = np.random.default_rng([seed, len(metric), 7 + cell]).normal(0, spread)
        scale = 20 if metric == "fid" else 1
        slope = {"recall": -0.35, "precision": 0.25, "gate_closed": 1.2, "fid": 0.6}.get(
            metric, 0.0
        )
        place = slope * ((level - 0.5) if isinstance(level, float) else 0.0)
        if metric == "gate_closed" and level is None:
            return 0.0
        return round(
            base.get(metric, 0.48)
            + scale * (shared + own + place + (effect or {}).get(level, 0.0)),
            6,
        )

    return value


GRID = {
    "method.gate.bias": (0.0, 2.0, 4.0),
    "method.gate.surrogate": ("released", "renormalised"),
    "method.gate.protect": ("none", "bos", "specials"),
}
BLOCKS = {"maskattn": 0.1, "mcgm": 0.3, "sound": 0.0, "released": -0.05}
PLANE = {"method.gate.bias": (0.0, 1.0, 2.0, 4.0), "method.gate.keep": (0.25, 0.5, 0.75)}


def plane(metric: str, level: Any, seed: int) -> float | None:
    """Best in the middle; one corner is clearly worse."""
    bias, keep = level or (2.0, 0.5)
    own = np.random.default_rng([seed, crc32(repr(level).encode())]).normal(0, 0.004)
    return round(
        0.7 + 0.01 * seed + own - 0.02 * abs(bias - 2.0) - 0.3 * (bias == 0.0 and keep == 0.25), 6
    )


FAKES = [
    Fake(
        "plane",
        plane,
        levels=tuple(level for level in itertools.product(*PLANE.values()) if level != (4.0, 0.75)),
        baseline=(2.0, 0.5),
        factors=PLANE,
        failed={((1.0, 0.25), seed): "RuntimeError: diverged" for seed in range(3)}
        | {((4.0, 0.5), 1): "RuntimeError: diverged"},
        tags={"without": json.dumps([{"method.gate.bias": "4.0", "method.gate.keep": "0.75"}])},
        trained=lambda level, seed: (
            level is not None and level[1] == 0.5
        ),  # the adapters of other kept shares were there already
    ),
    Fake(
        "threshold",
        noisy(0.012),
        levels=(0.3, 0.4, 0.5, 0.6, 0.7),
        metrics=METRICS,
        images=True,
        trained=lambda level, seed: level is not None,
        tags={
            "question": "Is 0.5 the best gate threshold, and what is the precision–recall trade?",
            "origin": "MaskAttn-SDXL sets the threshold to 0.5 and does not vary it (section 4.3).",
            "published": json.dumps(
                [
                    {
                        "what": "MaskAttn-SDXL",
                        "metric": "FID",
                        "value": "24.57",
                        "data": "COCO val2014",
                        "backbone": "SDXL",
                        "n": "3,000",
                        "source": "Table I",
                    }
                ]
            ),
        },
    ),
    Fake(
        "clear",
        noisy(0.004, {"soft": -0.3, None: -0.2}),
        levels=("hard", "soft", "top_k"),
        baseline="hard",
        numeric=False,
    ),
    Fake("same", lambda metric, level, seed: 0.5 + 0.01 * seed, metrics=METRICS[:2]),
    Fake(
        "broken",
        noisy(0.01),
        failed={
            (0.6, 2): f"Traceback …\nRuntimeError: {SPECIAL}",
            (0.4, 0): "OutOfMemoryError: 3 GiB",
        },
        running=((0.4, 1),),
        images=True,
        made=lambda level: {"dirty": True, "code": "0b501e7e" if level == 0.6 else "c0ffee00"},
        tags={
            "question": SPECIAL,
            "origin": SPECIAL,
            "published": json.dumps([{"what": SPECIAL, "metric": "FID", "value": 1.5}]),
        },
    ),
    Fake("eight", noisy(0.004, {0.6: 0.1}), levels=(0.5, 0.6), seeds=8),
    Fake("unstarted", noisy(0.0), unstarted=True),
    Fake(
        "grid",
        factorial,
        levels=tuple(itertools.product(*GRID.values())),
        baseline=(2.0, "renormalised", "bos"),
        factors=GRID,
        metrics=[
            *METRICS,
            {"key": "overhead", "label": "UNet time", "better": "lower", "unit": "× without gates"},
            {"key": "parameters", "label": "Trained parameters", "better": "lower", "unit": ""},
            {
                "key": "gates_reopened",
                "label": "Gates re-opened",
                "better": "none",
                "unit": "share",
            },
        ],
        images=True,
        tags={"question": "What do the released gate choices cost?"},
    ),
    Fake(
        "blocks",
        lambda metric, level, seed: (
            0.3
            + 0.01 * seed
            + sum(BLOCKS[part] for part in level or ())
            - 0.002 * seed**2 * (level is None)
        ),
        levels=tuple(itertools.product(("maskattn", "mcgm"), ("sound", "released"))),
        baseline=("maskattn", "sound"),
        factors={"recipe": ("maskattn", "mcgm"), "preset": ("sound", "released")},
        within="recipe",
        images=True,
    ),
]


def _write(folder: Path, fake: Fake, level: Any, seed: int) -> None:
    from PIL import Image, ImageDraw

    folder.mkdir(parents=True)
    (folder / "result.json").write_text(
        json.dumps({
            "metrics": {},
            "counts": {"trained_parameters": 0 if level is None else 123456},
            "seconds": {"data": 1.5, "train": 0.0 if level is None else 20.0, "evaluate": 12.0},
            "versions": {"commit": "0123456789abcdef", "dirty": False, "hardware": "2 CPU cores", "torch": "2.13.0", "lightning": "2.6.6"}
            | fake.made(level),
            "facts": fake.facts,
        })
    )  # fmt: skip
    (folder / "environment.txt").write_text("torch==2.13.0\n")
    if fake.made(level).get("dirty"):
        (folder / "changes.diff").write_text("--- a/x.py\n+++ b/x.py\n")
    val = {
        "layout": "coco",
        "split": "val",
        "captions": 1720,
        "facts": {"root": "/data", "images": "1b68"},
        "count": 512,
        "problems": {},
    }
    (folder / "data.json").write_text(
        json.dumps({"train": 2048, "evaluation": {"val": val}, "notes": []})
    )
    if not fake.images:
        return
    (folder / "samples").mkdir()
    colors, shapes = ("red", "green", "blue", "orange"), ("circle", "square", "star")
    prompts, images, success = [], [], []
    cell = (
        int(100 * level)
        if isinstance(level, float)
        else 0
        if level is None
        else crc32(repr(level).encode())
    )
    rng = np.random.default_rng([seed, cell])
    for i in range(32):
        split = "val" if i < 16 else "heldout"
        a, b = colors[i % 4], colors[(i + 1) % 4]
        text = (
            SPECIAL
            if fake.name == "broken" and i == 0
            else f"a {a} {shapes[i % 3]} to the left of a {b} {shapes[(i + 1) % 3]}"
        )
        prompts.append({"split": split, "prompt": text, "id": i % 16})
        success.append(bool(rng.random() < 0.5))
        images.append(f"samples/{i:03d}.png" if i % 16 < 6 else None)
        if images[-1]:
            image = Image.new("RGB", (64, 64), (225, 225, 220))
            draw = ImageDraw.Draw(image)
            x, y = rng.integers(2, 14, 2)
            draw.ellipse((x, y + 10, x + 22, y + 32), fill=a)
            draw.rectangle((x + 28, y + 12, x + 46, y + 32), fill=b)
            image.save(folder / images[-1])
    table = pd.DataFrame({
        "split": [p["split"] for p in prompts], "id": [str(p["id"]) for p in prompts], "prompt": [p["prompt"] for p in prompts],
        "noise": range(1000 * seed, 1000 * seed + 32), "sample": images, "success": success, "score": 0.5,
        "mask": pd.Series([None] * 32, dtype=object),
    })  # fmt: skip
    if (
        fake.name == "grid"
    ):  # as methods that are steered by masks, and those whose attention is looked at
        for name in filter(None, images):
            targets = np.zeros((64, 64), np.uint8)
            targets[10:30, 5:25], targets[30:50, 30:60] = 1, 2
            Image.fromarray(targets).save(folder / name.replace(".png", "-mask.png"))
        table["mask"] = [name and name.replace(".png", "-mask.png") for name in images]
        Image.fromarray((rng.random((120, 100)) * 255).astype(np.uint8)).save(folder / "maps.png")
        (folder / "maps.json").write_text(
            json.dumps(
                [{"prompt": prompts[0]["prompt"], "timestep": 500, "objects": ["red circle"]}]
            )
        )
    table.to_parquet(folder / "scores.parquet")
    if level is not None:
        told = [
            {"prompt": p["prompt"], "tokens": ["BOS", "a", "EOS"], "open": {"16": [1.0, 0.5, 0.5]}}
            for p in (prompts[0], prompts[16])
        ]
        (folder / "gates.json").write_text(json.dumps(told))
        maps = (np.kron(rng.random((4, 10)), np.ones((40, 40))) * 255).astype(np.uint8)
        Image.fromarray(maps).save(folder / "gates.png")


def fill(client: Any, fake: Fake, folder: Path, server: bool = False) -> None:
    """Put one sweep into MLflow as planner and trials do; files below `folder`, or where a server keeps them."""
    config = {
        "backbone": {"name": "embedded", "path": "embedded", "dtype": "float32", "resolution": 64},
        "method": {"name": "maskattn", "gate": {"threshold": 0.5, "stage": "all", "placement": "both", "bias": 2.0, "protect": "bos"}},
        "data": {"name": "shapes", "root": "auto", "train_images": 2048, "eval_images": 512, "workers": 0},
        "trainer": {"steps": 60, "batch": 16, "lr": 0.001, "weight_decay": 0.01, "precision": "32-true"},
        "evaluation": {"splits": ["val", "heldout"], "prompts": 64, "steps": 12, "guidance": 3.0}, "seeds": fake.seeds, "output": "runs",
    }  # fmt: skip
    config = {
        key: {**part, **fake.config.get(key, {})} if isinstance(part, dict) else part
        for key, part in config.items()
    }
    tags = {
        "sweep": fake.name,
        "question": "Does it matter?",
        "origin": "",
        "factor_keys": json.dumps([entry["key"] for entry in fake.described()]),
        "factors": json.dumps(fake.described()),
        "within": fake.within,
        "metrics": json.dumps(fake.metrics),
        "headline": "success",
        "seeds": json.dumps(fake.seed_list),
        "config": json.dumps(config),
        "command": f"python -m sweeps.{fake.name}",
        "published": "[]",
        "evaluation": "64 prompts per split (val, heldout), 12 sampler steps, guidance 3.0, noise seed = trial seed",
    }
    location = None if server else (folder / "artifacts" / fake.name).as_uri()
    experiment = client.create_experiment(
        fake.name, artifact_location=location, tags=tags | fake.tags
    )
    cells = {}
    for level in (*reversed(fake.levels), None):  # not the order of the plan
        name = fake.cell(level)
        marks = (
            {"reference": "true"}
            if level is None
            else {"baseline": "true"}
            if fake.compared_with(level)
            else {}
        )
        run = client.create_run(
            experiment, run_name=name, tags={"role": "cell", "cell": name, **marks}
        )
        for key, text in fake.values(level).items():
            client.log_param(run.info.run_id, key, text)
        cells[level] = run.info.run_id
    for level, seed in fake.trials():
        _trial(client, fake, experiment, cells[level], level, seed, folder)


def _trial(
    client: Any, fake: Fake, experiment: str, parent: str, level: Any, seed: int, folder: Path
) -> None:
    from mlflow.entities import Metric, Param

    run = client.create_run(
        experiment, run_name=f"seed={seed}", tags={"role": "seed", "mlflow.parentRunId": parent}
    ).info.run_id
    params = [
        Param("seed", str(seed)),
        *(Param(key, text) for key, text in fake.values(level).items()),
    ]
    if (level, seed) in fake.running:
        client.log_batch(run, params=params)
        return
    if (level, seed) in fake.failed:
        client.log_batch(run, params=params)
        client.set_tag(run, "error", fake.failed[level, seed])
        client.set_terminated(run, "FAILED")
        return
    measured = {m["key"]: fake.value(m["key"], level, seed) for m in fake.metrics}
    values = [
        Metric(f"eval/{key}", value, 0, 0) for key, value in measured.items() if value is not None
    ]
    if fake.trained(level, seed):
        rng = np.random.default_rng([seed, 3])
        for step in range(10, 61, 10):
            values += [
                Metric("train/loss", float(rng.normal(0.2, 0.03)), 0, step),
                Metric("train/gate_closed", step / 100, 0, step),
            ]
    client.log_batch(run, metrics=values, params=params)
    own = folder / "trials" / fake.name / f"{fake.cell(level)}-{seed}"
    _write(own, fake, level, seed)
    client.log_artifacts(run, str(own))
    client.set_terminated(run, "FINISHED")


@pytest.fixture(scope="session")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Tracking URI of a database with all of FAKES."""
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("mlflow")
    address = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=address)
    for fake in FAKES:
        fill(client, fake, folder)
    return address


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server with two small sweeps, `pair`, and `left_off`, which is not finished."""
    from helpers.mlflow_server import Server
    from mlflow import MlflowClient

    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    try:
        server.wait()
        client = MlflowClient(tracking_uri=server.url)
        for fake in (
            Fake("pair", noisy(0.004, {0.6: 0.1}), levels=(0.5, 0.6), seeds=2),
            Fake(
                "left_off",
                noisy(0.004),
                levels=(0.5, 0.6),
                seeds=2,
                failed={(0.6, 1): "OutOfMemoryError"},
                running=((None, 1),),
            ),
        ):
            fill(client, fake, server.folder, server=True)
        yield server.url
    finally:
        server.kill()


@pytest.fixture(scope="session")
def report(uri: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder with the report of a sweep, written once."""
    from reports.document import write

    done: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in done:
            done[name] = tmp_path_factory.mktemp(name)
            write(uri, name, done[name])
        return done[name]

    return folder


@pytest.fixture(scope="session")
def study(uri: str) -> Callable[[str], Any]:
    """A collected sweep, read once."""
    from functools import cache

    from reports.collect import collect

    return cache(lambda name: collect(uri, name))


@pytest.fixture(scope="session")
def text_of() -> Callable[[Path], str]:
    """What a PDF says, its pages parted by form feeds."""

    def read(pdf: Path) -> str:
        if shutil.which("pdftotext") is None:
            pytest.skip("needs pdftotext (poppler)")
        return subprocess.run(
            ["pdftotext", "-layout", str(pdf), "-"], capture_output=True, text=True, check=True
        ).stdout

    return read


@pytest.fixture(scope="session")
def special() -> str:
    """Text that typst, Markdown, LaTeX or matplotlib would run if it were pasted."""
    return SPECIAL


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that are written into figures from here on, in order."""
    from matplotlib.axes import Axes

    texts: list[str] = []
    write = Axes.text
    monkeypatch.setattr(
        Axes,
        "text",
        lambda axes, x, y, text, **how: texts.append(text) or write(axes, x, y, text, **how),
    )
    return texts
