"""Prompts of files of rows (`prompt_rows`), with their questions: benchmarks as they are published,
own JSON lines and tables of any kind."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conf.describe import show_count
from datamodules.formats.bad_lines import BadLine, expect, keep_on_one_line, read_words
from datamodules.formats.index import DataError
from datamodules.formats.prompt_lines import (
    PromptRecord,
    read_atoms,
    read_geneval,
    read_own,
    read_skills,
)
from datamodules.formats.prompt_rows import Row
from datamodules.formats.questions import (
    Question,
    join_needs,
    make_question,
    read_answer,
    yes_no,
)
from datamodules.phrases.tagger import LIGHT_TAGGER, Tagger

__all__ = ["COLUMNS", "ROW_KINDS", "RowFile", "find_column", "guess_row_kind"]

# Names of the column of prompts, the first that is there counts; in any case, and plural
COLUMNS = ("prompt", "prompt_en", "text", "caption", "synthetic_prompt", "sentence")
CATEGORIES = ("category",)
PARTS = ("challenge", "class", "task", "tag", "subcategory")
IDS = ("item_id", "id")
SOURCE = re.compile(r"(\w*?[A-Za-z]\w*?)_?\d+")
# Of OneIG's categories the file of its questions, below one of these folders
QUESTION_FILES = {"Anime_Stylization": "anime", "Portrait": "human", "General_Object": "object"}
QUESTION_FOLDERS = ("Q_D", "scripts/alignment/Q_D")

Found = Iterator[tuple[str, PromptRecord | BadLine]]


@dataclass(frozen=True)
class RowFile:
    """What kinds know of a file beside its rows: its path, the name of its set, the column of
    prompts that is asked for."""

    path: Path
    stem: str
    column: str = ""
    tagger: Tagger = LIGHT_TAGGER


def find_column(names: Sequence[str], asked: str = "") -> str | None:
    """The column of prompts: the one that is ``asked`` for, else the first of `COLUMNS`."""
    if asked:
        return asked if asked in names else None
    lower: dict[str, str] = {}
    for name in names:
        lower.setdefault(name.strip().lower(), name)
    spelt = (form for column in COLUMNS for form in (column, f"{column}s"))
    return next((lower[form] for form in spelt if form in lower), None)


def guess_row_kind(rows: Sequence[Row], file: RowFile) -> str | None:
    """The kind of a file of rows by its keys; None where there is no column of prompts."""
    contents = [row.content for row in rows if isinstance(row.content, dict)]
    keys = {key for content in contents for key in content}
    has = keys.__contains__
    if has("include") and not file.column:
        return "geneval"
    if has("vqa_list"):
        return "geneval2"
    if has("question_natural_language"):
        return "dsg"
    if has("question") and has("answer") and find_column([*keys], file.column):
        return "tifa"
    lists = any(isinstance(content.get("question"), list) for content in contents)
    if lists and find_column([*keys], file.column):
        return "conceptmix"
    if {"category", "id"} <= keys and keys & {"prompt_en", "prompt_cn"}:
        return "oneig"
    as_own = file.path.suffix.lower() not in (".csv", ".tsv", ".parquet", ".arrow")
    if has("prompt") and as_own and file.column in ("", "prompt"):
        return "own"
    return "table" if find_column([*keys], file.column) else None


# --- kinds ----------------------------------------------------------------------------------------


def _each(read: Callable[[dict[str, Any], RowFile], PromptRecord]) -> Callable[..., Found]:
    """A kind of which each row is a prompt."""

    def read_all(rows: Sequence[Row], file: RowFile) -> Found:
        for row in rows:
            if isinstance(row.content, BadLine):
                yield row.place, row.content
                continue
            try:
                yield row.place, read(row.content, file)
            except BadLine as error:
                yield row.place, error

    return read_all


def _text(content: dict[str, Any], file: RowFile) -> tuple[str, str]:
    """(the prompt, its column)."""
    column = find_column([*content], file.column)
    if column is None:
        asked = file.column or COLUMNS[0]
        raise BadLine("prompt missing", f"no {asked!r}: found {', '.join(content) or 'nothing'}")
    return read_words(content, column).strip(), column


def _record(text: str, category: str, file: RowFile, **more: Any) -> PromptRecord:
    return PromptRecord(0, text, category, tuple(file.tagger.spans(text)), None, "", **more)


def _cell(content: dict[str, Any], names: Sequence[str]) -> tuple[str, str]:
    """(column, text) of the first of these columns that has a text."""
    for key, value in content.items():
        if key.lower() in names and isinstance(value, str | int) and str(value).strip():
            return key, keep_on_one_line(str(value)).strip()
    return "", ""


def _source(name: str) -> str:
    """What an id such as posescript_93, whoops7 or COCOval2014000000000042 begins with."""
    match = SOURCE.fullmatch(name)
    return match[1] if match else ""


def _table(content: dict[str, Any], file: RowFile) -> PromptRecord:
    text, column = _text(content, file)
    (in_category, category), (in_part, part) = _cell(content, CATEGORIES), _cell(content, PARTS)
    used = (column, in_category, in_part)
    tags = {key: value for key, value in content.items() if key not in used}
    source = _source(_cell(content, IDS)[1])
    return _record(text, category or source or file.stem, file, part=part, tags=tags)


def _geneval2(content: dict[str, Any], file: RowFile) -> PromptRecord:
    text, column = _text(content, file)
    asked, skills = content.get("vqa_list"), content.get("skills")
    good = isinstance(asked, list) and all(
        isinstance(one, list) and len(one) == 2 and isinstance(one[0], str) for one in asked
    )
    expect(good and asked, f"vqa_list {str(asked)[:60]!r}: expected [[question, answer], …]")
    assert isinstance(asked, list)
    names = [""] * len(asked) if skills is None else skills
    detail = f"skills {str(names)[:60]}: expected one for each question, {len(asked)} in all"
    expect(isinstance(names, list) and len(names) == len(asked), detail)
    questions = tuple(
        make_question(one, read_answer(answer, f"question {i}"), skill=str(skill))
        for i, ((one, answer), skill) in enumerate(zip(asked, names, strict=True))
    )
    atoms = read_atoms(content.get("atom_count"))
    used = (column, "vqa_list", "skills", "atom_count")
    tags = {key: value for key, value in content.items() if key not in used}
    part = show_count(atoms, "atom") if atoms else ""
    return _record(text, file.stem, file, part=part, questions=questions, atoms=atoms, tags=tags)


def _conceptmix(content: dict[str, Any], file: RowFile) -> PromptRecord:
    text, column = _text(content, file)
    asked = content.get("question")
    good = isinstance(asked, list) and all(isinstance(one, str) for one in asked)
    expect(good, f"question {str(asked)[:60]!r}: expected a list of questions")
    assert isinstance(asked, list)
    questions = tuple(yes_no(keep_on_one_line(one).strip()) for one in asked if one.strip())
    skills = content.get("categories", content.get("skills", content.get("skill")))
    used = (column, "question", "image_path")
    tags = {key: value for key, value in content.items() if key not in used}
    number = content.get("num_skills")
    number = number if isinstance(number, int) else len(skills or ())
    part = f"k={number}" if number else ""
    return _record(
        text, file.stem, file, part=part, questions=questions, asks=read_skills(skills), tags=tags
    )


def _group(rows: Sequence[Row], name: str) -> Iterator[tuple[str, str, list[Row]] | Row]:
    """Rows that are no objects as they are; then (id, place of the first, rows) of each id."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if isinstance(row.content, BadLine):
            yield row
        else:
            groups.setdefault(str(row.content.get(name, "")), []).append(row)
    for key, members in groups.items():
        yield key, members[0].place, members


