"""Mistyped commands and faulty sweep files, each told in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.printed_commands import check_printed

ROOT = Path(__file__).parents[2]
GOOD = """
SWEEP = Sweep(
    name="faulty", question="?", origin="a test", factors=[Factor("trainer.steps", [1, 2])],
    control={"trainer.steps": 1}, metrics=[*HEADLINES], headline="success",
)
if __name__ == "__main__":
    from sweeps.command import main
    raise SystemExit(main(SWEEP))
"""
IMPORTS = "from sweeps.presets import HEADLINES\nfrom sweeps.sweep import Factor, Sweep\n"


def run(tmp_path: Path, *words: str) -> subprocess.CompletedProcess:
    """``python -m`` with the files of ``tmp_path`` in the package ``sweeps``, too."""
    code = (
        "import runpy, sys, sweeps\n"
        f"sweeps.__path__.append({str(tmp_path)!r})\n"
        "from conf.commands import check_command\nfrom pathlib import Path\n"
        "sys.orig_argv = ['python', '-m', *sys.argv[1:]]\nname = sys.argv[1]\n"
        "sys.argv = ['-m', *sys.argv[2:]]\n"
        f"check_command('sweeps', Path({str(tmp_path)!r}))\n"
        "runpy.run_module(name, run_name='__main__', alter_sys=True)\n"
    )
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sweeps.treshold", ("did you mean threshold?", "gate_head, gate_signal")),
        ("sweeps.THRESHOLD", ("did you mean threshold?",)),
        ("sweeps.engine.wroker", ("did you mean engine.worker?", "threshold")),
        ("sweeps.engine.driver", ("nothing to run", "engine.worker")),
        ("sweeps.engine", ("nothing to run", "engine.worker")),
        ("datamodules", ("nothing to run", "has inspect")),
        ("datamodules.inspct", ("did you mean inspect?",)),
        ("datamodules.formats.x", ("no such command", "has inspect")),
        ("lightning_modules.trian", ("did you mean train?", "grade, pretrain, train")),
        ("lightning_modules.metrics.train_jugde", ("did you mean metrics.train_judge?",)),
        ("conf.laod", ("no such command", "conf has none")),
        ("losses", ("nothing to run", "losses has none")),
        ("reports.thresold", ("python -m reports thresold", "has user_study")),
        ("reports.user_studi", ("did you mean user_study?",)),
        ("reports.figures.curves", ("no such command",)),
    ],
)
def test_a_mistyped_command_names_the_nearest_and_all(name: str, expected: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", name, "--plan"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert all(part in done.stderr for part in expected)
    if "sweep of that name: " in done.stderr:
        check_printed(done.stderr.partition("name: ")[2])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("factors=", "facters=", "did you mean factors?; expected name, question"),
        ("factors=[", "factors=[1, ", "factors holds 1; expected a Factor each"),
        ("[*HEADLINES]", '["success"]', "metrics holds 'success'; expected a Metric each"),
        ('headline="success",', "", "missing 1 required keyword-only argument: 'headline'"),
        ("[1, 2]", "3", "levels=3; expected a list"),
        ('{"trainer.steps": 1}', "1", "control=1; expected a mapping"),
        ("SWEEP = Sweep(", "SWEEP = Sweep(,", "SyntaxError: invalid syntax"),
    ],
)
def test_a_faulty_sweep_is_one_line(old: str, new: str, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "faulty.py"
    file.write_text(IMPORTS + GOOD)
    assert run(tmp_path, "sweeps.faulty", "--help").returncode == 0
    file.write_text((IMPORTS + GOOD).replace(old, new, 1))
    done = run(tmp_path, "sweeps.faulty", "--plan")
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert expected in done.stderr and "faulty.py, line" in done.stderr
