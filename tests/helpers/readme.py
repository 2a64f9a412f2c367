"""The files that the README tells a user to write."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def read_readme_files(heading: str = "") -> dict[str, str]:
    """Path -> source of each Python block below ``heading`` (all of them without): the path is the
    last that stands in backticks before the block."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    if heading:
        text = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)[1]  # type: ignore[index]
    files = {}
    for block in re.finditer(r"```python\n(.*?)```", text, re.S):
        before = text[: block.start()]
        path = re.findall(r"`((?:conf|datamodules|lightning_modules|sweeps)/\w[\w/]*\.py)`", before)
        files[path[-1]] = block[1]
    return files
