"""Prompts from files of any origin.

Kinds of files (`KINDS`), recognised by name and content:

* ``text``: one prompt a line, and nothing else (no comments);
* ``geneval``: GenEval's evaluation_metadata.jsonl, with what the image must show;
* ``t2i``: T2I-CompBench's color_val.txt, spatial_val.txt, …; the name says the category, and what
  the image must show is read from the sentence where it has the category's plain form;
* ``pairs``: a text of prompts of the Attend-and-Excite protocol, for example its published list;
* ``own``: JSON lines, one object a line:

      {"prompt": "two cats near a red ball", "phrases": ["cats", [15, 23]], "category": "pets",
       "id": "pets-7", "seed": 3, "wanted": {
           "include": [{"class": "cat", "count": 2}, {"class": "ball", "color": "red"}],
           "exclude": [{"class": "cat", "count": 3}]}}

  All except ``prompt`` may be left out. ``phrases`` are words as they stand in the prompt, or
  characters from start up to end; left out, they are the wanted objects, or else the noun phrases.
  ``wanted`` is in GenEval's form (`prompt_forms`); a ``count`` that is left out is 1. Prompts of
  one ``seed`` are drawn on the same noise, which is another for each seed of a run.

Files are UTF-8, with or without a mark at the beginning; lines end as on any system. Blank lines
are dropped, and lines that repeat an earlier one, unless duplicates are kept, as they are where a
benchmark has them (`benchmarks`): its scores count each line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conf.describe import show_count
from datamodules.formats.index import DataError, Problems
from datamodules.formats.made_prompts import MADE, PAIRS, make_pairs, make_polysemous
from datamodules.formats.prompt_forms import pair
from datamodules.formats.prompt_lines import KINDS, T2I_NAME, BadLine, PromptRecord
from datamodules.phrases.tagger import LIGHT_TAGGER, Tagger

JSON_LINES = (".jsonl", ".ndjson", ".json")
PLAIN = ("", ".txt", ".prompt", ".prompts")
# Texts of no prompts beside the benchmarks' own
OTHER = ("readme", "license", "licence", "object_names", "new_objects", "requirements")
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
) -> list[PromptRecord]:
    """The prompts of a file, or of the prompt files of a folder (`prompt_files`), in their order.

    Lines that give no prompt are added to ``problems``; without it the first one raises DataError.
    DataError is also raised for a file that is no text, whose kind is not recognised, or that
    leaves no prompt; FileNotFoundError where there is nothing.
    """
    files, _ = read_sources([path], kind, problems or Problems("raise"), keep_duplicates)
    return renumber([record for file in files for record in file.records])


def read_sources(
    paths: Sequence[str | Path],
    kind: str,
    problems: Problems,
    keep_duplicates: bool = False,
    seed: int = 0,
    tagger: Tagger = LIGHT_TAGGER,
) -> tuple[list[PromptFile], list[str]]:
    """The prompts of each file, and which files of the folders were not read. "attend_and_excite"
    stands for `make_pairs` of ``seed``, "polysemy" for `make_polysemous`. ``tagger`` finds the noun
    phrases of prompts whose objects are not known.

    Raises as `read_prompts`; a file of a folder is added to ``problems`` instead.
    """
    if kind not in ("auto", *KINDS):
        raise ValueError(f"kind={kind!r}: expected auto, {', '.join(KINDS)}")
    files: list[PromptFile] = []
    not_read: list[str] = []
    for path in map(Path, paths):
        if str(path) in MADE and not path.exists():
            files += _make_prompts(str(path), seed)
        elif path.is_dir():
            selected, others = prompt_files(path)
            not_read += map(str, others)
            for file in selected:
                try:
                    files.append(_read_file(file, kind, problems, keep_duplicates, tagger))
                except DataError as error:
                    problems.add("unusable file", file, str(error).removeprefix(f"{file}: "))
        elif path.is_file():
            files.append(_read_file(path, kind, problems, keep_duplicates, tagger))
        else:
            raise FileNotFoundError(
                f"no prompts at {path}: expected a file, a folder of prompt files, or "
                f"{' or '.join(MADE)}"
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


def prompt_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """(the files of a folder to read, the others of its .txt and JSON lines), by name.

    Those are all JSON lines and, of each T2I-CompBench category, the validation prompts that its
    score is of (others only where there are none); a folder that has neither is read as texts.
    Raises DataError where there is nothing to read.
    """
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    texts = [path for path in paths if path.suffix.lower() == ".txt"]
    selected = [path for path in paths if path.suffix.lower() in JSON_LINES]
    readable = sorted([*texts, *selected])
    benchmark: dict[str, dict[tuple[int, bool], list[Path]]] = {}
    for path in texts:
        if match := T2I_NAME.fullmatch(path.stem.lower()):
            rank = ({"val": 0, None: 1, "train": 2}[match[2]], match[3] is not None)
            benchmark.setdefault(match[1], {}).setdefault(rank, []).append(path)
    selected += [path for ranked in benchmark.values() for path in ranked[min(ranked)]]
    selected = sorted(selected) or [path for path in texts if path.stem.lower() not in OTHER]
    if not selected:
        names = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise DataError(
            f"{folder}: no prompt files: looked for *.jsonl and *.txt, found {names}; {KNOWN}"
        )
    return selected, [path for path in readable if path not in selected]


def renumber(records: Sequence[PromptRecord]) -> list[PromptRecord]:
    """The prompts with their positions as ids."""
    return [replace(record, id=i) for i, record in enumerate(records)]


# --- one file -------------------------------------------------------------------------------------


def _read_file(
    path: Path, kind: str, problems: Problems, keep_duplicates: bool, tagger: Tagger
) -> PromptFile:
    numbered = _lines(path)
    lines = [(number, text) for number, text in numbered if text]
    if not lines:
        raise DataError(f"{path}: no prompts: the file is {'blank' if numbered else 'empty'}")
    if kind == "auto":
        kind = _guess_kind(path, [text for _, text in lines])
    records: list[PromptRecord] = []
    contents: set[str] = set()
    names: set[str] = set()
    first_bad, duplicates = "", 0
    for number, text in lines:
        place = f"{path}:{number}"
        try:
            record = KINDS[kind](text, path.stem, tagger)
            content = repr(record)
            if content in contents and not keep_duplicates:
                duplicates += 1
                if record.benchmark is None:
                    continue
            if record.name and record.name in names and content not in contents:
                detail = f"{record.name!r}: give each prompt an id of its own, or none"
                raise BadLine("id given twice", detail)
        except BadLine as error:
            problems.add(error.kind, place, error.detail)
            first_bad = first_bad or f"{place}: {error.kind}: {error.detail}"
            continue
        contents.add(content)
        names.add(record.name)
        records.append(replace(record, id=len(records), place=place))
    if not records:
        raise DataError(
            f"{path}: no prompts left of {show_count(len(lines), 'line')}, read as {kind}; the "
            f"first: {first_bad}"
        )
    facts = {
        "file": str(path),
        "kind": kind,
        "prompts": len(records),
        "blank": len(numbered) - len(lines),
        "duplicates": duplicates,
        "wanted": sum(record.wanted is not None for record in records),
    }
    return PromptFile(path.stem, records, facts)


def _lines(path: Path) -> list[tuple[int, str]]:
    """The numbered lines of a text, without the blanks around them."""
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
    parts = re.split(r"\r\n|\n|\r", text)
    # What ends the last line begins no other
    return [(i, part.strip()) for i, part in enumerate(parts if parts[-1] else parts[:-1], 1)]


def _guess_kind(path: Path, lines: list[str]) -> str:
    """The kind of a file. Raises DataError that says what was looked for and found."""
    suffix = path.suffix.lower()
    objects = [content for content in map(_parse, lines) if isinstance(content, dict)]
    if suffix in JSON_LINES or isinstance(_parse(lines[0]), dict):
        for key, kind in (("include", "geneval"), ("prompt", "own")):
            if any(key in content for content in objects):
                return kind
        content = f"no JSON object a line: the first is {lines[0][:40]!r}"
        if objects:
            content = f"lines with the keys {', '.join(map(str, objects[0]))}"
    elif suffix in PLAIN:
        if T2I_NAME.fullmatch(path.stem.lower()):
            return "t2i"
        return "pairs" if all(map(pair, lines)) else "text"
    else:
        content = f"the ending {path.suffix}"
    raise DataError(
        f"{path}: what kind of prompts is this? Looked for JSON lines with 'prompt' (own) or "
        "'include' (geneval), a name like color_val.txt (t2i), a .txt of prompts (text, pairs); "
        f"found {content}; {KNOWN}"
    )


def _parse(line: str) -> Any:
    try:
        return json.loads(line) if line.startswith("{") else None
    except json.JSONDecodeError:
        return None
