"""What a report is made of: one sweep as MLflow holds it."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PARTED = " / "  # between the levels in the label of a combination


class ReportError(Exception):
    """One line that says what is missing and what to do."""


class NothingFinished(ReportError):
    """A sweep that is planned, with `planned` trials, of which none has finished."""

    def __init__(self, message: str, planned: int) -> None:
        super().__init__(message)
        self.planned = planned


@dataclass(frozen=True)
class Factor:
    key: str
    label: str
    levels: tuple[Any, ...]
    unit: str
    numeric: bool
    when: str = "train"  # or "evaluate": what is trained does not depend on it

    @property
    def texts(self) -> list[str]:
        """The levels as MLflow keeps params, as text: one that is no string is written as JSON."""
        return [level if isinstance(level, str) else json.dumps(level, separators=(",", ":")) for level in self.levels]


@dataclass(frozen=True)
class Metric:
    key: str
    label: str
    better: str  # "higher", "lower" or "none"
    unit: str


@dataclass(frozen=True)
class Samples:
    """The images of one trial and whether each is right; all lists have the length of the prompts."""

    ids: list[str]  # split/prompt#number of its image
    prompts: list[str]
    splits: list[str]
    images: list[str | None]  # artifact path, or None where the image was not kept
    success: list[bool | None]  # None where nobody judged
    masks: list[str | None]  # artifact path of the target masks, or None where there was nothing to follow
    noise: list[int | None]  # seed of its noise, or None where that was not recorded

    def by_prompt(self) -> dict[str, float]:
        """Prompt -> share of its images that are right, without prompts that nobody judged."""
        found: dict[str, list[bool]] = {}
        for name, right in zip(self.ids, self.success, strict=True):
            if right is not None:
                found.setdefault(name.partition("#")[0], []).append(right)
        return {name: sum(outcomes) / len(outcomes) for name, outcomes in found.items()}


@dataclass
class Trial:
    """One finished seed of one cell. `seconds` maps a phase to its duration."""

    seed: int
    run_id: str
    artifacts: str  # where its files are: a URI
    minutes: float
    metrics: dict[str, float]
    seconds: dict[str, float]
    counts: dict[str, int]
    versions: dict[str, Any]
    samples: Samples | None
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)  # metric -> what it was measured with
    started: int = 0  # milliseconds since 1970, UTC
    training: frozenset[str] = frozenset()  # what its training logged, without `train/`; empty where it took an adapter that was there


@dataclass
class Cell:
    """One level of each factor, or the untouched backbone (`reference`)."""

    name: str
    label: str
    values: dict[str, str]
    run_id: str
    baseline: bool = False
    reference: bool = False
    trials: dict[int, Trial] = field(default_factory=dict)
    unfinished: dict[int, str] = field(default_factory=dict)  # seed -> why it is not there

    def per_seed(self, metric: str) -> dict[int, float]:
        """Seed -> value, without seeds for which the metric is undefined."""
        found = {seed: trial.metrics.get(metric, math.nan) for seed, trial in self.trials.items()}
        return {seed: value for seed, value in sorted(found.items()) if math.isfinite(value)}


@dataclass
class Study:
    """One sweep as MLflow holds it. `cells` are in the order of the plan: the untouched backbone, then the levels."""

    sweep: str
    uri: str
    experiment_id: str
    tags: dict[str, str]
    factors: list[Factor]
    metrics: list[Metric]
    headline: Metric
    seeds: list[int]
    config: dict[str, Any]
    published: list[dict[str, Any]]
    cells: list[Cell]
    left_out: list[str]  # cells of earlier plans
    folder: tempfile.TemporaryDirectory[str]  # fetched artifacts live as long as the study
    without: list[dict[str, str]] = field(default_factory=list)  # combinations that the plan leaves out: factor key -> level
    refused: dict[str, str] = field(default_factory=dict)  # label of a metric that is not shown -> why
    within: str = ""  # key of the factor whose levels have a baseline cell each

    @property
    def levels(self) -> list[Cell]:
        return [cell for cell in self.cells if not cell.reference]

    @property
    def baselines(self) -> list[Cell]:
        """What the other cells are compared with: one cell, or with `within` one for each level of that factor."""
        return [cell for cell in self.cells if cell.baseline]

    @property
    def baseline(self) -> Cell:
        """The first of them."""
        return self.baselines[0]

    def base_of(self, cell: Cell) -> Cell | None:
        """What `cell` is compared with; None for a baseline cell, and with `within` for an untouched backbone that is of no level."""
        if cell.baseline or not self.within:
            return None if cell.baseline else self.baseline
        return next((base for base in self.baselines if base.values[self.within] == cell.values.get(self.within)), None)

    @property
    def base_words(self) -> str:
        """The cell that others are compared with, in a sentence: `0.5`, or `sound of the same method`."""
        if not self.within:
            return self.words(self.baseline)
        levels = PARTED.join(level for key, level in self.baseline.values.items() if key != self.within)
        return levels + self.of_same

    @property
    def of_same(self) -> str:
        """With `within`, whose baseline is meant: ` of the same method`; else nothing."""
        block = next((factor for factor in self.factors if factor.key == self.within), None)
        return f" of the same {block.label[:1].lower()}{block.label[1:]}" if block else ""

    @property
    def reference(self) -> Cell | None:
        return next((cell for cell in self.cells if cell.reference), None)

    @property
    def numeric(self) -> bool:
        """True where the levels are points on one numeric axis."""
        return len(self.factors) == 1 and self.factors[0].numeric

    @property
    def noun(self) -> str:
        """What a cell is: a level of the only factor, or a combination of levels."""
        return "level" if len(self.factors) == 1 else "combination"

    def words(self, cell: Cell) -> str:
        """A cell in a sentence, where no heading says which level is of which factor."""
        return cell.label if cell.reference or len(self.factors) == 1 else cell.name

    @property
    def planned(self) -> int:
        """How many trials the plan has."""
        return len(self.cells) * len(self.seeds)

    @property
    def lacking(self) -> int:
        """How many of them have not finished."""
        return sum(len(cell.unfinished) for cell in self.cells)

    def trials(self) -> Iterator[tuple[Cell, Trial]]:
        for cell in self.cells:
            for _, trial in sorted(cell.trials.items()):
                yield cell, trial

    def history(self, trial: Trial, metric: str) -> dict[int, float]:
        """Step -> value of what a trial's training logged, without values that are not finite. One request."""
        from mlflow import MlflowClient

        found = MlflowClient(tracking_uri=self.uri).get_metric_history(trial.run_id, f"train/{metric}")
        latest = sorted(found, key=lambda entry: (entry.step, entry.timestamp))  # of a step that was done twice, the last counts
        return {entry.step: entry.value for entry in latest if math.isfinite(entry.value)}

    def fetch(self, trial: Trial, name: str) -> Path | None:
        """A trial's artifact as a local file, or None where it has none of that name."""
        return fetch(trial.artifacts, self.uri, name, Path(self.folder.name) / trial.run_id)


def fetch(artifacts: str, tracking_uri: str, name: str, folder: Path) -> Path | None:
    """Bring the file `name` into `folder`. Through the store itself: MlflowClient asks the database three times for each file."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    if (folder / name).is_file():
        return folder / name
    store = get_artifact_repository(artifacts, tracking_uri=tracking_uri)
    if not any(item.path == name for item in store.list_artifacts(name.rpartition("/")[0] or None)):
        return None
    folder.mkdir(exist_ok=True)
    return Path(store.download_artifacts(name, str(folder)))


def public(uri: str) -> str:
    """A URI without user and password."""
    scheme, separator, rest = uri.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2] if separator else rest}"
