"""What one line of a prompt file says (`prompt_files` tells of the kinds). A line that gives no
prompt raises BadLine."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from datamodules.formats.prompt_forms import (
    RELATIONS,
    Said,
    Span,
    colored,
    counted,
    find_words,
    overlap,
    pair,
    spans_of,
    spatial,
)
from datamodules.phrases.nouns import noun_spans

T2I_NAME = re.compile(
    r"(color|shape|texture|spatial|3d_spatial|numeracy|non_spatial|complex)(?:_(train|val))?(?:_(seen|unseen|spatial|action|spatialaction))?"
)
T2I_FORMS: dict[str, Callable[[str], Said | None]] = {
    "color": colored,
    "spatial": spatial,
    "3d_spatial": lambda text: spatial(text, "3d_spatial"),
    "numeracy": counted,
}


@dataclass(frozen=True)
class PromptRecord:
    """One prompt. ``phrases`` are the characters (start, end) of its objects' words; ``wanted`` is
    in GenEval's form, or None if unknown; ``place`` is file:line. ``name`` and ``seed`` are what a
    file of one's own gives as id and seed."""

    id: int
    text: str
    category: str
    phrases: tuple[Span, ...]
    wanted: dict[str, Any] | None
    place: str
    name: str = ""
    seed: int | None = None


