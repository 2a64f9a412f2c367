"""Prompts from files of any origin.

Kinds of files (`KINDS`), recognised by name and content:

* ``text``: one prompt a line, and nothing else (no comments);
* ``t2i``: T2I-CompBench's color_val.txt, spatial_val.txt, …; the name says the category, and what
  the image must show is read from the sentence where it has the category's plain form;
* ``pairs``: a text of prompts of the Attend-and-Excite protocol, for example its published list;
* ``geneval``: GenEval's evaluation_metadata.jsonl, with what the image must show;
* ``geneval2``, ``dsg`` (DPG-Bench's, too), ``tifa``, ``conceptmix``, ``oneig``: with the questions
  that an image is asked, and what these ask for (`prompt_tables`);
* ``table``: CSV, TSV, parquet, Arrow or JSON with a column of prompts (``prompt``, ``prompt_en``,
  ``text``, ``caption``, …, or the one that is named), such as PartiPrompts, DrawBench and HRS;
* ``own``: JSON lines, one object a line, or a list of objects:

      {"prompt": "two cats near a red ball", "phrases": ["cats", [15, 23]], "category": "pets",
       "id": "pets-7", "seed": 3, "questions": [["how many cats are there?", "two"]], "wanted": {
           "include": [{"class": "cat", "count": 2}, {"class": "ball", "color": "red"}],
           "exclude": [{"class": "cat", "count": 3}]}}

  All except ``prompt`` may be left out. ``phrases`` are words as they stand in the prompt, or
  characters from start up to end; left out, they are the wanted objects, or else the noun phrases.
  ``wanted`` is in GenEval's form (`prompt_forms`); a ``count`` that is left out is 1. Prompts of
  one ``seed`` are drawn on the same noise, which is another for each seed of a run. ``questions``:
  `questions`. ``skills`` and ``atom_count`` say what the prompt asks for, and of how many parts;
  other keys are kept as tags.

Texts are UTF-8, with or without a mark at the beginning; lines end as on any system. Blank lines
are dropped, and lines that repeat an earlier one, unless duplicates are kept, as they are where a
benchmark has them (`benchmarks`): its scores count each line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conf.describe import nearest, show_count
from datamodules.formats.bad_lines import BadLine
from datamodules.formats.benchmarks import recognise
from datamodules.formats.hub import HUB, find_snapshot
from datamodules.formats.index import DataError, Problems
from datamodules.formats.made_prompts import MADE, PAIRS, make_pairs, make_polysemous
from datamodules.formats.prompt_folders import Source, prompt_files
from datamodules.formats.prompt_forms import pair
from datamodules.formats.prompt_lines import LINES, T2I_NAME, PromptRecord
from datamodules.formats.prompt_rows import JSON, TABLES, Row, read_rows, read_text
from datamodules.formats.prompt_tables import COLUMNS, ROW_KINDS, RowFile, guess_row_kind
from datamodules.phrases.tagger import LIGHT_TAGGER, Tagger

__all__ = ["KINDS", "PromptFile", "read_prompts", "read_sources", "renumber"]

PLAIN = ("", ".txt", ".prompt", ".prompts")
KINDS = ("text", "geneval", "t2i", "pairs", "own", *(k for k in ROW_KINDS if k != "geneval"))
KINDS = tuple(dict.fromkeys(KINDS))
KNOWN = f"known kinds, to be given where they are not recognised: {', '.join(KINDS)}"


@dataclass
class PromptFile:
    """The prompts of one file, by its name without ending, and counts of its lines."""

    name: str
    records: list[PromptRecord]
    facts: dict[str, Any]


def read_prompts(
    path: str | Path,
    kind: str = "auto",
    problems: Problems | None = None,
    keep_duplicates: bool = False,
    column: str = "",
) -> list[PromptRecord]:
    """The prompts of a file, or of the prompt files of a folder (`prompt_files`), in their order.

    Lines that give no prompt are added to ``problems``; without it the first one raises DataError.
    DataError is also raised for a file that is no text, whose kind is not recognised, or that
    leaves no prompt; FileNotFoundError where there is nothing.
    """
    files, _ = read_sources(
        [path], kind, problems or Problems("raise"), keep_duplicates, column=column
    )
    return renumber([record for file in files for record in file.records])


def read_sources(
    paths: Sequence[str | Path],
    kind: str,
    problems: Problems,
    keep_duplicates: bool = False,
    seed: int = 0,
    tagger: Tagger = LIGHT_TAGGER,
    column: str = "",
) -> tuple[list[PromptFile], list[str]]:
    """The prompts of each file, and which files of the folders were not read. "attend_and_excite"
    stands for `make_pairs` of ``seed``, "polysemy" for `make_polysemous`, "hub:OWNER/NAME" for a
    data set of the hub (`hub`). ``tagger`` finds the noun phrases of prompts whose objects are not
    known, ``column`` names the column of prompts in tables.

    Raises as `read_prompts`; a file of a folder is added to ``problems`` instead.
    """
    if kind not in ("auto", *KINDS):
        raise ValueError(f"kind={kind!r}: expected auto, {', '.join(KINDS)}")
    files: list[PromptFile] = []
    not_read: list[str] = []
    for given in paths:
        path = find_snapshot(str(given)) if str(given).startswith(HUB) else Path(given)
        if str(path) in MADE and not path.exists():
            files += _make_prompts(str(path), seed)
        elif path.is_dir():
            selected, others = prompt_files(path)
            not_read += map(str, others)
            for source in selected:
                try:
                    files.append(
                        _read_file(source, kind, problems, keep_duplicates, tagger, column)
                    )
                except DataError as error:
                    problems.add(
                        "unusable file", source.path, str(error).removeprefix(f"{source.path}: ")
                    )
        elif path.is_file():
            source = Source(path.stem, (path,))
            files.append(_read_file(source, kind, problems, keep_duplicates, tagger, column))
        else:
            raise FileNotFoundError(
                f"no prompts at {path}: expected a file, a folder of prompt files, {HUB}OWNER/NAME "
                f"of the hub, or {' or '.join(MADE)}"
            )
    return files, not_read


def _make_prompts(name: str, seed: int) -> list[PromptFile]:
    sets = {name: make_pairs(seed)} if name == PAIRS else make_polysemous()
    drawn = {"seed": seed} if name == PAIRS else {}
    facts = {"file": name, "kind": "made"}
    return [
        PromptFile(of, records, facts | {"prompts": len(records), "wanted": len(records)} | drawn)
        for of, records in sets.items()
    ]


def renumber(records: Sequence[PromptRecord]) -> list[PromptRecord]:
    """The prompts with their positions as ids."""
    return [replace(record, id=i) for i, record in enumerate(records)]


# --- one file -------------------------------------------------------------------------------------

Items = Iterable[tuple[str, PromptRecord | BadLine]]


def _read_file(
    source: Source,
    kind: str,
    problems: Problems,
    keep_duplicates: bool,
    tagger: Tagger,
    column: str = "",
) -> PromptFile:
    path, rows, blank = source.paths[0], None, 0
    lines: list[tuple[str, str]] = []
    if kind in LINES or (kind == "auto" and (source.each or _is_text(path))):
        numbered = [(f"{file}:{n}", text) for file in source.paths for n, text in _lines(file)]
        lines = [(place, text) for place, text in numbered if text]
        blank = len(numbered) - len(lines)
        if not lines:
            raise DataError(f"{path}: no prompts: the file is {'blank' if numbered else 'empty'}")
        if kind == "auto":
            kind = _guess_text_kind(path, [text for _, text in lines])
    else:
        rows = [row for file in source.paths for row in _rows(file)]
        if path.suffix.lower() not in TABLES:
            blank = sum(not text for _, text in _lines(path))
        row_file = RowFile(path, source.name, column, tagger)
        if kind == "auto":
            kind = _guess_row_kind(rows, row_file)
    if column and kind not in ("table", "own", "oneig", "dsg", "tifa", "conceptmix", "geneval2"):
        raise DataError(f"{path}: data.column={column}: there are no columns in a file of {kind}")
    if rows is not None:
        items: Items = ROW_KINDS[kind](rows, row_file)
    else:
        items = _read_lines(lines, kind, source, tagger)
    records, facts, first_bad = _collect(items, problems, keep_duplicates)
    count = len(rows) if rows is not None else len(lines)
    if not records:
        raise DataError(
            f"{path}: no prompts left of {show_count(count, 'line')}, read as {kind}; the first: "
            f"{first_bad}"
        )
    known = {"file": str(source.path), "kind": kind, "prompts": len(records), "blank": blank}
    benchmark = recognise([(one.text, one.task) for one in records])
    if benchmark is not None:
        records = [replace(one, benchmark=one.benchmark or benchmark) for one in records]
    return PromptFile(source.name, records, known | facts)


def _collect(
    items: Items, problems: Problems, keep_duplicates: bool
) -> tuple[list[PromptRecord], dict[str, Any], str]:
    """Prompts, counts of what they say, and the first mistake; mistakes are ``problems``."""
    records: list[PromptRecord] = []
    contents: set[str] = set()
    names: set[str] = set()
    first_bad, duplicates = "", 0
    for place, record in items:
        if isinstance(record, PromptRecord):
            content = repr(record)
            if content in contents and not keep_duplicates:
                duplicates += 1
                if record.benchmark is None:
                    continue
            if record.name and record.name in names and content not in contents:
                detail = f"{record.name!r}: give each prompt an id of its own, or none"
                record = BadLine("id given twice", detail)
        if isinstance(record, BadLine):
            problems.add(record.kind, place, record.detail)
            first_bad = first_bad or f"{place}: {record.kind}: {record.detail}"
            continue
        contents.add(content)
        names.add(record.name)
        records.append(replace(record, id=len(records), place=place))
    asked = sum(len(one.questions) for one in records)
    tags = dict.fromkeys(key for one in records for key in one.tags)
    facts = {
        "duplicates": duplicates,
        "wanted": sum(record.wanted is not None for record in records),
        **({"questions": asked} if asked else {}),
        **({"tags": [*tags]} if tags else {}),
    }
    return records, facts, first_bad


def _read_lines(
    lines: Sequence[tuple[str, str]], kind: str, source: Source, tagger: Tagger
) -> Iterator[tuple[str, PromptRecord | BadLine]]:
    for place, text in lines:
        try:
            yield place, LINES[kind](text, source.name, tagger)
        except BadLine as error:
            yield place, error


def _lines(path: Path) -> list[tuple[int, str]]:
    """The numbered lines of a text, without the blanks around them."""
    parts = re.split(r"\r\n|\n|\r", read_text(path))
    # What ends the last line begins no other
    return [(i, part.strip()) for i, part in enumerate(parts if parts[-1] else parts[:-1], 1)]


def _rows(path: Path) -> list[Row]:
    rows = read_rows(path)
    if not rows:
        what = "blank" if path.suffix.lower() not in TABLES else "without a row below its header"
        empty = path.stat().st_size == 0
        raise DataError(f"{path}: no prompts: the file is {'empty' if empty else what}")
    return rows


def _is_text(path: Path) -> bool:
    """Whether a file is one of lines. Raises DataError where its ending says nothing."""
    suffix = path.suffix.lower()
    if suffix in (*JSON, *TABLES):
        return False
    if suffix in PLAIN:
        text = read_text(path)
        start = next((line for line in text.splitlines() if line.strip()), "")
        return not _is_object(start.strip())
    raise DataError(_unknown(path, f"the ending {path.suffix}"))


def _is_object(line: str) -> bool:
    rows = line.startswith("{") and line.endswith("}")
    try:
        return rows and isinstance(json.loads(line), dict)
    except json.JSONDecodeError:
        return False


def _guess_text_kind(path: Path, lines: Sequence[str]) -> str:
    if T2I_NAME.fullmatch(path.stem.lower()):
        return "t2i"
    return "pairs" if all(map(pair, lines)) else "text"


def _guess_row_kind(rows: Sequence[Row], file: RowFile) -> str:
    """The kind of a file of rows. Raises DataError that says what was looked for and found."""
    if kind := guess_row_kind(rows, file):
        return kind
    objects = [row.content for row in rows if isinstance(row.content, dict)]
    if not objects:
        first = rows[0]
        assert isinstance(first.content, BadLine)
        raise DataError(_unknown(file.path, f"no object: {first.content.detail}"))
    keys = ", ".join(dict.fromkeys(key for content in objects[:20] for key in content))
    if file.column:
        raise DataError(
            f"{file.path}: data.column={file.column}: there is none; found {keys}"
            f"{nearest(file.column, [*objects[0]])}"
        )
    raise DataError(_unknown(file.path, f"the columns {keys}; name one by data.column"))


def _unknown(path: Path, content: str) -> str:
    return (
        f"{path}: what kind of prompts is this? Looked for a column of prompts "
        f"({', '.join(COLUMNS)}) in JSON, CSV, TSV or parquet, for 'include' (geneval), a name "
        f"like color_val.txt (t2i), a .txt of prompts (text, pairs); found {content}; {KNOWN}"
    )
