"""What scripts read: lines of JSON and exit statuses, settings and where they come from, the words
that a shell completes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reports import report
from reports.__main__ import main as reports_main
from sweeps.__main__ import main as listing
from sweeps.command import main
from sweeps.completion import SHELLS
from sweeps.engine.run_all import main as run_all
from sweeps.threshold import SWEEP as THRESHOLD

Command = Callable[..., int]


def events(capsys: pytest.CaptureFixture) -> list[dict[str, Any]]:
    """Standard output, each line of which has to be JSON."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_run_tells_each_trial_and_its_answer(
    sweep: Command, output: Path, capsys: pytest.CaptureFixture
) -> None:
    assert sweep("seeds=1", "--json") == 0
    told = events(capsys)
    assert told[0]["event"] == "begin" and told[0]["trials"] == 4
    ended = [event for event in told if event.get("state") == "finished"]
    assert [event["cell"] for event in ended][:2] == ["untouched backbone", "threshold=0.4"]
    assert ended[-1]["done"] == ended[-1]["total"] == 4 and ended[-1]["seconds"] == 2.0
    result, end = told[-2:]
    assert result["answer"] == "It does." and result["trials"]["done"] == 4
    assert result["report"] == str(output / "threshold" / "report.pdf")
    assert end == {"event": "end", "status": 0}


