"""The blocks that the template sets: plain data, each with its `kind`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reports.figures import Picture
from reports.tables import Table

__all__ = ["heading_block", "mono_block", "pairs_block", "picture_block", "table_block", "text_block"]


def heading_block(text: str) -> dict[str, Any]:
    return {"kind": "heading", "text": text}


def text_block(text: str) -> dict[str, Any]:
    return {"kind": "text", "text": text}


def picture_block(picture: Picture, width: int) -> dict[str, Any]:
    """`width` in % of the text's."""
    return {"kind": "picture", "file": picture.file, "caption": picture.caption, "alt": picture.alt, "width": width, "float": False}


def table_block(table: Table, widths: Sequence[Any], size: float, left: Sequence[int] = (0,)) -> dict[str, Any]:
    """`widths`: a column's "auto", "fill" or cm; `size` in points; `left`: the columns that are set to the left."""
    marks = {str(row): mark for row, mark in table.marks.items()}
    shown = {"title": table.title, "note": table.note, "columns": table.columns, "rows": table.rows, "marks": marks}
    return {"kind": "table", **shown, "widths": list(widths), "size": size, "left": list(left)}


def pairs_block(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    return {"kind": "pairs", "pairs": [[name, value] for name, value in pairs]}


def mono_block(lines: Sequence[str]) -> dict[str, Any]:
    return {"kind": "mono", "lines": list(lines)}
