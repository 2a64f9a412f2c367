"""Stored sweeps for all report tests: in memory, and a small real database."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from helpers.stored_sweeps import SPECIAL, SWEEPS, MemoryClient, StoredSweep, noisy, store

from reports import collect as collect_module
from reports.collect import collect
from reports.report import write_report
from reports.results import SweepResults
from reports.tables import compare_cells

MEMORY = "memory:"
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
connect_to_mlflow = collect_module.connect


@pytest.fixture(scope="session")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MemoryClient]:
    """An MLflow of all SWEEPS, at the tracking URI ``MEMORY``."""
    client, folder = MemoryClient(), tmp_path_factory.mktemp("stored")
    for sweep in SWEEPS:
        store(client, sweep, folder)

    def connect(uri: str) -> Any:
        return client if uri == MEMORY else connect_to_mlflow(uri)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collect_module, "connect", connect)
        yield client


@pytest.fixture(scope="session")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Tracking URI of a database with three small sweeps."""
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("mlflow")
    address = f"sqlite:///{folder / 'mlflow.db'}"

    class Client(MlflowClient):
        def create_experiment(self, name: str, tags: Any) -> str:  # type: ignore[override]
            return super().create_experiment(name, (folder / "artifacts" / name).as_uri(), tags)

    images = {"images": True, "trained": lambda level, seed: level is not None}
    for sweep in (
        StoredSweep("pair", noisy(0.004, {0.6: 0.1}), levels=(0.5, 0.6), seeds=2, **images),
        StoredSweep("left_off", noisy(0.01), levels=(0.5, 0.6), seeds=2, running=((0.6, 1),)),
        StoredSweep("unstarted", noisy(0.0), unstarted=True),
    ):
        store(Client(tracking_uri=address), sweep, folder)
    return address


@pytest.fixture(scope="session")
def results(memory: MemoryClient) -> Callable[[str], SweepResults]:
    """A collected sweep, read once."""
    return cache(lambda name: collect(MEMORY, name))


@pytest.fixture(scope="session")
def entries(results: Callable[[str], SweepResults]) -> Callable[[str], Any]:
    """The numbers of a stored sweep, made once."""
    return cache(lambda name: compare_cells(results(name)))


@pytest.fixture
def changeable(results: Callable[[str], SweepResults]) -> Callable[[str], SweepResults]:
    """A copy of a sweep whose cells and trials a test may change."""

    def make(name: str) -> SweepResults:
        other = copy.copy(results(name))
        other.cells, other.config = copy.deepcopy(other.cells), copy.deepcopy(other.config)
        other.metrics, other.refused, other.other_code = list(other.metrics), {}, {}
        return other

    return make


@pytest.fixture(scope="session")
def report(memory: MemoryClient, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder with the report of a sweep, written once."""
    return cache(lambda n: write_report(MEMORY, n, tmp_path_factory.mktemp(n)).parent)


@pytest.fixture(scope="session")
def quick_report(
    memory: MemoryClient, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The same with coarse figures."""

    @cache
    def write(name: str) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            draw_coarsely(patch)
            return write_report(MEMORY, name, tmp_path_factory.mktemp(name)).parent

    return write


@pytest.fixture(scope="session")
def words_of() -> Callable[[Path], str]:
    """All texts of a report.json, as the PDF prints them, with single blanks."""

    def flatten(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [text for entry in value.values() for text in flatten(entry)]
        if isinstance(value, list):
            return [text for entry in value for text in flatten(entry)]
        return [value] if isinstance(value, str) else []

    def read(path: Path) -> str:
        return " ".join(" ".join(flatten(json.loads(path.read_text(encoding="utf-8")))).split())

    return read


@pytest.fixture(scope="session")
def text_of() -> Callable[[Path], str]:
    """What a PDF says, its pages parted by form feeds."""

    def read(pdf: Path) -> str:
        if shutil.which("pdftotext") is None:
            pytest.skip("needs pdftotext (poppler)")
        command = ["pdftotext", "-layout", str(pdf), "-"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    return read


@pytest.fixture(scope="session")
def special() -> str:
    """Text that typst, Markdown, LaTeX or matplotlib would run if it were pasted."""
    return SPECIAL


def draw_coarsely(patch: pytest.MonkeyPatch) -> None:
    """Figures are laid out and drawn, but at few dots an inch, and not as SVG."""
    from matplotlib.figure import Figure

    savefig = Figure.savefig

    def save(figure: Figure, path: Path, **how: Any) -> None:
        if path.suffix == ".svg":
            path.write_text("<svg/>")
        else:
            savefig(figure, path, **(how | {"dpi": how["dpi"] / 5}))

    patch.setattr(Figure, "savefig", save)


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_coarsely(monkeypatch)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float, str]]:
    """What is written into figures from here on: x, rounded y, text."""
    from matplotlib.axes import Axes

    texts: list[tuple[float, float, str]] = []
    write = Axes.text

    def record(axes: Axes, x: float, y: float, text: str, **how: Any) -> Any:
        texts.append((x, round(y), text))
        return write(axes, x, y, text, **how)

    monkeypatch.setattr(Axes, "text", record)
    return texts