def test_a_plan_is_one_line(sweep: Command, trainer: Any, capsys: pytest.CaptureFixture) -> None:
    sweep("seeds=1")
    capsys.readouterr()
    assert sweep("seeds=2", "--plan", "--json") == 0
    plan, end = events(capsys)
    assert plan["trials"] == {"planned": 8, "done": 4, "running": 0, "failed": 0, "drawn": 0}
    control = next(cell for cell in plan["cells"] if cell["control"])
    assert control["levels"] == {"method.gate.threshold": 0.5} and control["trains"]
    assert control["trials"]["done"] == 1 and plan["seconds_left"] == 8 and plan["seeds"] == [0, 1]
    assert len(trainer.ran) == 4 and end["status"] == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["trainer.step=3"], "did you mean trainer.steps"), (["--jsno"], "did you mean --json")],
)
def test_an_error_is_a_line_too(
    words: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(THRESHOLD, [f"output={tmp_path}", "--json", *words]) == 2
    error, end = events(capsys)
    assert expected in error["message"] and end == {"event": "end", "status": 2}


def test_the_list_and_the_catalogue(
    sweep: Command, output: Path, capsys: pytest.CaptureFixture
) -> None:
    sweep("seeds=1")
    capsys.readouterr()
    assert listing(["--json", f"output={output}"]) == 0
    told = {event["sweep"]: event for event in events(capsys)}
    (study,) = told["threshold"]["studies"]
    assert study["study"] == "threshold" and study["answer"] == "It does."
    assert study["trials"]["done"] == 4 and not told["objects"]["studies"]
    assert told["objects"]["factors"] and told["objects"]["cells"] > 1
    assert run_all(["--plan", "--json", f"output={output}"], [THRESHOLD]) == 0
    plan, end = events(capsys)
    assert plan["sweep"] == "threshold" and plan["trials"]["planned"] == 18 and end["status"] == 0
    assert run_all(["--print-config", "--json"], [THRESHOLD]) == 2
    assert "one sweep" in events(capsys)[0]["message"]


def test_a_report_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def write(uri: str, name: str, folder: Path) -> Path:
        print("a library speaks")
        answer = {"answer": "It does.", "headline": "success", "conclusive": 1, "comparisons": []}
        (folder / "answer.json").write_text(json.dumps(answer))
        return folder / "report.pdf"

    assert reports_main(["threshold", "--json", f"output={tmp_path}"]) == 2
    (error,) = events(capsys)
    assert error["event"] == "error" and "run a sweep first" in error["message"]
    monkeypatch.setattr(report, "write_report", write)
    monkeypatch.setattr(report, "attach_report", lambda *_: "")
    (tmp_path / "threshold").mkdir()
    assert reports_main(["--json", "threshold", f"output={tmp_path}"]) == 0
    (told,) = events(capsys)
    assert told["answer"] == "It does." and told["comparisons"] == []
    assert told["report"] == str(tmp_path / "threshold" / "report.pdf")


def test_the_config_says_what_differs_and_why(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["--print-config", "trainer=paper512", "trainer.steps=9", f"output={tmp_path}"]
    assert main(THRESHOLD, words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "trainer.batch=2  (default 16; conf/trainer/paper512.yaml)" in lines
    assert "trainer.steps=9  (default 40; command line)" in lines
    assert any(line.startswith("method.gate.act_in_training=false  (default true; sweep th")
               for line in lines)  # fmt: skip
    assert "method.gate.threshold: a factor of sweep threshold, 0.3, 0.4, 0.5, 0.6, 0.7" in lines
    assert not any(line.startswith(("seeds=", "data.")) for line in lines)
    assert not list(tmp_path.iterdir())
    assert main(THRESHOLD, ["--print-config", "--json", "seeds=2"]) == 0
    told = {event.get("key"): event for event in events(capsys)}
    assert told["seeds"] == {
        "event": "setting", "key": "seeds", "value": 2, "default": 3, "origin": "command line"
    }  # fmt: skip


def test_help_has_the_common_words_first_and_single_groups(capsys: pytest.CaptureFixture) -> None:
    assert main(THRESHOLD, ["--help"]) == 0
    page = capsys.readouterr().out
    marks = ["  seeds=3", "  --json", "groups (", "settings (", "  method.gate.threshold="]
    places = [page.index(mark) for mark in marks]
    assert places == sorted(places)
    assert len(page[: page.index("flags")].splitlines()) < 20
    assert main(THRESHOLD, ["--help", "method.gate"]) == 0
    page = capsys.readouterr().out
    keys = [line.split("=")[0].strip() for line in page.splitlines() if line.startswith("  ")]
    assert keys and all(key.startswith("method.gate.") for key in keys)
    assert main(THRESHOLD, ["trainer", "--help"]) == 0
    assert "trainer=paper512" in capsys.readouterr().out
    assert main(THRESHOLD, ["--help", "trainer.stpes"]) == 2
    assert "did you mean trainer.steps?" in capsys.readouterr().err


@pytest.mark.parametrize("command", [lambda argv: main(THRESHOLD, argv), listing, run_all])
def test_the_version(command: Any, capsys: pytest.CaptureFixture) -> None:
    assert command(["--version"]) == 0
    assert capsys.readouterr().out.startswith("compositional-ablations")


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("python -m sweeps.thr", ["sweeps.threshold"]),
        ("python -m sweeps comp", ["completion"]),
        ("python -m sweeps.threshold seed", ["seed=", "seeds="]),
        ("python -m sweeps.threshold seeds=2 mode=on", ["one_factor"]),
        ("python -m sweeps.threshold trainer=paper5", ["paper512"]),
        ("python -m sweeps.threshold --pl", ["--plan"]),
        ("python -m json.to", []),
    ],
)
def test_bash_completes(typed: str, expected: list[str], capsys: pytest.CaptureFixture) -> None:
    assert listing(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    code = f"{script}\nCOMP_LINE={typed!r}\nCOMP_POINT=${{#COMP_LINE}}\n_sweeps_words\n"
    code += 'printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == expected


def test_other_shells(capsys: pytest.CaptureFixture) -> None:
    for shell in SHELLS:
        assert listing(["completion", shell]) == 0
        script = capsys.readouterr().out
        assert "sweeps.threshold" in script and "@" not in script.replace("[@]", "")
    assert listing(["completion", "zhs"]) == 2
    assert "did you mean zsh?" in capsys.readouterr().err
