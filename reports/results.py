"""What a report is made of: one sweep as MLflow holds it."""

from __future__ import annotations

import json
import math
import shlex
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from reports.files import ReportError, is_damage, named_when_full
from reports.looks import read_level, read_seed_counts
from reports.measuring import Measuring

SEPARATOR = " / "  # Between the levels in the label of a combination
LEFT_OUT = "left out"  # How the reason begins of a trial that finished and cannot be read
K = TypeVar("K")
T = TypeVar("T")


class NothingFinished(ReportError):
    """A sweep that is planned, with ``planned`` trials, of which none has finished."""

    def __init__(self, message: str, planned: int) -> None:
        super().__init__(message)
        self.planned = planned


@dataclass(frozen=True)
class SweptFactor:
    """A setting that the sweep varied."""

    key: str
    label: str
    levels: tuple[Any, ...]
    unit: str
    numeric: bool
    when: str = "train"  # Or "evaluate": what is trained does not depend on it
    log: bool = False  # Whether its setting is declared to be looked at on a logarithmic scale

    @property
    def texts(self) -> list[str]:
        """The levels as MLflow keeps params: what is no string is written as JSON."""
        return [
            level if isinstance(level, str) else json.dumps(level, separators=(",", ":"))
            for level in self.levels
        ]

    @property
    def title(self) -> str:
        return self.label + (f" ({self.unit})" if self.unit else "")


