"""Set a PDF from plain data: ``template.typ`` is the layout, report.json holds strings alone.

What a prompt or an error message contains is printed, never run. Fonts are typst's own serif, and
DejaVu, which comes with matplotlib, for what it lacks; system fonts are never used. The same
content gives the same bytes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from reports.results import ReportError
from reports.tables import Table

TEMPLATE = Path(__file__).with_name("template.typ")

Block = dict[str, Any]


@dataclass(frozen=True)
class Picture:
    """A figure on disk: its name in the figures folder; ``alt`` is for who cannot see it."""

    file: str
    caption: str
    alt: str


def page(title: str, **parts: Any) -> dict[str, Any]:
    """The first page of a report and the blocks of its details.

    ``warning``, ``question`` and ``answer`` stand above ``front``; with ``alone``, the details
    begin on a page of their own.
    """
    empty = dict.fromkeys(("kicker", "question", "origin", "warning", "answer", "small"), "")
    return {"title": title, "footer": title, **empty, "alone": True} | parts


def heading(text: str) -> Block:
    return {"kind": "heading", "text": text}


def paragraph(text: str) -> Block:
    return {"kind": "text", "text": text}


def pairs(pairs: Iterable[tuple[str, str]]) -> Block:
    return {"kind": "pairs", "pairs": [[name, value] for name, value in pairs]}


def monospace(lines: Sequence[str]) -> Block:
    return {"kind": "mono", "lines": list(lines)}


def picture(picture: Picture, width: int = 100, *, float: bool = False) -> Block:
    """``width`` in % of the text's; with ``float`` it goes where there is room."""
    shown = {"file": picture.file, "caption": picture.caption, "alt": picture.alt}
    return {"kind": "picture", **shown, "width": width, "float": float}


def table(
    table: Table,
    widths: Sequence[Any],
    size: float,
    left: Iterable[int] = (0,),
    *,
    tall: bool = False,
    roomy: bool = False,
) -> Block:
    """``widths``: "auto", "fill" or cm of the first columns, the last one for all others.

    ``size`` in points; ``left``: the columns that are set to the left; ``tall``: rows of several
    lines, of which so many may be that it breaks between pages; ``roomy``: room between such rows
    of a table that stays whole.
    """
    more = [widths[-1]] * (len(table.columns) - len(widths))
    marks = {str(row): mark for row, mark in table.marks.items()}
    text = {"title": table.title, "note": table.note, "columns": table.columns, "rows": table.rows}
    layout = {"widths": [*widths, *more], "size": size, "left": list(left)}
    layout |= {"tall": tall, "roomy": roomy}
    return {"kind": "table", **text, "marks": marks, **layout}


def font_folder() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


@cache
def _known_signs() -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(font_folder() / "DejaVuSans.ttf")).get_charmap())


def make_printable(value: Any) -> Any:
    """Text, or data of texts, with the code of each sign that no font has in its place.

    Typst and matplotlib would drop such a sign without a word.
    """
    if isinstance(value, str):
        known = _known_signs()
        return "".join(c if ord(c) in known or c == "\n" else f"[U+{ord(c):04X}]" for c in value)
    if isinstance(value, dict):
        return {key: make_printable(entry) for key, entry in value.items()}
    return [make_printable(entry) for entry in value] if isinstance(value, list) else value


def write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def typeset(root: Path, content: dict[str, Any]) -> bytes:
    """Write report.json into ``root``, which has the pictures in figures/, and return the PDF.

    Raises ReportError where typst fails or warns.
    """
    import typst

    write_text(
        root / "report.json", json.dumps(make_printable(content), indent=1, ensure_ascii=False)
    )
    shutil.copyfile(TEMPLATE, root / "template.typ")
    try:
        pdf, warnings = typst.compile_with_warnings(
            str(root / "template.typ"),
            root=str(root),
            font_paths=[str(font_folder())],
            ignore_system_fonts=True,
            format="pdf",
        )
    except typst.TypstError as error:
        message = f"{error.message} {' '.join(error.hints)}".strip()
        raise ReportError(f"typst could not set the report: {message}") from error
    if warnings:
        messages = "; ".join(warning.message for warning in warnings)
        raise ReportError(f"typst warned, which the template must not let happen: {messages}")
    return bytes(pdf)
