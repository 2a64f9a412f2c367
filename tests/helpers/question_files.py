"""Files of prompts with questions in the forms in which benchmarks publish them, small and of own
sentences."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]

GENEVAL2: Rows = [
    {
        "prompt": "four white cows behind a stone bench",
        "atom_count": 5,
        "vqa_list": [
            ["How many cows are in the image?", "four"],
            ["Are the cows white?", "Yes"],
            ["Are there any cows in the image?", "Yes"],
            ["Are the cows behind the bench?", "Yes"],
            ["Is the bench stone?", "Yes"],
        ],
        "skills": ["count", "attribute", "object", "position", "attribute"],
    },
    {
        "prompt": "two pigs and a sheep",
        "atom_count": 3,
        "vqa_list": [["How many pigs are in the image?", "two"], ["Are there any pigs?", "Yes"]],
        "skills": ["count", "object"],
    },
]


def _dsg_row(name: str, text: str, number: int, needs: str, broad: str, asked: str) -> dict:
    return {
        "item_id": name,
        "text": text,
        "keywords": "a, b",
        "proposition_id": number,
        "dependency": needs,
        "category_broad": broad,
        "category_detailed": "whole",
        "tuple": f"{broad} - whole (thing, other)",
        "question_natural_language": asked,
    }


CUBE = "A cube, with ten squares of purple"
# A word among the numbers, a question that comes later, and one that is not there, as published
DSG: Rows = [
    _dsg_row("whoops_5", CUBE, 1, "0", "entity", "Is there a cube?"),
    _dsg_row("whoops_5", CUBE, 2, "1,3", "attribute", "Is the cube purple?"),
    _dsg_row("whoops_5", CUBE, 3, "1, right", "attribute", "Does the cube have ten squares?"),
    _dsg_row("posescript_93", "Someone stands", 2, "1", "entity", "Is there someone?"),
    _dsg_row("posescript_94", "Someone stands", 1, "0", "entity", "Is there someone?"),
]


def _tifa_row(name: str, text: str, asked: str, choices: list[str], answer: str, of: str) -> dict:
    return {
        "id": name,
        "caption": text,
        "question": asked,
        "choices": choices,
        "answer": answer,
        "element_type": of,
        "element": answer,
    }


SURF, YES_NO = "A surfer with a white board.", ["yes", "no"]
TIFA: Rows = [
    _tifa_row("coco_301", SURF, "is this a surfer?", YES_NO, "yes", "animal/human")
    | {"coco_val_id": "380711"},
    _tifa_row("coco_301", SURF, "what color is the board?", ["white", "red"], "white", "color"),
    _tifa_row("drawbench_52", "Three cats.", "how many cats?", ["1", "2", "3"], "3", "counting"),
]
TIFA_TEXTS: Rows = [
    {"id": "coco_301", "caption": SURF, "coco_val_id": "380711"},
    {"id": "drawbench_52", "caption": "Three cats."},
]
CONCEPTMIX: Rows = [
    {
        "index": 0,
        "sentence": "A tiny glass heart-shaped cake.",
        "categories": ["shape", "size", "texture"],
        "skills": ["heart-shaped", "tiny", "glass"],
        "question": ["Is there a cake?", "Is it tiny?", " ", "Is it heart-shaped?"],
    }
]
ONEIG: Rows = [
    {
        "category": category,
        "id": name,
        "prompt_en": text,
        "type": "T, P",
        "prompt_length": "long",
        "class": style,
    }
    for category, name, text, style in (
        ("General_Object", "000", "A boho bedroom", ""),
        ("Portrait", "000", "A girl, smiling", ""),
        ("Text_Rendering", "000", 'A menu that says "tea"', "menu"),
    )
]
ONEIG_QUESTIONS = {
    "object": {
        "000": {
            "question": json.dumps({"1": "Is there a bedroom?", "2": "Is the bedroom boho style?"}),
            "dependency": json.dumps({"1": [0], "2": [1]}),
        }
    }
}
PARTI: Rows = [
    {
        "Prompt": '"G I G" painted on a wall',
        "Category": "Illustrations",
        "Challenge": "Writing & Symbols",
        "Note": "",
    },
    {"Prompt": "bond", "Category": "Abstract", "Challenge": "Basic", "Note": "Two meanings"},
]
DRAWBENCH: Rows = [
    {"Prompts": "A red colored car.", "Category": "Colors"},
    {"Prompts": "A stack of 3 plates, a blue one on top.", "Category": "DALL-E"},
]
HRS: Rows = [
    {
        "meta_prompt": "Describe a real scene about 2 cats and 1 chair.",
        "vanilla_prompt": "2 cats and 1 chair",
        "n1": 2,
        "obj1": "cat",
        "n2": 1,
        "obj2": "chair",
        "synthetic_prompt": 'two cats on a chair, beside a sign "sit"',
    }
]


def as_csv(rows: Rows, delimiter: str = ",", end: str = "\r\n") -> str:
    """With quotes where CSV needs them; as they stand in tabs, as PartiPrompts has them."""
    out = io.StringIO()
    names = list(dict.fromkeys(key for row in rows for key in row))
    if delimiter == "\t":
        lines = [names, *([str(row.get(name, "")) for name in names] for row in rows)]
        return "".join("\t".join(line) + end for line in lines)
    writer = csv.DictWriter(out, names, lineterminator=end)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def as_lines(rows: Rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def write_parquet(path: Path, rows: Rows) -> Path:
    import pyarrow as pa
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_oneig(folder: Path) -> Path:
    for name, content in ONEIG_QUESTIONS.items():
        write_text(folder / "scripts/alignment/Q_D" / f"{name}.json", json.dumps(content))
    return write_text(folder / "OneIG-Bench.csv", as_csv(ONEIG))
