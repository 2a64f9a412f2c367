"""Rows of files that hold objects or tables: JSON lines, JSON documents, CSV, TSV, parquet, Arrow.

A JSON document is a list of objects, or of prompts, an object of lists of which one is the list, or
one object for each id. In TSV quotes are as they stand where they do not enclose whole cells: "G I
G G L E" on a wall. Of parquet, columns of bytes and of structures (images) are not read.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from conf.describe import show_count
from datamodules.formats.bad_lines import BadLine
from datamodules.formats.index import DataError

__all__ = ["ROWS", "TABLES", "Row", "read_rows", "read_text"]

JSON = (".jsonl", ".ndjson", ".json")
TABLES = (".csv", ".tsv", ".parquet", ".arrow")
ROWS = (*JSON, *TABLES)  # Endings of files of rows
ID, LONG = "id", 1 << 27  # Characters of a cell at most


class Row(NamedTuple):
    """``place`` is file:line, or file:number where files have no lines."""

    place: str
    content: dict[str, Any] | BadLine


def read_text(path: Path) -> str:
    """A whole text. Raises DataError for another encoding than UTF-8, and for what is no text."""
    raw = path.read_bytes()
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{path}: UTF-16: save it as UTF-8")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: not UTF-8 (byte 0x{raw[error.start]:02x} in line {line}): save it as UTF-8"
        ) from None
    if "\0" in text:
        raise DataError(f"{path}: no text (it holds NUL bytes): expected prompts in UTF-8")
    return text


def read_rows(path: Path) -> list[Row]:
    """The rows of a file by its ending; a text of another ending is read as JSON. A row that cannot
    be read is a BadLine. Raises DataError for a file that cannot."""
    suffix = path.suffix.lower()
    if suffix in (".parquet", ".arrow"):
        return _read_columns(path)
    text = read_text(path)
    if suffix in (".csv", ".tsv"):
        return _read_table(path, text, "\t" if suffix == ".tsv" else ",")
    return [*_read_json(path, text)]


def _read_columns(path: Path) -> list[Row]:
    import pyarrow as pa
    from pyarrow import ipc, parquet

    def plain(kind: pa.DataType) -> bool:
        return not (pa.types.is_struct(kind) or pa.types.is_binary(kind))

    try:
        if path.suffix.lower() == ".parquet":
            names = [f.name for f in parquet.read_schema(path) if plain(f.type)]
            table = parquet.read_table(path, columns=names)
        else:
            with pa.memory_map(str(path)) as source:
                try:
                    table = ipc.open_stream(source).read_all()
                except pa.ArrowInvalid:
                    table = ipc.open_file(source).read_all()
            table = table.select([f.name for f in table.schema if plain(f.type)])
    except (pa.ArrowException, OSError) as error:
        said = str(error).splitlines()[0]
        raise DataError(f"{path}: cannot be read ({said}): download it again") from error
    rows = table.to_pylist()
    return [
        Row(f"{path}:{i}", {key: value for key, value in row.items() if value is not None})
        for i, row in enumerate(rows, 1)
    ]


def _read_table(path: Path, text: str, delimiter: str) -> list[Row]:
    csv.field_size_limit(LONG)
    try:
        lines = [*_parse_table(text, delimiter, csv.QUOTE_MINIMAL)]
    except csv.Error as error:
        if delimiter != "\t":
            line = str(error.args[-1])
            raise DataError(
                f"{path}:{line}: {error.args[0]}: write a quote inside of a quoted cell twice"
            ) from None
        lines = [*_parse_table(text, delimiter, csv.QUOTE_NONE)]
    if not lines:
        return []
    (_, header), *cells = lines
    names = [name.strip() for name in header]
    rows = []
    for number, row in cells:
        content: dict[str, Any] | BadLine
        if not any(cell.strip() for cell in row):
            continue
        if len(row) > len(names):
            cells_there = show_count(len(row), "cell")
            detail = f"{cells_there}, {len(names)} in the header: quote those with a delimiter"
            content = BadLine("too many cells", detail)
        else:
            content = {
                name: cell for name, cell in zip(names, row, strict=False) if name and cell.strip()
            }
        rows.append(Row(f"{path}:{number}", content))
    return rows


def _parse_table(text: str, delimiter: str, quoting: Any) -> Iterator[tuple[int, list[str]]]:
    """(number of its first line, cells) of each row. Raises csv.Error with the line at its end."""
    # Line ends inside of quotes stay as they are
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True
    )
    begin = 1
    try:
        for cells in reader:
            if cells:
                yield begin, cells
            begin = reader.line_num + 1
    except csv.Error as error:
        raise csv.Error(str(error), begin) from None


# --- JSON -----------------------------------------------------------------------------------------


def _read_json(path: Path, text: str) -> Iterator[Row]:
    parts = re.split(r"\r\n|\n|\r", text)
    lines = [(i, part.strip()) for i, part in enumerate(parts, 1) if part.strip()]
    first = _try(lines[0][1]) if lines else None
    if first is None and lines and lines[0][1][:1] in ("[", "{"):
        first = _try(text)
        if isinstance(first, list | dict):
            yield from _read_document(path, text, first)
            return
    if isinstance(first, list) or (len(lines) == 1 and (_is_map(first) or _list_in(first))):
        yield from _read_document(path, text, first)
        return
    for number, line in lines:
        place = f"{path}:{number}"
        try:
            content = json.loads(line)
        except json.JSONDecodeError as error:
            detail = f"{error.msg} at column {error.colno}: expected one object a line"
            yield Row(place, BadLine("wrong JSON", detail))
            continue
        except RecursionError:
            detail = "more levels than a prompt has: expected one object a line"
            yield Row(place, BadLine("wrong JSON", detail))
            continue
        if isinstance(content, dict):
            yield Row(place, content)
        else:
            detail = f"the line is {content!r}: expected an object"
            yield Row(place, BadLine("wrong value", detail))


def _try(text: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return None


def _is_map(content: Any) -> bool:
    """Whether an object has an object, or a prompt, for each id."""
    if not isinstance(content, dict) or not content:
        return False
    if all(isinstance(value, dict) for value in content.values()):
        return True
    return not _is_row(content) and all(isinstance(value, str) for value in content.values())


def _is_row(content: dict[str, Any]) -> bool:
    """Whether an object has a prompt."""
    known = ("prompt", "prompt_en", "text", "caption", "sentence")
    return any(isinstance(value, str) and key.lower() in known for key, value in content.items())


def _list_in(content: Any) -> str:
    """The key of the only list of an object that is no row itself, empty where there is none."""
    if not isinstance(content, dict) or _is_row(content):
        return ""
    lists = [key for key, value in content.items() if isinstance(value, list)]
    return lists[0] if len(lists) == 1 else ""


def _read_document(path: Path, text: str, content: Any) -> Iterator[Row]:
    start = text.index("[") if isinstance(content, list) else -1
    if isinstance(content, dict):
        if _is_map(content):
            for i, (key, value) in enumerate(content.items(), 1):
                entry = value if isinstance(value, dict) else {"prompt": value}
                yield Row(f"{path}:{i}", {ID: key} | entry)
            return
        key = _list_in(content)
        if not key:
            yield Row(f"{path}:1", content)  # One object over several lines
            return
        content = content[key]
        start = text.find("[", max(0, text.find(f'"{key}"')))
    for line, item in zip(_item_lines(text, start), content, strict=False):
        place = f"{path}:{line}"
        if isinstance(item, str):
            yield Row(place, {"prompt": item})
        elif isinstance(item, dict):
            yield Row(place, item)
        else:
            detail = f"{str(item)[:40]!r} in the list: expected an object or a prompt"
            yield Row(place, BadLine("wrong value", detail))


def _item_lines(text: str, start: int) -> Iterator[int]:
    """The line in which each item of the list begins that opens at ``start``."""
    decoder, at = json.JSONDecoder(), start + 1
    line = text.count("\n", 0, at) + 1
    while True:
        begin = at
        while text[begin : begin + 1] in (" ", "\t", "\n", "\r", ","):
            begin += 1
        if text[begin : begin + 1] in ("]", ""):
            return
        line += text.count("\n", at, begin)
        yield line
        _, at = decoder.raw_decode(text, begin)
        line += text.count("\n", begin, at)
