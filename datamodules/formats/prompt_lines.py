"""What one line of a prompt file says (`prompt_files` describes the kinds). A line that gives no
prompt raises BadLine."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from datamodules.formats.benchmarks import GENEVAL, Benchmark, t2i_compbench
from datamodules.formats.prompt_forms import (
    RELATIONS,
    PromptMeaning,
    Span,
    colored,
    counted,
    find_words,
    overlap,
    pair,
    spans_of,
    spatial,
)
from datamodules.phrases.tagger import LIGHT_TAGGER, Tagger

# Halves of surrogate pairs, which no file of results can hold
HALVES = re.compile("[\ud800-\udfff]")
# Seeds of a user's own prompts: as many as a set has places
SEEDS = 1_000_000
LINE_END = re.compile("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
T2I_NAME = re.compile(
    r"(color|shape|texture|spatial|3d_spatial|numeracy|non_spatial|complex)(?:_(train|val))?"
    r"(?:_(seen|unseen|spatial|action|spatialaction))?"
)
T2I_FORMS: dict[str, Callable[[str], PromptMeaning | None]] = {
    "color": colored,
    "spatial": spatial,
    "3d_spatial": lambda text: spatial(text, "3d_spatial"),
    "numeracy": counted,
}


@dataclass(frozen=True)
class PromptRecord:
    """One prompt. ``phrases`` are the characters (start, end) of its objects' words; ``wanted`` is
    what the image shall show, in GenEval's form, or None if unknown; ``place`` is file:line.
    ``name`` and ``seed`` are the id and the seed of a user's own file; ``benchmark`` is the one
    that the prompt belongs to."""

    id: int
    text: str
    category: str
    phrases: tuple[Span, ...]
    wanted: dict[str, Any] | None
    place: str
    name: str = ""
    seed: int | None = None
    benchmark: Benchmark | None = None

    @property
    def task(self) -> str:
        """Its task in a benchmark, or whatever else its file calls its kind."""
        return self.wanted["tag"] if self.wanted else self.category


class BadLine(ValueError):
    """A line that gives no prompt: what kind of mistake it is, and where and what to do."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(kind, detail)
        self.kind, self.detail = kind, detail


def _expect(condition: Any, detail: str, kind: str = "wrong value") -> None:
    if not condition:
        raise BadLine(kind, detail)


# --- kinds of lines -------------------------------------------------------------------------------


def _record(
    text: str, category: str, tagger: Tagger, meaning: PromptMeaning | None = None
) -> PromptRecord:
    phrases = meaning.spans if meaning else tuple(tagger.spans(text))
    return PromptRecord(0, text, category, phrases, meaning.wanted if meaning else None, "")


def read_pair(line: str, stem: str = "", tagger: Tagger = LIGHT_TAGGER) -> PromptRecord:
    """A prompt of the Attend-and-Excite protocol."""
    meaning = pair(line)
    if not meaning:
        cure = "expected 'a cat and a dog', 'a cat and a red car', …; read it as kind text"
        raise BadLine("no pair of the protocol", f"{line!r}: {cure}")
    return _record(line, meaning.wanted["tag"], tagger, meaning)


def _t2i(line: str, stem: str, tagger: Tagger) -> PromptRecord:
    match = T2I_NAME.fullmatch(stem.lower())
    if not match:
        detail = (
            f"kind t2i has it from the file's name: expected one like color_val.txt, not {stem!r}"
        )
        raise BadLine("category unknown", detail)
    form = T2I_FORMS.get(match[1])
    record = _record(line, match[1], tagger, form(line) if form else None)
    return replace(record, benchmark=t2i_compbench(stem))


def _geneval(line: str, stem: str, tagger: Tagger) -> PromptRecord:
    content = _object(line, ("tag", "include", "exclude", "prompt"))
    text, tag = _words(content, "prompt"), _words(content, "tag")
    wanted = _wanted({key: content[key] for key in ("include", "exclude") if key in content}, tag)
    spans = spans_of(text, wanted, tagger)
    return PromptRecord(0, text, tag, spans, wanted, "", benchmark=GENEVAL)


def _own(line: str, stem: str, tagger: Tagger) -> PromptRecord:
    content = _object(line, ("prompt", "phrases", "wanted", "category", "id", "seed"))
    text = _words(content, "prompt")
    category = _words(content, "category") if "category" in content else stem
    name, seed = content.get("id", ""), content.get("seed")
    _expect(type(name) in (int, str), f"id {name!r}: expected a number or words")
    _expect(not HALVES.search(str(name)), f"id {name!r}: half a character; write it whole")
    good = seed is None or (type(seed) is int and 0 <= seed < SEEDS)
    _expect(good, f"seed {seed!r}: expected a whole number from 0 to {SEEDS - 1}")
    wanted = _wanted(content["wanted"], category) if content.get("wanted") is not None else None
    phrases = content.get("phrases")
    spans = spans_of(text, wanted, tagger) if phrases is None else _phrases(text, phrases)
    return PromptRecord(0, text, category, spans, wanted, "", str(name), seed)


