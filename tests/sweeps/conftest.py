"""A sweep over a fake trainer: what is tested is the engine, so a trial takes milliseconds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.driving import Start, starting
from helpers.memory_mlflow import in_memory
from helpers.sweep_states import SWEEP

from conf import load as conf
from conf.schema import Run
from lightning_modules.evaluation.manifest import end_drawn, write_manifest
from lightning_modules.tracking.mlflow import SeedRun, Tracking, client
from lightning_modules.tracking.provenance import measuring_tags
from lightning_modules.training.progress import Clock
from lightning_modules.training.versions import measured_by
from reports import report
from sweeps.command import main


def success(config: Run) -> float:
    """What the fake trainer measures: known, different for every cell and seed."""
    threshold = config.evaluate_with.get("method.gate.threshold", config.method.gate.threshold)
    return (0.2 if config.method.name == "untouched" else threshold) + 0.01 * config.seed**2


class Trainer:
    """Stands for `lightning_modules.training.run.run`; `before` may raise, `change` may spoil the
    metrics."""

    def __init__(self) -> None:
        self.ran: list[Run] = []
        self.before: Callable[[Run, int], None] = lambda config, count: None
        self.change: Callable[[Run, dict[str, float]], dict[str, float]] = lambda config, metrics: (
            metrics
        )
        self.measured: Callable[[Run], dict[str, Any] | None] = lambda config: measured_by(
            config, {"success": "judge", "fid": "distribution"}
        )

    def draw(self, config: Run, folder: Path) -> dict[str, Any]:
        """Two empty files for images, their list, and the table that names them."""
        if not config.evaluation.draw_only:
            return {}
        place = Path(config.output) / "images" / conf.digest({"folder": str(folder)})
        place.mkdir(parents=True, exist_ok=True)
        rows = []
        for number in (0, 1):
            (place / f"{number}.png").touch()
            rows.append({"image": f"{place.name}/{number}.png", "seed": config.seed})
        write_manifest(Path(f"{place}.jsonl"), rows)
        return {"images": 2, "manifest": f"{place}.jsonl"}

    @property
    def names(self) -> list[tuple[str, float, int]]:
        return [
            (config.method.name, config.method.gate.threshold, config.seed) for config in self.ran
        ]

    def __call__(
        self, config: Run, folder: Path, tracking: Tracking | None, progress: Any
    ) -> dict[str, Any]:
        assert tracking is not None
        self.ran.append(config)
        with SeedRun(tracking) as seed_run:
            progress("training: step 1/2", 0.3)
            self.before(config, len(self.ran))
            images = self.draw(config, folder)
            if config.evaluation.draw_only:
                return end_drawn(images, {}, Clock(), folder, seed_run)
            metrics = self.change(
                config, {"eval/success": success(config), "eval/fid": 30.0 - config.seed}
            )
            seconds = {"train": 1.5, "evaluate": 0.5}
            measured = self.measured(config)
            result = {"metrics": metrics, "seconds": seconds, "measured": measured}
            seed_run.note(measuring_tags(result))
            seed_run.log_metrics(metrics)
            (folder / "result.json").write_text(json.dumps(result))
            seed_run.log_artifacts(folder)
        return result


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables take seconds to make: once for all tests."""
    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    client(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def output(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """An output folder; MLflow's store is in memory, but for slow tests in a database."""
    folder = tmp_path / "runs"
    folder.mkdir()
    if request.node.get_closest_marker("slow"):
        shutil.copy(request.getfixturevalue("empty_database"), folder / "mlflow.db")
        yield folder
    else:
        (folder / "mlflow.db").touch()
        with in_memory():
            yield folder


@pytest.fixture
def trainer() -> Trainer:
    return Trainer()


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the reports written; the report itself has its own tests."""
    written: list[str] = []

    def write(uri: str, name: str, folder: Path) -> Path:
        written.append(name)
        (folder / "report.json").write_text(json.dumps({"answer": "It does."}))
        (folder / "report.pdf").write_bytes(b"%PDF")
        return folder / "report.pdf"

    monkeypatch.setattr(report, "write_report", write)
    monkeypatch.setattr(report, "attach_report", lambda uri, name, folder, began: "")
    return written


@pytest.fixture
def sweep(output: Path, trainer: Trainer, reports: list[str]) -> Callable[..., int]:
    """Runs the sweep as the command line would: `sweep("seeds=2")` returns the exit status."""

    def run(*words: str) -> int:
        return main(SWEEP, [f"output={output}", *words], train=trainer)

    return run


@pytest.fixture
def start(output: Path) -> Iterator[Start]:
    """Starts drivers in processes of their own; whatever a test leaves of them is ended."""
    with starting(output) as start:
        yield start


@pytest.fixture
def mlflow(output: Path) -> Any:
    return client(f"sqlite:///{output / 'mlflow.db'}")
