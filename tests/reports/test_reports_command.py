from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from reports.__main__ import main


def test_a_report_from_the_command_line(uri: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["clear", f"output={tmp_path}", f"tracking_uri={uri}"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "clear" / "report.pdf")
    assert (tmp_path / "clear" / "report.pdf").read_bytes().startswith(b"%PDF")


def test_without_a_name_the_sweeps_are_listed(uri: str, capsys: pytest.CaptureFixture) -> None:
    assert main([f"tracking_uri={uri}"]) == 0
    assert "clear                Does it matter?" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["threshold", "output=nowhere"], "no MLflow database at"),
        (["threshold", "outptu=x"], "unknown setting 'outptu'; there are: output=, tracking_uri="),
        (["threshold", "clear"], "one sweep at a time, got: threshold clear"),
    ],
)
def test_errors_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_help_loads_nothing_heavy() -> None:
    heavy = "{'mlflow', 'matplotlib', 'numpy', 'scipy', 'typst'}"
    code = f"import sys; from reports.__main__ import main; main(['--help']); print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n") and "python -m reports threshold" in done.stdout
