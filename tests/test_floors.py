"""The rules of the house, read from the sources: which package may import which, what a package
says of itself, and where names of methods and data sets may stand."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from conf import spec

ROOT = Path(__file__).parents[1]
# Package -> the packages of the project that it may import
FLOORS = {
    "conf": {"conf"},
    "losses": {"conf", "losses"},
    "datamodules": {"conf", "losses", "datamodules"},
    "lightning_modules": {"conf", "losses", "datamodules", "lightning_modules"},
    "sweeps": {"conf", "losses", "datamodules", "lightning_modules", "sweeps", "reports"},
    "reports": {"reports"},
}
# Names of methods and data sets outside their rooms, and why they stand there
NAMES_ALLOWED = {
    # Their data are in COCO's form
    "datamodules/shapes/module.py": {"coco"},
    "datamodules/shapes/dataset.py": {"coco"},
    "datamodules/imagefolder.py": {"coco"},
    "lightning_modules/embedded/pretrain.py": {"coco"},
    # COCO's names of categories
    "lightning_modules/metrics/detection.py": {"coco"},
}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[str]:
    """Top-level names of all that a file imports, inside functions and for types, too."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: write the whole name of the module"
            yield (node.module or "").partition(".")[0]


@pytest.mark.parametrize("package", FLOORS)
def test_a_package_imports_only_what_lies_below_it(package: str) -> None:
    above = FLOORS.keys() - FLOORS[package]
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(package)
        for name in imports(path)
        if name in above or name == "tests"
    }
    assert not wrong


@pytest.mark.parametrize("package", FLOORS)
def test_every_folder_of_code_says_what_belongs_in_it(package: str) -> None:
    folders = {path.parent for path in sources(package)}
    silent = [
        str(folder.relative_to(ROOT))
        for folder in folders
        if not (folder / "__init__.py").is_file()
        or not ast.get_docstring(tree(folder / "__init__.py"))
    ]
    assert not silent, "an __init__.py begins with a sentence on what belongs in the folder"


def words(path: Path) -> Iterator[tuple[int, str]]:
    """Names, strings and comments with their lines, but no docstring."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    prose: set[int] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            prose.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    kinds = (tokenize.NAME, tokenize.STRING, tokenize.COMMENT)
    for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        if token.type in kinds and token.start[0] not in prose:
            yield token.start[0], token.string


def is_own_room(path: Path, name: str) -> bool:
    """Files of methods, which may build on each other, and of data sets with their formats."""
    if name in spec.methods():
        return path.parent.name == "methods" and path.stem in spec.methods()
    return path.parent.name == "formats" or path.stem == name


def test_names_of_methods_and_data_sets_stand_in_their_own_files_alone() -> None:
    """Elsewhere declarations are asked; names that are plain words (scene, shapes, …) are not
    looked for, and pycocotools and COCO's RLE are no data set."""
    plain = {"untouched", "shapes", "scene", "prompts"}
    names = {*spec.methods(), *spec.data_sets()} - plain
    pattern = re.compile("|".join(name.replace("_", "_?") for name in names), re.I)
    wrong = []
    for package in ("losses", "datamodules", "lightning_modules", "reports"):
        for path in sources(package):
            if path.name == "__init__.py":
                continue
            place = str(path.relative_to(ROOT))
            for line, word in words(path):
                word = re.sub(r"py_?coco_?tools|coco_mask|COCO's RLE", "", word)
                for match in pattern.findall(word):
                    name = next(
                        n for n in names if n.replace("_", "") == match.lower().replace("_", "")
                    )
                    if not is_own_room(path, name) and name not in NAMES_ALLOWED.get(place, ()):
                        wrong.append(f"{place}:{line}: {word}")
    assert not wrong


def test_no_code_asks_for_the_class_of_a_method() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for package in ("datamodules", "lightning_modules", "sweeps")
        for path in sources(package)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") == "isinstance"
        and re.search(
            r"MaskAttn|MCGM|BreakAScene|SeparateEnhance|Untouched|AttentionGuidance",
            ast.unparse(node),
        )
    ]
    assert not wrong