@dataclass(frozen=True)
class ReportedMetric:
    """A metric as reports show it."""

    key: str
    label: str
    better: str  # "higher", "lower" or "none"
    unit: str
    weight: str = ""  # Of a mean over images: the column that these are weighted by
    delta: float | None = None  # Difference that matters, in the metric's unit

    @property
    def title(self) -> str:
        """The label with an arrow towards the better side."""
        return self.label + {"higher": " ↑", "lower": " ↓"}.get(self.better, "")

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Between what a value must lie, None where it may be anything."""
        return (0.0, 1.0) if self.unit == "share" else None

    @property
    def difference_bounds(self) -> tuple[float, float] | None:
        """Between what the difference of two values must lie."""
        return (-1.0, 1.0) if self.unit == "share" else None

    @property
    def in_parentheses(self) -> str:
        """The unit behind a name."""
        return f" ({self.unit})" if self.unit else ""


@dataclass(frozen=True)
class Samples:
    """The images of one trial; all lists have the length of the prompts."""

    ids: list[str]  # split/prompt#number of its image
    prompts: list[str]
    splits: list[str]
    images: list[str | None]  # Artifact path, or None where the image was not kept
    success: list[bool | None]  # None where nobody judged
    masks: list[str | None]  # Artifact path of the target masks, if there were any
    noise: list[int | None]  # Seed of its noise, or None where that was not recorded
    # Objects that the prompt names, its skills with blanks between, and of how many parts it is
    # made; None where not known
    objects: list[int | None] = field(default_factory=list)
    skills: list[str | None] = field(default_factory=list)
    atoms: list[int | None] = field(default_factory=list)
    # Metric, or what one is weighted by -> its value for each image, None where it has none; a
    # metric that is not there has no table (see `reports.per_image`)
    columns: dict[str, list[float | None]] = field(default_factory=dict)

    def success_by_prompt(self) -> dict[str, float]:
        """Prompt -> share of its images that are right, without prompts that nobody judged."""
        outcomes: dict[str, list[bool]] = {}
        for name, right in zip(self.ids, self.success, strict=True):
            if right is not None:
                outcomes.setdefault(name.partition("#")[0], []).append(right)
        return {name: sum(rights) / len(rights) for name, rights in outcomes.items()}


@dataclass
class Trial:
    """One finished seed of one cell."""

    seed: int
    run_id: str
    artifacts: str  # Where its files are: a URI
    minutes: float
    metrics: dict[str, float]
    seconds: dict[str, float]  # Phase -> its duration
    counts: dict[str, int]
    versions: dict[str, Any]
    samples: Samples | None
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)  # Metric -> how it was measured
    started: int = 0  # Milliseconds since 1970, UTC
    undefined: dict[str, str] = field(default_factory=dict)  # Metric without a number -> why
    # What trained and drew, read from what ran: "training", "sampling", and "differs", setting ->
    # what was asked and what ran
    ran: dict[str, dict[str, Any]] = field(default_factory=dict)
    # What its training logged, without `train/`; empty where it took an adapter that was there
    training: frozenset[str] = frozenset()
    # Digests of the parts of the code that made it; empty where that was not recorded
    code_parts: dict[str, str] = field(default_factory=dict)
    measuring: Measuring = field(default_factory=Measuring)
    # Metrics that other code measured than that of the other trials: they are not in ``metrics``
    other_code: set[str] = field(default_factory=set)
    # Versions of the libraries that measured it, where not those of ``versions``
    measured_with: dict[str, Any] = field(default_factory=dict)
    # ``setting=value`` -> digest of what lay in the files that it read; empty where not recorded
    contents: dict[str, str] = field(default_factory=dict)
    # How many prompts of each split it was measured on, the first of all; None where not recorded
    prompts: int | None = None

    @property
    def untrained(self) -> bool:
        """Whether nothing was trained for its images, neither before nor on each prompt."""
        return self.counts.get("trained_parameters") == 0 and not self.ran.get("training")


@dataclass
class CellResults:
    """One level of each factor, or the untouched backbone; others are compared with the control."""

    name: str
    label: str
    values: dict[str, str]
    run_id: str
    control: bool = False
    untouched: bool = False
    trials: dict[int, Trial] = field(default_factory=dict)
    unfinished: dict[int, str] = field(default_factory=dict)  # Seed -> why it is not there

    def per_seed(self, metric: str) -> dict[int, float]:
        """Seed -> value, without seeds for which the metric is undefined."""
        values = {seed: t.metrics.get(metric, math.nan) for seed, t in self.trials.items()}
        return {seed: value for seed, value in sorted(values.items()) if math.isfinite(value)}

    def without_value(self, metric: str) -> dict[int, str]:
        """Finished seed -> why the metric has no value there, where it says so or other seeds of
        the cell have one."""
        some = bool(self.per_seed(metric))
        return {
            seed: trial.undefined.get(metric, "not measured")
            for seed, trial in sorted(self.trials.items())
            if metric in trial.undefined
            or (some and metric not in trial.metrics and metric not in trial.other_code)
        }

    @property
    def untrained(self) -> bool:
        """Whether nothing was trained in any of its trials: its seeds are noises."""
        trials = self.trials.values()
        return bool(trials) and (self.untouched or all(trial.untrained for trial in trials))

    @property
    def mark(self) -> str:
        """How tables and files mark the cell: "untouched", "control" or ""."""
        return "control" if self.control else "untouched" if self.untouched else ""

    @property
    def marked_label(self) -> str:
        return self.label + (" (control)" if self.control else "")


@dataclass
class SweepResults:
    """One sweep; ``cells`` are in the order of the plan, the untouched backbone first."""

    sweep: str
    uri: str
    experiment_id: str
    tags: dict[str, str]
    factors: list[SweptFactor]
    metrics: list[ReportedMetric]
    headline: ReportedMetric
    seeds: list[int]
    config: dict[str, Any]
    published: list[dict[str, Any]]
    cells: list[CellResults]
    left_out: list[str]  # Cells of earlier plans
    folder: tempfile.TemporaryDirectory[str]  # Fetched artifacts live as long as the results
    without: list[dict[str, str]] = field(default_factory=list)  # Combinations that are not planned
    refused: dict[str, str] = field(default_factory=dict)  # Label of a hidden metric -> why
    within: str = ""  # Key of the factor whose levels have a control cell each
    # Label of a metric -> (cell, seed) whose values other code measured, and that do not count
    other_code: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    # Prompts that all trials have, where that is fewer than the most that one has: both numbers
    fewer_prompts: tuple[int, int] | None = None
    # (run id, artifact) of what could not be read -> where it is, and the cure
    damaged: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def levels(self) -> list[CellResults]:
        return [cell for cell in self.cells if not cell.untouched]

    @property
    def untouched(self) -> CellResults | None:
        return next((cell for cell in self.cells if cell.untouched), None)

    @property
    def controls(self) -> list[CellResults]:
        """What other cells are compared with: one cell, or with ``within`` one for each level."""
        return [cell for cell in self.cells if cell.control]

    @property
    def control(self) -> CellResults:
        return self.controls[0]

    def control_of(self, cell: CellResults) -> CellResults | None:
        """What ``cell`` is compared with.

        None for a control, and with ``within`` for an untouched backbone that is of no level.
        """
        if cell.control or not self.within:
            return None if cell.control else self.control
        level = cell.values.get(self.within)
        return next((base for base in self.controls if base.values[self.within] == level), None)

    @property
    def numeric(self) -> bool:
        """True where the levels are points on one numeric axis."""
        return len(self.factors) == 1 and self.factors[0].numeric

    @property
    def untrained(self) -> set[str]:
        """The cells for which nothing was trained."""
        return {cell.name for cell in self.cells if cell.untrained}

    @property
    def noun(self) -> str:
        """What a cell is: a level of the only factor, or a combination of levels."""
        return "level" if len(self.factors) == 1 else "combination"

    @property
    def level(self) -> float:
        """Of the intervals by which the answer goes (see ``reports.looks``)."""
        return read_level(self.tags)

    @property
    def primary(self) -> str:
        """The cell whose comparison was fixed as the primary one; empty for none."""
        return self.tags.get("primary", "")

    def seeds_of(self, cell: str) -> list[int]:
        """The planned seeds of a cell: one that was settled at an early look has fewer."""
        return self.seeds[: read_seed_counts(self.tags).get(cell, len(self.seeds))]

    def count_trials(self) -> tuple[int, int]:
        """How many trials have finished, and how many the plan has."""
        planned = sum(len(self.seeds_of(cell.name)) for cell in self.cells)
        return planned - sum(len(cell.unfinished) for cell in self.cells), planned

    def trials(self) -> Iterator[tuple[CellResults, Trial]]:
        for cell in self.cells:
            for _, trial in sorted(cell.trials.items()):
                yield cell, trial

    def fetch(self, trial: Trial, name: str) -> Path | None:
        """A trial's artifact as a local file, or None where it has none of that name."""
        return fetch(trial.artifacts, self.uri, name, Path(self.folder.name) / trial.run_id)

    def read(self, trial: Trial, name: str, read: Callable[[Path], T]) -> T | None:
        """What ``read`` makes of a trial's artifact; None where it has none of that name, or one
        that was cut off, which is noted in ``damaged``."""
        path = self.fetch(trial, name)
        if path is None:
            return None
        try:
            return read_artifact(path, name, trial.run_id, trial.artifacts, read)
        except DamagedArtifact as error:
            self.damaged[trial.run_id, name] = str(error)
            return None


