"""JSON files whose lists are larger than what is kept of them: read in parts, one entry at a time.

The lists of an annotation file of COCO take five times its size in memory once they are parsed;
here no more than a part of the text is held. What is read, and what is refused, is what
`json.loads` reads and refuses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Characters that are read at once
PART = 2**22
# Behind a value that ends so near to the end of what was read, it may go on: 1.5e+10
MARGIN = 16
SPACE = re.compile(r"[ \t\n\r]*")

COMMA = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")

# (name of the list, number of the entry, entry, its text)
Take = Callable[[str, int, Any, str], None]


def read_object(
    path: Path, take: Take, lists: tuple[str, ...], progress: Callable[[int], None]
) -> Any:
    """The object in a file, without the entries of those of its ``lists`` that are lists: each of
    these is given to ``take`` instead, and [] stands for them. ``progress`` gets the bytes read so
    far. A file that holds no object is returned as it is.

    Raises OSError, and ValueError on what is no JSON.
    """
    with open(path, "rb") as file:
        encoding = json.detect_encoding(file.read(4))
    with open(path, encoding=encoding, errors="surrogatepass", newline="") as text:
        source = _Source(text, progress)
        whole = source.next() != "{"
        value = source.value() if whole else _members(source, take, lists)
        if source.next():
            raise source.error("Extra data")
    return value


def _members(source: _Source, take: Take, lists: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    source.at += 1
    if source.next() == "}":
        source.at += 1
        return found
    while True:
        if source.next() != '"':
            raise source.error("Expecting property name enclosed in double quotes")
        name = source.value()
        source.expect(":")
        if name in lists and source.next() == "[":
            _entries(source, take, name)
            found[name] = []
        else:
            found[name] = source.value()
        if source.next() == "}":
            source.at += 1
            return found
        source.expect(",")


def _entries(source: _Source, take: Take, name: str) -> None:
    source.at += 1
    if source.next() == "]":
        source.at += 1
        return
    number = 0
    while True:
        value = source.value()
        take(name, number, value, source.text[source.begun : source.at])
        number += 1
        if source.pass_comma():
            continue
        if source.next() == "]":
            source.at += 1
            return
        source.expect(",")


class _Source:
    """The text of a file of which a part is held, and where the next character to read is in it."""

    def __init__(self, file: Any, progress: Callable[[int], None]) -> None:
        self.file, self.progress = file, progress
        self.text, self.at, self.passed, self.ended = "", 0, 0, False
        # Of the last value
        self.begun = 0
        self.scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]

    def next(self) -> str:
        """The next character that is no space, which stays to be read; "" at the end."""
        while True:
            match = SPACE.match(self.text, self.at)
            assert match is not None
            self.at = match.end()
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self._read()

    def expect(self, character: str) -> None:
        if self.next() != character:
            raise self.error(f"Expecting {character!r} delimiter")
        self.at += 1

    def pass_comma(self) -> bool:
        """Whether a comma follows, which is passed, and something behind it."""
        match = COMMA.match(self.text, self.at)
        if match is None or match.end() == len(self.text):
            return False
        self.at = match.end()
        return True

    def value(self) -> Any:
        if self.text[self.at : self.at + 1] != "{":
            self.next()
        while True:
            try:
                value, end = self.scan(self.text, self.at)
            except StopIteration as stop:
                if self.ended:
                    self.at = stop.value
                    raise self.error("Expecting value") from None
            except json.JSONDecodeError as error:
                if self.ended:
                    self.at = error.pos
                    raise self.error(error.msg) from None
            else:
                if self.ended or end + MARGIN < len(self.text):
                    self.begun, self.at = self.at, end
                    return value
            self._read()

    def _read(self) -> None:
        kept = self.text[self.at :]
        # A value that is longer than a part is not begun again for each part
        more = self.file.read(max(PART, len(kept)))
        self.ended = not more
        self.passed += self.at
        self.text, self.at = kept + more, 0
        self.progress(self.file.buffer.tell())

    def error(self, message: str) -> ValueError:
        return ValueError(f"{message}: character {self.passed + self.at}")
