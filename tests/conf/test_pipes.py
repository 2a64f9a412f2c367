"""Commands end quietly where nobody reads them any more."""

from __future__ import annotations

import importlib
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from conf import pipes
from reports import pipes as pipes_of_reports
from sweeps.threshold import SWEEP as THRESHOLD

ROOT = Path(__file__).parents[2]
PACKAGES = ("conf", "datamodules", "lightning_modules", "reports", "sweeps")
MAINS = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
    if re.search(r"^def main\(", path.read_text(encoding="utf-8"), re.MULTILINE)
]
KINDS = [pipes.ends_with_reader, pipes_of_reports.ends_with_reader]


@pytest.mark.parametrize("module", MAINS)
def test_the_help_of_every_command_ends_quietly(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    main = importlib.import_module(module).main
    words = [THRESHOLD, ["--help"]] if module == "sweeps.command" else [["--help"]]
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        with pytest.raises(SystemExit) as ended:
            main(*words)
        stream.write("more")
        stream.flush()  # As Python does at exit: it goes nowhere
    assert ended.value.code == 1 and "BrokenPipeError" not in capsys.readouterr().err


def test_every_command_is_looked_at() -> None:
    assert {"datamodules.inspect", "reports.__main__", "sweeps.command", "sweeps.__main__"} < {
        *MAINS
    }


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_lost_reader_stays_as_it_was(kind: object) -> None:
    def lose_another() -> None:
        here, there = socket.socketpair()
        there.close()
        here.sendall(b"x")

    with pytest.raises(BrokenPipeError):
        kind(lose_another)()  # type: ignore[operator]
    assert kind(lambda status: status)(2) == 2  # type: ignore[operator]
    with pytest.raises(SystemExit, match="3"):
        kind(sys.exit)(3)  # type: ignore[operator]


@pytest.mark.slow
@pytest.mark.parametrize("words", ["datamodules.inspect --help", "sweeps", "reports --help"])
def test_a_reader_of_one_line(words: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", *words.split()]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == "" and process.wait() == 1