def _tifa(rows: Sequence[Row], file: RowFile) -> Found:
    """A row a question; those of one id, or without ids of one prompt, are of one prompt."""
    by = "id" if any("id" in row.content for row in rows if isinstance(row.content, dict)) else ""
    column = (
        ""
        if by
        else next(
            find_column([*row.content], file.column) or ""
            for row in rows
            if isinstance(row.content, dict)
        )
    )
    for found in _group(rows, by or column):
        if isinstance(found, Row):
            assert isinstance(found.content, BadLine)
            yield found.place, found.content
            continue
        name, place, members = found
        questions: list[Question] = []
        text = ""
        tags: dict[str, Any] = {}
        for row in members:
            content = row.content
            assert isinstance(content, dict)
            try:
                said, column = _text(content, file)
                detail = f"{said!r} has the id {name!r} of {text!r}: one prompt for each id"
                expect(text in ("", said), detail, "id given twice")
                answer = read_answer(content.get("answer"), "the question")
                choices = content.get("choices") or []
                expect(isinstance(choices, list), f"choices {choices!r}: expected a list")
                questions.append(
                    make_question(
                        read_words(content, "question"),
                        answer,
                        choices,
                        skill=str(content.get("element_type") or content.get("type") or ""),
                    )
                )
                text = said
                known = ("id", column, "question", "choices", "answer", "element_type", "element")
                tags |= {key: value for key, value in content.items() if key not in known}
            except BadLine as error:
                yield row.place, error
        if questions:
            own = {"name": name} if by else {}
            category = _source(name) if by else ""
            yield (
                place,
                _record(
                    text, category or file.stem, file, questions=tuple(questions), tags=tags, **own
                ),
            )