def split_undefined(logged: dict[K, float]) -> tuple[dict[K, float], dict[K, str]]:
    """What a store has as numbers, and of each other metric what it is: MLflow gives infinity back
    as the largest float."""
    finite = {k: v for k, v in logged.items() if math.isfinite(v) and abs(v) < sys.float_info.max}
    undefined = {
        key: "NaN" if math.isnan(value) else "infinite"
        for key, value in logged.items()
        if key not in finite
    }
    return finite, undefined


def fetch(artifacts: str, tracking_uri: str, name: str, folder: Path) -> Path | None:
    """Bring the artifact ``name`` into ``folder``.

    Through the store itself: MlflowClient asks the database three times for each file.
    """
    if (folder / name).is_file():
        return folder / name
    with named_when_full(folder / name):
        return _download(artifacts, tracking_uri, name, folder)


def _download(artifacts: str, tracking_uri: str, name: str, folder: Path) -> Path | None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    store = get_artifact_repository(artifacts, tracking_uri=tracking_uri)
    if not any(item.path == name for item in store.list_artifacts(name.rpartition("/")[0] or None)):
        return None
    folder.mkdir(exist_ok=True)
    return Path(store.download_artifacts(name, str(folder)))


class DamagedArtifact(ReportError):
    """A file that a store holds only in part."""


def read_artifact(
    path: Path, name: str, run_id: str, artifacts: str, read: Callable[[Path], T]
) -> T:
    """What ``read`` makes of the fetched file ``path``. Raises DamagedArtifact."""
    try:
        return read(path)
    except ReportError:
        raise
    except Exception as error:
        if not is_damage(error):
            raise
        said = str(error).replace(str(path), name)
        reason = textwrap.shorten(said, 80, placeholder=" …") or type(error).__name__
        where = f"{hide_password(artifacts).rstrip('/')}/{name}"
        raise DamagedArtifact(
            f"{where} is damaged ({reason}): delete run {run_id} in MLflow, and the sweep's "
            "command brings it back"
        ) from error


def place_words(uri: str) -> str:
    """What a command must be given to find a store, with a blank before; "" for ``runs/mlflow.db``
    below this folder."""
    path = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or path.name != "mlflow.db":
        return f" tracking_uri={shlex.quote(hide_password(uri))}"
    folder, here = path.parent.resolve(), Path.cwd()
    if folder == here / "runs":
        return ""
    shown = folder.relative_to(here) if folder.is_relative_to(here) else folder
    return f" output={shlex.quote(str(shown))}"


def sweep_command(sweep: str, tags: Mapping[str, str], uri: str) -> str:
    """The command that a sweep was begun with, on its store; an experiment does not keep where it
    is."""
    return tags.get("command", f"python -m sweeps.{sweep}") + place_words(uri)


def hide_password(uri: str) -> str:
    """A URI without user and password."""
    scheme, separator, rest = uri.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2] if separator else rest}"
