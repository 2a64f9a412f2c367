"""Fonts of the report: typst's own serif, and DejaVu, which comes with matplotlib, for what it lacks. System fonts are never used."""

from __future__ import annotations

from functools import cache
from pathlib import Path

__all__ = ["folder", "printable"]


def folder() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


@cache
def _known() -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(folder() / "DejaVuSans.ttf")).get_charmap())


def printable(text: str) -> str:
    """Text with the code in place of every sign that no font has: typst and matplotlib would drop it without a word."""
    return "".join(c if ord(c) in _known() or c == "\n" else f"[U+{ord(c):04X}]" for c in text)