# Of a line, the name of its file without ending, and what finds noun phrases
KINDS: dict[str, Callable[[str, str, Tagger], PromptRecord]] = {
    "text": _record,
    "geneval": _geneval,
    "t2i": _t2i,
    "pairs": read_pair,
    "own": _own,
}

# --- parts of an object ---------------------------------------------------------------------------


def _object(line: str, keys: Sequence[str]) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except json.JSONDecodeError as error:
        detail = f"{error.msg} at column {error.colno}: expected one object a line"
        raise BadLine("wrong JSON", detail) from None
    return _keys(content, keys, "the line")


def _keys(content: Any, keys: Sequence[str], what: str) -> dict[str, Any]:
    expected = f"expected an object with {', '.join(keys)}"
    _expect(isinstance(content, dict), f"{what} is {content!r}: {expected}")
    for key in content:
        detail = f"{key!r} in {what}: expected {', '.join(keys)}; leave it out"
        _expect(key in keys, detail, "unknown key")
    return content


def _words(content: dict[str, Any], key: str) -> str:
    value = content.get(key)
    if not isinstance(value, str) or not value.strip():
        raise BadLine(f"{key} missing", f"{key!r} is {value!r}: give it some words")
    _expect(not HALVES.search(value), f"{key!r} is {value!r}: half a character; write it whole")
    return keep_on_one_line(value)


def keep_on_one_line(text: str) -> str:
    """A text with a blank for each character that ends a line: a prompt is one line, as a caption
    is, and the places of its words stay."""
    return LINE_END.sub(" ", text)


def _phrases(text: str, phrases: Any) -> tuple[Span, ...]:
    """The characters of phrases that are given as words or as [start, end]."""
    _expect(
        isinstance(phrases, list) and all(isinstance(phrase, str | list) for phrase in phrases),
        f"phrases {phrases!r}: expected a list of words or of [start, end]",
    )
    words = [keep_on_one_line(phrase) for phrase in phrases if isinstance(phrase, str)]
    spans: list[Span] = []
    for word, span in zip(words, find_words(text, [[word] for word in words]), strict=True):
        if span is None or not word.strip():
            detail = (
                f"{word!r} is not in {text!r}: write it as it stands there, or give [start, end]"
            )
            raise BadLine("phrase not in the prompt", detail)
        spans.append(span)
    for phrase in (phrase for phrase in phrases if isinstance(phrase, list)):
        _expect(
            len(phrase) == 2
            and all(type(at) is int for at in phrase)
            and 0 <= phrase[0] < phrase[1] <= len(text),
            f"{phrase}: expected [start, end] with 0 <= start < end <= {len(text)}",
            "phrase not in the prompt",
        )
        part = text[slice(*phrase)]
        detail = f"{phrase} is {part!r}: expected words without blanks around them"
        _expect(part == part.strip(), detail, "phrase not in the prompt")
        spans.append((phrase[0], phrase[1]))
    spans.sort()
    for before, after in zip(spans, spans[1:], strict=False):
        detail = f"{text[slice(*before)]!r} and {text[slice(*after)]!r}: name each word once"
        _expect(not overlap(before, after), detail, "phrases overlap")
    return tuple(spans)


def _wanted(content: Any, tag: str) -> dict[str, Any]:
    """What the image shall show, in GenEval's form, checked, every count written out."""
    content = _keys(content, ("include", "exclude", "tag"), "wanted")
    include, exclude = content.get("include", []), content.get("exclude", [])
    for key, things in (("include", include), ("exclude", exclude)):
        _expect(isinstance(things, list), f"{key} {things!r}: expected a list")
    detail = "include is empty: name what the image shall show, or leave wanted out"
    _expect(include, detail, "nothing wanted")
    keys = ("class", "count", "color", "position")
    wanted = {
        "tag": _words(content, "tag") if "tag" in content else tag,
        "include": [_thing(thing, i, keys) for i, thing in enumerate(include)],
    }
    if exclude:
        wanted["exclude"] = [_thing(thing, i, keys[:2]) for i, thing in enumerate(exclude)]
    return wanted


def _thing(content: Any, index: int, keys: Sequence[str]) -> dict[str, Any]:
    content = _keys(content, keys, "a wanted thing")
    name, count = _words(content, "class"), content.get("count", 1)
    good = type(count) is int and count >= 1
    _expect(good, f"count {count!r} of {name!r}: expected a whole number from 1 on")
    thing = {"class": name, "count": count}
    if "color" in content:
        thing["color"] = _words(content, "color")
    if "position" in content:
        position, relations = content["position"], tuple(dict.fromkeys(RELATIONS.values()))
        _expect(
            isinstance(position, list)
            and len(position) == 2
            and position[0] in relations
            and position[1] in range(index),
            f"position {position!r} of {name!r}: expected [relation, index of an earlier thing], "
            f"the relation one of {', '.join(relations)}",
        )
        thing["position"] = position
    return thing
