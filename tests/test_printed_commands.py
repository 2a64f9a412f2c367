"""Each command that messages, help, docstrings and pages tell a person can be pasted: it is there,
and its words are read without an error."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.printed_commands import (
    PACKAGES,
    ROOT,
    check_command,
    check_printed,
    find_commands,
    split_command,
)

from conf import load as conf
from lightning_modules.embedded.judge import Judge
from reports import __main__ as reports
from reports.results import sweep_command

# Files that put commands together, and the tests that read what they make with `check_printed`
DYNAMIC = {
    "conf/commands.py": "tests/test_printed_commands.py",  # Says what was typed
    "lightning_modules/backbone/backbone.py": "tests/lightning_modules/backbone/test_backbone.py",
    "lightning_modules/embedded/grade.py": "tests/test_printed_commands.py",
    "lightning_modules/embedded/judge.py": "tests/test_printed_commands.py",
    "lightning_modules/embedded/judge_training.py": "tests/test_printed_commands.py",
    "datamodules/phrases/pipelines.py": "tests/test_printed_commands.py",
    "lightning_modules/training/run.py": "tests/lightning_modules/evaluation/test_manifest.py",
    "reports/mistyped.py": "tests/conf/test_commands.py",
    "reports/provenance.py": "tests/reports/test_provenance.py",
    "reports/results.py": "tests/test_printed_commands.py",
    "sweeps/__main__.py": "tests/sweeps/test_list_and_flags.py",
    "sweeps/command.py": "tests/sweeps/test_ablations.py",
    "sweeps/engine/drawn.py": "tests/sweeps/engine/test_drawn.py",
    "sweeps/engine/mlflow_mirror.py": "tests/sweeps/engine/test_mlflow_mirror.py",
    "sweeps/engine/checks.py": "tests/sweeps/test_ablations.py",
    "sweeps/engine/run_all.py": "tests/sweeps/engine/test_run_all.py",
    "sweeps/engine/search.py": "tests/sweeps/engine/test_search.py",
    "sweeps/engine/session.py": "tests/sweeps/test_command.py",
}


def printed(path: Path) -> Iterator[tuple[str, str]]:
    """Module and words of the commands in strings of a source, or in a page; with {} in place of
    what is put in."""
    text = path.read_text(encoding="utf-8")
    texts = [text.replace("\\\n", " ")]
    if path.suffix == ".py":
        tree = ast.parse(text)
        inner = {id(v) for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for v in n.values}
        texts = []
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "{}" for v in node.values]
                texts.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts += [] if id(node) in inner else [node.value]
    for one in texts:
        yield from find_commands(one)


def sources() -> list[Path]:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    pages = [path for package in PACKAGES for path in (ROOT / package).rglob("README.md")]
    return sorted([*files, *pages, ROOT / "README.md"])


@pytest.mark.parametrize(
    "path", [p for p in sources() if "python -m" in p.read_text(encoding="utf-8")], ids=str
)
def test_each_command_that_is_told_can_be_pasted(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    for module, words in printed(path):
        if "{" in module + words or "$" in words or "<" in words:
            made = name in DYNAMIC or path.suffix == ".md"
            assert made, f"{name}: no test makes python -m {module}{words}"
        elif module not in ("PACKAGE.NAME", "package.NAME", "reports.NAME", "sweeps.warmup"):
            check_command(module, split_command(words))


@pytest.mark.parametrize("test", sorted(set(DYNAMIC.values())))
def test_what_makes_the_other_commands_is_there(test: str) -> None:
    assert "check_printed(" in (ROOT / test).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "command",
    [
        "sweeps.treshold",
        "sweeps.threshold seedz=3",
        "lightning_modules.trian run.yaml",
        "reports threshold outptu=x",
        "reports.user_study a left=1 rihgt=2",
        "datamodules.inspect data=cocoo",
    ],
)
def test_a_wrong_command_is_found(command: str) -> None:
    module, *words = command.split()
    with pytest.raises((AssertionError, conf.ConfigError, reports.ReportError)):
        check_command(module, words)


def test_commands_that_are_put_together_here(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        Judge.load(tmp_path)
    check_printed(str(missing.value))
    tags = {"command": "python -m sweeps.threshold seeds=1"}
    check_printed(sweep_command("threshold", tags, f"sqlite:///{tmp_path}/a b/mlflow.db"))
    check_printed(sweep_command("threshold", {}, "http://localhost:5000"))
