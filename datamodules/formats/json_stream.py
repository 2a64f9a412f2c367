"""JSON files whose lists are larger than what is kept of them: read in parts, one entry at a time.

The lists of an annotation file of COCO take five times its size in memory once they are parsed;
here no more than a part of the text is held. What is read, and what is refused, is what
`json.loads` reads and refuses (but for integers of thousands of digits that nobody asks for).

Where the fields are named that are wanted of the entries of a list, msgspec reads as many entries
at once as are held. It knows no NaN, no infinity and no halves of surrogate pairs: entries with
these, and those that are no objects, are read one by one by the standard library.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

# Characters that are read at once
PART = 2**22
# Behind a value that ends so near to the end of what was read, it may go on: 1.5e+10
MARGIN = 16
SPACE = re.compile(r"[ \t\n\r]*")

COMMA = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")
BLANK = " \t\n\r"
# Characters between two entries, at most, for these to be read at once
INDENT = 256
# What msgspec says of what it does not read
REFUSALS = (msgspec.MsgspecError, UnicodeError, RecursionError)

# (name of the list, number of the entry, entry, its text)
Take = Callable[[str, int, Any, str], None]
# Name of a list -> what is wanted of its entries
Kinds = Mapping[str, type[msgspec.Struct]]


def read_object(
    path: Path,
    take: Take,
    lists: tuple[str, ...],
    progress: Callable[[int], None],
    kinds: Kinds | None = None,
) -> Any:
    """The object in a file, without the entries of those of its ``lists`` that are lists: each of
    these is given to ``take`` instead, and [] stands for them. Entries of the lists in ``kinds``
    are objects of that kind, without their text, where msgspec can make one. ``progress`` gets the
    bytes read so far. A file that holds no object is returned as it is.

    Raises OSError, and ValueError on what is no JSON.
    """
    with open(path, "rb") as file:
        encoding = json.detect_encoding(file.read(4))
    with open(path, encoding=encoding, errors="surrogatepass", newline="") as text:
        source = _Source(text, progress)
        whole = source.next() != "{"
        value = source.value() if whole else _members(source, take, lists, kinds or {})
        if source.next():
            raise source.error("Extra data")
    return value


def _members(source: _Source, take: Take, lists: tuple[str, ...], kinds: Kinds) -> dict[str, Any]:
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
            _entries(source, take, name, kinds.get(name))
            found[name] = []
        else:
            found[name] = source.value()
        if source.next() == "}":
            source.at += 1
            return found
        source.expect(",")


def _entries(source: _Source, take: Take, name: str, kind: type[msgspec.Struct] | None) -> None:
    source.at += 1
    if source.next() == "]":
        source.at += 1
        return
    number = 0
    many = one = None
    if kind is not None:
        many = msgspec.json.Decoder(list[kind])  # type: ignore[valid-type]
        one = msgspec.json.Decoder(kind)
    while True:
        for value in source.whole_entries(many) if many else ():
            take(name, number, value, "")
            number += 1
        value = source.value()
        text = source.text[source.begun : source.at]
        if one is not None:
            with suppress(*REFUSALS):
                value, text = one.decode(text), ""
        take(name, number, value, text)
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
        # Whether nothing more can be read at once of the text that is held
        self.refused = False
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

    def whole_entries(self, decoder: Any) -> list[Any]:
        """The entries of a list, one of which begins here, that end in the text that is held and
        before another one, which then is the next to read. [] where msgspec refuses them.

        Where they end is guessed: at the last "}, {". It is right if what comes before is a list of
        values, since JSON is read from left to right.
        """
        end = -1 if self.refused else _last_boundary(self.text, self.at)
        if end < 0:
            self.refused = True
            return []
        try:
            values = decoder.decode(f"[{self.text[self.at : end]}]")
        except REFUSALS:
            self.refused = True
            return []
        self.at = end
        self.expect(",")
        self.next()
        return values

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
        self.ended, self.refused = not more, False
        self.passed += self.at
        self.text, self.at = kept + more, 0
        self.progress(self.file.buffer.tell())

    def error(self, message: str) -> ValueError:
        return ValueError(f"{message}: character {self.passed + self.at}")


def _last_boundary(text: str, begin: int) -> int:
    """Where the last "}" is that a comma and a "{" follow, behind it; -1 without one."""
    at = text.rfind("{", begin)
    while at > begin:
        start = max(at - INDENT, begin)
        before = text[start:at].rstrip(BLANK)
        entry = before[:-1].rstrip(BLANK)
        if before.endswith(",") and entry.endswith("}"):
            return start + len(entry)
        at = text.rfind("{", begin, at)
    return -1