def _dsg(rows: Sequence[Row], file: RowFile) -> Found:
    """A row a question, by the number proposition_id, with the numbers of those that it depends
    on: DSG's and DPG-Bench's."""
    for found in _group(rows, "item_id"):
        if isinstance(found, Row):
            assert isinstance(found.content, BadLine)
            yield found.place, found.content
            continue
        name, place, members = found
        text, order, needs, made = "", [], {}, []
        for row in members:
            content = row.content
            assert isinstance(content, dict)
            try:
                said, _ = _text(content, file)
                detail = f"{said!r} has the id {name!r} of {text!r}: one prompt for each id"
                expect(text in ("", said), detail, "id given twice")
                number = _number(content.get("proposition_id"))
                detail = f"proposition_id {content.get('proposition_id')!r}: expected a number"
                expect(number is not None, detail)
                assert number is not None
                expect(number not in needs, f"proposition_id {number} of {name!r}", "given twice")
                broad, detailed = (
                    str(content.get(key) or "") for key in ("category_broad", "category_detailed")
                )
                question = yes_no(read_words(content, "question_natural_language"), broad)
            except BadLine as error:
                yield row.place, error
                continue
            text = said
            given = [part.strip() for part in str(content.get("dependency") or "0").split(",")]
            numbers = [_number(part) for part in given]
            if None in numbers:
                lost = given[numbers.index(None)]
                detail = f"{lost!r} of question {number}: expected numbers, 0 for none; left out"
                yield row.place, BadLine("dependency on no question", detail)
            needs[number] = [one for one in numbers if one is not None]
            order.append(number)
            made.append(question)
        if not made:
            continue
        joined, lost_pairs = join_needs(needs, order)
        for number, need in lost_pairs:
            detail = f"{need} of question {number} of {name!r}: there is none; left out"
            yield place, BadLine("dependency on no question", detail)
        questions = tuple(replace(one, needs=need) for one, need in zip(made, joined, strict=True))
        category = _source(name) or file.stem
        yield place, _record(text, category, file, name=name, questions=questions)


def _number(value: Any) -> int | None:
    """A whole number, as a number or as digits."""
    try:
        return int(value) if float(value) == int(float(value)) else None
    except (TypeError, ValueError, OverflowError):
        return None


def _oneig(rows: Sequence[Row], file: RowFile) -> Found:
    """OneIG's table; the questions of three of its categories lie in files of their own."""
    known: dict[str, dict[str, Any]] = {}
    first = next((row.content for row in rows if isinstance(row.content, dict)), {})
    for place, record in _each(_table)(rows, file):
        if isinstance(record, BadLine):
            yield place, record
            continue
        key, category = str(record.tags.get("id", "")), record.category
        if category not in known:
            known[category] = _question_file(file, category, "prompt_cn" in first)
        record = replace(record, name=f"{category}/{key}" if key else "")
        try:
            questions = _listed(known[category].get(key))
        except BadLine as error:
            yield place, error
            questions = ()
        yield place, replace(record, questions=questions)


def _question_file(file: RowFile, category: str, chinese: bool) -> dict[str, Any]:
    name = QUESTION_FILES.get(category, category) + ("_zh" if chinese else "") + ".json"
    for folder in QUESTION_FOLDERS:
        path = file.path.parent / folder / name
        if path.is_file():
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise DataError(f"{path}: cannot be read as JSON ({error})") from None
            return content if isinstance(content, dict) else {}
    return {}


def _listed(content: Any) -> tuple[Question, ...]:
    """Questions and dependencies, each an object, or its text, from numbers."""
    if not isinstance(content, dict):
        return ()
    try:
        asked, needs = (
            {int(key): value for key, value in (json.loads(v) if isinstance(v, str) else v).items()}
            for v in (content["question"], content.get("dependency") or {})
        )
        order = [*asked]
        named = {number: [int(one) for one in needs.get(number, ())] for number in order}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadLine("wrong questions", f"{str(content)[:60]!r} ({error})") from None
    joined, _ = join_needs(named, order)
    return tuple(
        yes_no(str(asked[number]), needs=need) for number, need in zip(order, joined, strict=True)
    )


ROW_KINDS: dict[str, Callable[[Sequence[Row], RowFile], Found]] = {
    "geneval": _each(lambda content, file: read_geneval(content, file.tagger)),
    "own": _each(lambda content, file: read_own(content, file.stem, file.tagger)),
    "table": _each(_table),
    "geneval2": _each(_geneval2),
    "dsg": _dsg,
    "tifa": _tifa,
    "conceptmix": _each(_conceptmix),
    "oneig": _oneig,
}
