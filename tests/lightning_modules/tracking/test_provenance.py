"""What a result was made with is told in full, and nothing about the machine that made it."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_modules.tracking import provenance as module
from lightning_modules.tracking.provenance import changes, device, environment, provenance, tags


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Nothing remembered from another test, nor for one."""
    changes.cache_clear()
    yield
    changes.cache_clear()


def git(monkeypatch: pytest.MonkeyPatch, **answers: str) -> None:
    def answer(*words: str) -> str | None:
        return next(
            (
                answers[word.replace("-", "_")]
                for word in words
                if word.replace("-", "_") in answers
            ),
            None,
        )

    monkeypatch.setattr(module, "_git", answer)


def test_provenance_names_versions_and_no_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    facts: dict[str, Any] = provenance()
    assert (
        facts["python"] == platform.python_version()
        and {"torch", "diffusers", "lightning", "mlflow", "hardware"} <= facts.keys()
    )
    text = json.dumps(facts) + environment()
    assert os.getcwd() not in text and str(Path.home()) not in text and platform.node() not in text
    git(monkeypatch, rev_parse="abc", ls_files="x", status=" M x")
    assert provenance().items() >= {"commit": "abc", "dirty": True}.items()
    assert (
        tags(provenance()).items()
        >= {"commit": "abc", "mlflow.source.git.commit": "abc", "dirty": "True"}.items()
    )
    git(monkeypatch)
    assert not {"commit", "dirty"} & provenance().keys()


def test_the_environment_is_a_list_that_pip_reads() -> None:
    lines = environment().splitlines()
    assert (
        lines == sorted(lines, key=lambda line: line.partition("==")[0].lower()) and len(lines) > 50
    )
    assert all(line.count("==") == 1 and "/" not in line and " " not in line for line in lines)
    assert any(line.startswith("torch==") for line in lines)


def test_changes_are_those_of_tracked_files_and_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    git(monkeypatch, rev_parse="abc", ls_files="x", diff="diff --git a/x b/x\n-old\n+new")
    assert changes() == "diff --git a/x b/x\n-old\n+new\n"
    changes.cache_clear()
    monkeypatch.setattr(module, "DIFF_LENGTH", 10)
    assert changes() == "diff --git\n\n[cut: the first 10 of 28 characters]\n"
    for answers in (
        {"rev_parse": "abc", "ls_files": "x", "diff": ""},
        {"diff": "of another repository"},
    ):
        changes.cache_clear()
        git(monkeypatch, **answers)
        assert changes() is None


def cuda(monkeypatch: pytest.MonkeyPatch, reserved: list[int], initialized: bool = True) -> None:
    names = SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: initialized,
        device_count=lambda: len(reserved),
        max_memory_reserved=reserved.__getitem__,
        get_device_name=lambda i: f"GPU-{i}",
    )
    torch = SimpleNamespace(
        cuda=names, backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: False))
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)


def test_the_device_is_what_was_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device() == "cpu"
    cuda(monkeypatch, [0, 5, 0])
    assert device() == "cuda:1 GPU-1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 6, 7")
    assert device() == "cuda:6 GPU-1"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert device() == "cuda:4 GPU-0, cuda:6 GPU-1"
    cuda(monkeypatch, [0, 0])  # a GPU is there, but the trial ran on the CPU
    assert device() == "cpu"
    cuda(monkeypatch, [7], initialized=False)
    assert device() == "cpu"
    monkeypatch.delitem(sys.modules, "torch")
    assert device() == "cpu"
