"""Which sweeps there are, and how short ``python -m sweeps all`` runs each."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

import sweeps
from conf.commands import leave_out
from sweeps.sweep import Sweep

__all__ = ["brief_words", "discover", "list_words"]

# With one of these on the command line a sweep's own short form does not apply
SIZE = ("mode", "cells", "levels")


def discover() -> list[Sweep]:
    """All modules of the package ``sweeps`` that define SWEEP, by name; a faulty one is left out
    with a line on standard error."""
    defines = re.compile(r"^SWEEP\b", re.MULTILINE)
    files = [file for folder in sweeps.__path__ for file in Path(folder).glob("*.py")]
    found = []
    for file in sorted(files, key=lambda file: file.stem):
        try:
            if defines.search(file.read_text(encoding="utf-8")):
                found.append(importlib.import_module(f"sweeps.{file.stem}").SWEEP)
        except Exception as error:
            leave_out(error, file)
    return found


def brief_words(sweep: Sweep, words: Sequence[str] = ()) -> list[str]:
    """The words that make a sweep as short as the catalogue runs it; none if ``words`` set its
    size."""
    if sweep.brief == "grid" or any(word.partition("=")[0] in SIZE for word in words):
        return []
    if isinstance(sweep.brief, str):
        return [f"mode={sweep.brief}"]
    return list_words(sweep.brief)


def list_words(names: Sequence[str]) -> list[str]:
    """The words that run the cells of these names."""
    return ["mode=list", f"cells={json.dumps(list(names), ensure_ascii=False)}"]
