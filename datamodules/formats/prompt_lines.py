"""What one line of a prompt file says (`prompt_files` describes the kinds). A line that gives no
prompt raises BadLine."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from datamodules.formats.bad_lines import (
    HALVES,
    BadLine,
    expect,
    keep_on_one_line,
    read_keys,
    read_words,
    refuse_misspelt,
)
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
from datamodules.formats.questions import Question, read_questions, yes_no
from datamodules.phrases.tagger import LIGHT_TAGGER, Tagger

# Seeds of a user's own prompts: as many as a set has places
SEEDS = 1_000_000
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
# Categories whose score asks for each thing with its attribute
T2I_ASKED = ("color", "shape", "texture")
ARTICLE = re.compile(r"(?<!\w)(?:an?|the)\s+$", re.IGNORECASE)
# What own JSON lines may say; other keys are tags
OWN = ("prompt", "phrases", "wanted", "category", "id", "seed", "questions", "skills", "atom_count")


@dataclass(frozen=True)
class PromptRecord:
    """One prompt. ``phrases`` are the characters (start, end) of its objects' words; ``wanted`` is
    what the image shall show, in GenEval's form, or None if unknown; ``place`` is file:line.
    ``name`` and ``seed`` are the id and the seed of a user's own file; ``benchmark`` is the one
    that the prompt belongs to. ``part`` is its kind within its category, ``questions`` are what an
    image of it is asked, ``asks`` what it asks a model to be able to do, beside what each question
    says, ``atoms`` of how many parts its file says it is made, ``tags`` whatever else its file says
    of it."""

    id: int
    text: str
    category: str
    phrases: tuple[Span, ...]
    wanted: dict[str, Any] | None
    place: str
    name: str = ""
    seed: int | None = None
    benchmark: Benchmark | None = None
    part: str = ""
    questions: tuple[Question, ...] = ()
    asks: tuple[str, ...] = ()
    atoms: int | None = None
    tags: dict[str, Any] = field(default_factory=dict)

    @property
    def task(self) -> str:
        """Its task in a benchmark, or whatever else its file calls its kind."""
        return self.wanted["tag"] if self.wanted else self.part or self.category

    @property
    def skills(self) -> tuple[str, ...]:
        """What it asks a model to be able to do: what its file says, else its category and
        task."""
        said = dict.fromkeys([*self.asks, *(one.skill for one in self.questions if one.skill)])
        return tuple(said or dict.fromkeys(filter(str.strip, [self.category, self.task])))


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
    asked = _ask_for_things(record) if match[1] in T2I_ASKED else ()
    return replace(record, benchmark=t2i_compbench(stem), questions=asked)


def _ask_for_things(record: PromptRecord) -> tuple[Question, ...]:
    """The question "a green bench?" for each thing, with its article (T2I-CompBench's
    BLIP_vqa.py)."""
    questions = []
    for start, end in record.phrases:
        article = ARTICLE.search(record.text[:start])
        words = record.text[article.start() if article else start : end]
        questions.append(yes_no(f"{words}?", record.category))
    return tuple(questions)


def read_geneval(content: dict[str, Any], tagger: Tagger) -> PromptRecord:
    """A line of GenEval's metadata."""
    content = read_keys(content, ("tag", "include", "exclude", "prompt"), "the line")
    text, tag = read_words(content, "prompt"), read_words(content, "tag")
    wanted = _wanted({key: content[key] for key in ("include", "exclude") if key in content}, tag)
    spans = spans_of(text, wanted, tagger)
    return PromptRecord(0, text, tag, spans, wanted, "", benchmark=GENEVAL)


