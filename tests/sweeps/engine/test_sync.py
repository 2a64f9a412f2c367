"""MLflow filled from the folders of an output."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.sweep_states import SWEEP, everything, finished, runs

from lightning_modules.tracking.store import client
from sweeps.__main__ import main
from sweeps.engine import create, sync
from sweeps.engine.create import forget_passwords
from sweeps.engine.errors import PlanError
from sweeps.engine.locks import DriverLock


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' sweep is the only one that there is."""
    monkeypatch.setattr(sync, "discover", lambda: [SWEEP])


@pytest.mark.usefixtures("own")
def test_a_lost_store_is_filled_again(
    sweep: Callable[..., int], trainer: Any, output: Path, mlflow: Any, capsys: Any
) -> None:
    assert sweep("seeds=2") == 0
    losses = output / "threshold" / "trials" / "threshold=0.4-seed0" / "losses.txt"
    losses.write_text("1 0.5\n2 0.25\n")
    other = client(uri := f"sqlite:///{output / 'fresh.db'}")
    before = [run.data.metrics for run in runs(mlflow, "cell")]
    for _ in range(2):
        assert main(["sync", f"output={output}", f"tracking_uri={uri}"]) == 0
        assert finished(other) == everything(2) and len(runs(other, "seed")) == 8
        assert [run.data.metrics for run in runs(other, "cell")] == before
    (run,) = (
        run
        for run in runs(other, "seed")
        if (run.data.tags["cell"], run.data.params["seed"]) == ("threshold=0.4", "0")
    )
    history = other.get_metric_history(run.info.run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.5), (2, 0.25)]
    assert "threshold: 8 finished trials in python -m sweeps ui" in capsys.readouterr().out
    assert len(trainer.ran) == 8


@pytest.mark.usefixtures("own")
def test_what_cannot_be_filled_is_said(
    sweep: Callable[..., int], output: Path, tmp_path: Path, capsys: Any
) -> None:
    assert main(["sync", f"output={tmp_path / 'none'}"]) == 2
    assert "no sweep has begun there" in capsys.readouterr().err
    assert main(["sync", "seeds=3"]) == 2 and "sync takes output=" in capsys.readouterr().err
    assert sweep("seeds=1") == 0
    lock = DriverLock(output / "threshold")
    assert main(["sync", f"output={output}"]) == 0
    lock.release()
    assert "is run by process" in capsys.readouterr().out
    path = output / "threshold" / "study.json"
    facts = json.loads(path.read_text())
    facts["threshold"]["words"].append("trainer.steps=7")
    path.write_text(json.dumps(facts))
    assert main(["sync", f"output={output}"]) == 1
    assert "is another sweep with the settings of today" in capsys.readouterr().err


def test_no_password_is_kept() -> None:
    words = ["seeds=2", "tracking_uri=postgresql://me:secret@host/x", "tracking_uri=http://x:5000"]
    assert forget_passwords(words) == [words[0], words[2]]


@pytest.mark.slow
@pytest.mark.parametrize("known", [True, False])
def test_a_database_of_an_older_mlflow(tmp_path: Path, empty_database: Path, known: bool) -> None:
    from alembic import command
    from mlflow.store.db import utils
    from mlflow.store.tracking.dbmodels.initial_models import Base as InitialBase

    path = tmp_path / "mlflow.db"
    uri = f"sqlite:///{path}"
    shutil.copy(empty_database, path)
    engine = utils.create_sqlalchemy_engine(uri)
    if known:  # The tables of 2.0
        path.unlink()
        with engine.begin() as connection:
            InitialBase.metadata.create_all(connection)
            config = utils._get_alembic_config(uri)
            config.attributes["connection"] = connection
            command.upgrade(config, "cc1f77228345")
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("update alembic_version set version_num = 'ffffffffffff'")
        connection.close()
    engine.dispose()
    before = path.read_bytes()
    assert create._is_of_another_version(path)
    if known:
        assert "was of an older MLflow: it is upgraded" in create._upgrade_database(uri, path)
        (copy,) = tmp_path.glob("mlflow.db.2*")
        assert copy.read_bytes() == before and not create._is_of_another_version(path)
        create._touch_store(uri)
        return
    with pytest.raises(PlanError, match="which this one cannot upgrade .* python -m sweeps sync"):
        create._upgrade_database(uri, path)
    assert path.read_bytes() == before
    with pytest.raises(PlanError, match="keep a copy, then say mlflow db upgrade sqlite"):
        create._touch_store(uri)
