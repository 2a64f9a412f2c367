"""What is wrong with a line, or a row, of a file of prompts, and checks of what it says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

__all__ = ["BadLine", "expect", "keep_on_one_line", "read_keys", "read_words", "refuse_misspelt"]

# Halves of surrogate pairs, which no file of results can hold
HALVES = re.compile("[\ud800-\udfff]")
LINE_END = re.compile("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")


class BadLine(ValueError):
    """A line that gives no prompt, or a part of one that is left out: what kind of mistake it is,
    and where and what to do."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(kind, detail)
        self.kind, self.detail = kind, detail


def expect(condition: Any, detail: str, kind: str = "wrong value") -> None:
    """Raises BadLine unless ``condition`` holds."""
    if not condition:
        raise BadLine(kind, detail)


def read_keys(content: Any, keys: Sequence[str], what: str) -> dict[str, Any]:
    """An object with none but these ``keys``. Raises BadLine."""
    expected = f"expected an object with {', '.join(keys)}"
    expect(isinstance(content, dict), f"{what} is {content!r}: {expected}")
    for key in content:
        detail = f"{key!r} in {what}: expected {', '.join(keys)}; leave it out"
        expect(key in keys, detail, "unknown key")
    return content


def refuse_misspelt(content: dict[str, Any], keys: Sequence[str], what: str) -> None:
    """Raises BadLine on a key that is almost one of ``keys``; other keys may be there."""
    for key in content:
        if key not in keys and (near := get_close_matches(key, keys, 1, cutoff=0.8)):
            detail = f"{key!r} in {what}: expected {near[0]}, or a name less like it"
            raise BadLine("unknown key", detail)


def read_words(content: dict[str, Any], key: str) -> str:
    """A text of one line that is not blank. Raises BadLine."""
    value = content.get(key)
    if not isinstance(value, str) or not value.strip():
        raise BadLine(f"{key} missing", f"{key!r} is {value!r}: give it some words")
    expect(not HALVES.search(value), f"{key!r} is {value!r}: half a character; write it whole")
    return keep_on_one_line(value)


def keep_on_one_line(text: str) -> str:
    """A text with a blank for each character that ends a line: a prompt is one line, as a caption
    is, and the places of its words stay."""
    return LINE_END.sub(" ", text)