class BadLine(ValueError):
    """A line that gives no prompt: what kind of mistake it is, and where and what to do."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(kind, detail)
        self.kind, self.detail = kind, detail


def _record(text: str, category: str, said: Said | None) -> PromptRecord:
    return PromptRecord(
        0,
        text,
        category,
        said.spans if said else tuple(noun_spans(text)),
        said.wanted if said else None,
        "",
    )


def _text(line: str, stem: str) -> PromptRecord:
    return _record(line, stem, None)


def read_pair(line: str, stem: str = "") -> PromptRecord:
    if not (said := pair(line)):
        raise BadLine(
            "no pair of the protocol",
            (
                f"{line!r}: expected 'a cat and a dog', 'a cat "
                "and a red car', …; read it as kind text"
            ),
        )
    return _record(line, said.wanted["tag"], said)


def _t2i(line: str, stem: str) -> PromptRecord:
    if not (match := T2I_NAME.fullmatch(stem.lower())):
        raise BadLine(
            "category unknown",
            (
                "kind t2i has it from the file's "
                f"name: expected one like color_val.txt, not {stem!r}"
            ),
        )
    form = T2I_FORMS.get(match[1])
    return _record(line, match[1], form(line) if form else None)


def _geneval(line: str, stem: str) -> PromptRecord:
    content = _object(line, ("tag", "include", "exclude", "prompt"))
    text, tag = _words(content, "prompt"), _words(content, "tag")
    wanted = _wanted({key: content[key] for key in ("include", "exclude") if key in content}, tag)
    return PromptRecord(0, text, tag, spans_of(text, wanted), wanted, "")


def _own(line: str, stem: str) -> PromptRecord:
    content = _object(line, ("prompt", "phrases", "wanted", "category", "id", "seed"))
    text, category = (
        _words(content, "prompt"),
        _words(content, "category") if "category" in content else stem,
    )
    name, seed = content.get("id", ""), content.get("seed")
    if isinstance(name, bool) or not isinstance(name, int | str):
        raise BadLine("wrong value", f"id {name!r}: expected a number or words")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or seed < 0):
        raise BadLine("wrong value", f"seed {seed!r}: expected a whole number from 0 on")
    wanted = _wanted(content["wanted"], category) if content.get("wanted") is not None else None
    phrases = (
        spans_of(text, wanted)
        if content.get("phrases") is None
        else _phrases(text, content["phrases"])
    )
    return PromptRecord(0, text, category, phrases, wanted, "", str(name), seed)


def _object(line: str, keys: Sequence[str]) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadLine(
            "wrong JSON", (f"{error.msg} at column {error.colno}: expected one object a line")
        ) from None
    return _keys(content, keys, "the line")


def _keys(content: Any, keys: Sequence[str], what: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise BadLine(
            "wrong value", (f"{what} is {content!r}: expected an object with {', '.join(keys)}")
        )
    if unknown := [key for key in content if key not in keys]:
        raise BadLine(
            "unknown key", (f"{unknown[0]!r} in {what}: expected {', '.join(keys)}; leave it out")
        )
    return content


def _words(content: dict[str, Any], key: str) -> str:
    value = content.get(key)
    if not isinstance(value, str) or not value.strip():
        raise BadLine(f"{key} missing", f"{key!r} is {value!r}: give it some words")
    return value


def _phrases(text: str, given: Any) -> tuple[Span, ...]:
    """The characters of phrases that are given as words or as [start, end]."""
    if not isinstance(given, list) or not all(isinstance(one, str | list) for one in given):
        raise BadLine(
            "wrong value", (f"phrases {given!r}: expected a list of words or of [start, end]")
        )
    words = [one for one in given if isinstance(one, str)]
    found = dict(zip(range(len(words)), find_words(text, [[word] for word in words]), strict=True))
    if missing := [words[i] for i, span in found.items() if span is None or not words[i].strip()]:
        raise BadLine(
            "phrase not in the prompt",
            (
                f"{missing[0]!r} is not in {text!r}: write it as it stands there, or give "
                "[start, end]"
            ),
        )
    spans = [span for span in found.values() if span]
    for one in (one for one in given if isinstance(one, list)):
        if (
            len(one) != 2
            or any(type(at) is not int for at in one)
            or not 0 <= one[0] < one[1] <= len(text)
        ):
            raise BadLine(
                "phrase not in the prompt",
                (f"{one}: expected [start, end] with 0 <= start < end <= {len(text)}"),
            )
        if text[one[0] : one[1]].strip() != text[one[0] : one[1]]:
            raise BadLine(
                "phrase not in the prompt",
                (f"{one} is {text[one[0] : one[1]]!r}: expected words without blanks around them"),
            )
        spans.append((one[0], one[1]))
    spans.sort()
    for before, after in zip(spans, spans[1:], strict=False):
        if overlap(before, after):
            raise BadLine(
                "phrases overlap",
                (f"{text[slice(*before)]!r} and {text[slice(*after)]!r}: name each word once"),
            )
    return tuple(spans)


def _wanted(given: Any, tag: str) -> dict[str, Any]:
    """What is wanted in GenEval's form, checked, every count written out."""
    given = _keys(given, ("include", "exclude", "tag"), "wanted")
    lists = {key: given.get(key, []) for key in ("include", "exclude")}
    if bad := [key for key, things in lists.items() if not isinstance(things, list)]:
        raise BadLine("wrong value", f"{bad[0]} {lists[bad[0]]!r}: expected a list")
    if not lists["include"]:
        raise BadLine(
            "nothing wanted",
            ("include is empty: name what the image shall show, or leave wanted out"),
        )
    include = [
        _thing(thing, i, ("class", "count", "color", "position"))
        for i, thing in enumerate(lists["include"])
    ]
    exclude = [_thing(thing, i, ("class", "count")) for i, thing in enumerate(lists["exclude"])]
    tag = _words(given, "tag") if "tag" in given else tag
    return {"tag": tag, "include": include, **({"exclude": exclude} if exclude else {})}


def _thing(given: Any, index: int, keys: Sequence[str]) -> dict[str, Any]:
    given = _keys(given, keys, "a wanted thing")
    thing = {"class": _words(given, "class"), "count": given.get("count", 1)}
    if type(thing["count"]) is not int or thing["count"] < 1:
        raise BadLine(
            "wrong value",
            (f"count {thing['count']!r} of {thing['class']!r}: expected a whole number from 1 on"),
        )
    if "color" in given:
        thing["color"] = _words(given, "color")
    if "position" in given:
        position, relations = given["position"], tuple(dict.fromkeys(RELATIONS.values()))
        if (
            not isinstance(position, list)
            or len(position) != 2
            or position[0] not in relations
            or position[1] not in range(index)
        ):
            form = (
                f"[relation, index of an earlier thing], the relation one of {', '.join(relations)}"
            )
            raise BadLine(
                "wrong value", (f"position {position!r} of {thing['class']!r}: expected {form}")
            )
        thing["position"] = position
    return thing


KINDS: dict[str, Callable[[str, str], PromptRecord]] = {
    "text": _text,
    "geneval": _geneval,
    "t2i": _t2i,
    "pairs": read_pair,
    "own": _own,
}
