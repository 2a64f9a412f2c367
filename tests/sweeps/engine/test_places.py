"""A place that cannot keep results is refused by plans, runs and all other commands alike."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from datamodules.inspect import main as inspect_data
from lightning_modules import train
from reports.__main__ import main as make_reports
from sweeps.__main__ import main as sweeps_command
from sweeps.command import main
from sweeps.engine.catalogue import discover

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
THRESHOLD = next(sweep for sweep in discover() if sweep.name == "threshold")
Refused = Callable[[int, str], str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Checks the status and that the command said one line with the value; gives that line."""

    def check(status: int, value: str) -> str:
        err = capsys.readouterr().err
        assert status == 2 and err.count("\n") == 1 and value in err, err
        return err

    return check


@pytest.mark.parametrize("flags", [["--plan"], []])
@pytest.mark.parametrize(
    "uri",
    [
        "htp://x",
        "foo:bar",
        "postgresql+foo://x/y",
        pytest.param("sqlite:////proc/x.db", marks=linux),
    ],
)
def test_a_tracking_uri_that_nothing_can_keep(
    uri: str, flags: list[str], tmp_path: Path, refused: Refused
) -> None:
    words = [f"output={tmp_path / 'runs'}", f"tracking_uri={uri}", *flags]
    assert "error: tracking_uri=" in refused(main(THRESHOLD, words), uri)
    assert not (tmp_path / "runs").exists()


@linux
@pytest.mark.parametrize("flags", [["--plan"], []])
def test_an_output_that_takes_no_files(flags: list[str], refused: Refused) -> None:
    refused(main(THRESHOLD, ["output=/proc/x", *flags]), "output=/proc/x")


def test_a_folder_whose_name_would_end_the_address(tmp_path: Path, refused: Refused) -> None:
    refused(main(THRESHOLD, [f"output={tmp_path}/a?b", "--plan"]), f"output={tmp_path}/a?b")


def test_other_commands_refuse_an_address_alike(tmp_path: Path, refused: Refused) -> None:
    assert "did you mean http?" in refused(sweeps_command(["ui", "tracking_uri=htp://x"]), "htp")
    assert "did you mean http?" in refused(make_reports(["tracking_uri=htp://x"]), "htp://x")
    (tmp_path / "file").touch()
    refused(sweeps_command([f"output={tmp_path / 'file'}"]), f"output={tmp_path / 'file'}")


@linux
def test_other_commands_refuse_an_output_alike(tmp_path: Path, refused: Refused) -> None:
    refused(inspect_data(["output=/proc/x"]), "output=/proc/x")
    (tmp_path / "run.yaml").write_text("output: /proc/x\n")
    refused(train.main([str(tmp_path / "run.yaml")]), "output=/proc/x")
