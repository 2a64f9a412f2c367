"""Commands ``python -m PACKAGE.NAME`` that are mistyped, or whose file is faulty, in one line."""

from __future__ import annotations

import dataclasses
import re
import sys
import traceback
from pathlib import Path
from types import TracebackType

from conf.describe import nearest

__all__ = ["check_command", "describe_fault", "leave_out", "list_commands"]

RUNS = re.compile(r"^if __name__ == .__main__.", re.MULTILINE)
UNEXPECTED = re.compile(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'")


def check_command(package: str, folder: Path) -> None:
    """Ends ``python -m package.NAME``, at any depth, with the nearest name and the list where
    ``folder`` has no such command, and lets a fault in one that is there be told in one line.

    For the ``__init__`` of a package; nothing happens where Python does something else.
    """
    name = _looked_for()
    head, *parts = name.split(".")
    if head != package:
        return
    place = folder.joinpath(*parts)
    file = place.parent / f"{place.name}.py" if parts else place / "__init__.py"
    if parts and _runs(file):
        _tell_faults_of(file)
    elif not (place / "__main__.py").is_file():
        known = list_commands(folder)
        there = parts and (file.is_file() or place.is_dir())
        what = "there is nothing to run" if there or not parts else "no such command"
        listed = f"{package} has {', '.join(known) or 'none'}"
        near = nearest(".".join(parts), known) if parts else ""
        print(f"error: python -m {name}: {what}; {listed}{near}", file=sys.stderr)
        raise SystemExit(2)


def list_commands(folder: Path) -> list[str]:
    """The names of what ``python -m package.NAME`` runs; what a file of the folder itself hands on
    is not named twice."""
    files = [path.relative_to(folder).with_suffix("") for path in folder.rglob("[a-z]*.py")]
    files = [path for path in files if _runs(folder / f"{path}.py")]
    own = {path.name for path in files if len(path.parts) == 1}
    deeper = [path for path in files if path.name not in own and len(path.parts) > 1]
    return sorted(own) + sorted(".".join(path.parts) for path in deeper)


def _runs(file: Path) -> bool:
    """Whether a file does something as a command."""
    return file.is_file() and bool(RUNS.search(file.read_text(encoding="utf-8", errors="replace")))


def describe_fault(error: BaseException, file: Path) -> str:
    """``file, line 3: TypeError: …`` of what was raised while a module was imported."""
    number, names = None, {}
    if isinstance(error, SyntaxError) and error.filename == str(file):
        number = error.lineno
    for frame, line in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename == str(file):
            number, names = line, frame.f_globals
    where = f"{_short(file)}, line {number}" if number else _short(file)
    text = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
    if found := UNEXPECTED.search(text):
        known = names.get(found[1])
        if dataclasses.is_dataclass(known):
            fields = [field.name for field in dataclasses.fields(known) if field.init]
            text += f"{nearest(found[2], fields)}; expected {', '.join(fields)}"
    return f"{where}: {type(error).__name__}: {text}"


def leave_out(error: BaseException, file: Path) -> None:
    """Says that a faulty module is left out of what is listed."""
    print(f"left out: {describe_fault(error, file)}", file=sys.stderr)


def _looked_for() -> str:
    """The module of ``python -m`` while Python looks for it, else ""."""
    if sys.argv[:1] != ["-m"]:
        return ""
    words = sys.orig_argv
    for number, word in enumerate(words):
        if word == "-m":
            return "".join(words[number + 1 :][:1])
        if word.startswith("-m"):
            return word.removeprefix("-m")
    return ""


def _short(file: Path) -> str:
    here = Path.cwd()
    return str(file.relative_to(here) if file.is_relative_to(here) else file)


def _tell_faults_of(file: Path) -> None:
    """What is raised while this module is imported, or compiled, is an error of one line."""

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        frames = list(traceback.walk_tb(trace))
        own = [frame for frame, _ in frames if frame.f_code.co_filename == str(file)]
        # What a ``main`` raises is no fault of the file
        began = any(frame.f_code.co_name == "main" for frame, _ in frames)
        top = bool(own) and own[-1].f_code.co_name == "<module>" and not began
        compiled = isinstance(error, SyntaxError) and error.filename == str(file)
        if isinstance(error, Exception) and (top or compiled):
            print(f"error: {describe_fault(error, file)}", file=sys.stderr)
        else:
            before(kind, error, trace)

    before, sys.excepthook = sys.excepthook, tell