def read_own(content: dict[str, Any], stem: str, tagger: Tagger) -> PromptRecord:
    """An object of a user's own file by the name ``stem``."""
    refuse_misspelt(content, OWN, "the line")
    text = read_words(content, "prompt")
    category = read_words(content, "category") if "category" in content else stem
    name, seed = content.get("id", ""), content.get("seed")
    expect(type(name) in (int, str), f"id {name!r}: expected a number or words")
    expect(not HALVES.search(str(name)), f"id {name!r}: half a character; write it whole")
    good = seed is None or (type(seed) is int and 0 <= seed < SEEDS)
    expect(good, f"seed {seed!r}: expected a whole number from 0 to {SEEDS - 1}")
    wanted = _wanted(content["wanted"], category) if content.get("wanted") is not None else None
    phrases = content.get("phrases")
    spans = spans_of(text, wanted, tagger) if phrases is None else _phrases(text, phrases)
    asked = read_questions(content["questions"]) if content.get("questions") else ()
    return PromptRecord(
        0,
        text,
        category,
        spans,
        wanted,
        "",
        str(name),
        seed,
        questions=asked,
        asks=read_skills(content.get("skills")),
        atoms=read_atoms(content.get("atom_count")),
        tags={key: value for key, value in content.items() if key not in OWN},
    )


def read_skills(content: Any) -> tuple[str, ...]:
    """Names of skills, each once. Raises BadLine."""
    names = [] if content is None else content
    good = isinstance(names, list) and all(isinstance(one, str) and one.strip() for one in names)
    expect(good, f"skills {content!r}: expected a list of names")
    return tuple(dict.fromkeys(names))


def read_atoms(content: Any) -> int | None:
    """A number of atoms. Raises BadLine."""
    good = content is None or (type(content) is int and content >= 1)
    expect(good, f"atom_count {content!r}: expected a whole number from 1 on")
    return content


# Kinds of texts: of a line, the name of its file without ending, and what finds noun phrases
LINES: dict[str, Callable[[str, str, Tagger], PromptRecord]] = {
    "text": _record,
    "t2i": _t2i,
    "pairs": read_pair,
}

# --- parts of an object ---------------------------------------------------------------------------


def _phrases(text: str, phrases: Any) -> tuple[Span, ...]:
    """The characters of phrases that are given as words or as [start, end]."""
    expect(
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
        expect(
            len(phrase) == 2
            and all(type(at) is int for at in phrase)
            and 0 <= phrase[0] < phrase[1] <= len(text),
            f"{phrase}: expected [start, end] with 0 <= start < end <= {len(text)}",
            "phrase not in the prompt",
        )
        part = text[slice(*phrase)]
        detail = f"{phrase} is {part!r}: expected words without blanks around them"
        expect(part == part.strip(), detail, "phrase not in the prompt")
        spans.append((phrase[0], phrase[1]))
    spans.sort()
    for before, after in zip(spans, spans[1:], strict=False):
        detail = f"{text[slice(*before)]!r} and {text[slice(*after)]!r}: name each word once"
        expect(not overlap(before, after), detail, "phrases overlap")
    return tuple(spans)


def _wanted(content: Any, tag: str) -> dict[str, Any]:
    """What the image shall show, in GenEval's form, checked, every count written out."""
    content = read_keys(content, ("include", "exclude", "tag"), "wanted")
    include, exclude = content.get("include", []), content.get("exclude", [])
    for key, things in (("include", include), ("exclude", exclude)):
        expect(isinstance(things, list), f"{key} {things!r}: expected a list")
    detail = "include is empty: name what the image shall show, or leave wanted out"
    expect(include, detail, "nothing wanted")
    keys = ("class", "count", "color", "position")
    wanted = {
        "tag": read_words(content, "tag") if "tag" in content else tag,
        "include": [_thing(thing, i, keys) for i, thing in enumerate(include)],
    }
    if exclude:
        wanted["exclude"] = [_thing(thing, i, keys[:2]) for i, thing in enumerate(exclude)]
    return wanted


def _thing(content: Any, index: int, keys: Sequence[str]) -> dict[str, Any]:
    content = read_keys(content, keys, "a wanted thing")
    name, count = read_words(content, "class"), content.get("count", 1)
    good = type(count) is int and count >= 1
    expect(good, f"count {count!r} of {name!r}: expected a whole number from 1 on")
    thing = {"class": name, "count": count}
    if "color" in content:
        thing["color"] = read_words(content, "color")
    if "position" in content:
        position, relations = content["position"], tuple(dict.fromkeys(RELATIONS.values()))
        expect(
            isinstance(position, list)
            and len(position) == 2
            and position[0] in relations
            and position[1] in range(index),
            f"position {position!r} of {name!r}: expected [relation, index of an earlier thing], "
            f"the relation one of {', '.join(relations)}",
        )
        thing["position"] = position
    return thing
