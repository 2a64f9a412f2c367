"""The files that participants saved -> their answers, by cell; a damaged file is left out."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reports import prose
from reports.results import ReportError
from reports.user_study.page import KEY_FORMAT

__all__ = [
    "FORMAT",
    "CheckAnswer",
    "PairAnswer",
    "Responses",
    "StudyItem",
    "StudyKey",
    "load_key",
    "read_responses",
]

FORMAT = "image study answers 1"
PARTICIPANT = re.compile("[0-9a-f]{32}")  # As the page draws it
ENDINGS = (".json", ".txt")  # Who copies the answers into a message often sends a text file


@dataclass(frozen=True)
class StudyItem:
    """One item of a page; ``images`` are the random names of the cells' images, left= first."""

    prompt: str
    split: str
    seed: int
    kind: str  # "pair", or "check", of which both images are the same
    masks: bool
    images: tuple[str, str]

    @property
    def questions(self) -> tuple[str, ...]:
        return ("text", "mask") if self.masks else ("text",)


@dataclass(frozen=True)
class StudyKey:
    """What ``study.key.json`` says; ``cells`` are the left= and the right= cell in words."""

    study: str
    sweep: str
    cells: tuple[str, str]
    questions: dict[str, str]  # The wording of "text" and "mask"
    counts: dict[str, int]
    items: dict[str, StudyItem]

    @property
    def screens(self) -> int:
        """Questions that one participant answers."""
        return sum(len(item.questions) for item in self.items.values())


@dataclass(frozen=True)
class PairAnswer:
    """One participant's answer to one question of one pair; cells are 0 (left=) and 1 (right=)."""

    participant: str
    item: str
    question: str
    choice: int | None  # The preferred cell, None for no difference
    side: str  # "left", "right" or "none": where the choice stood
    ratings: tuple[int, int]  # Of the cells
    seconds: float
    place: int  # Number of the question in this participant's order


@dataclass(frozen=True)
class CheckAnswer:
    """An answer to an attention check; passed with "no difference"."""

    participant: str
    item: str
    question: str
    passed: bool


@dataclass
class Responses:
    """All answers that count; ``left_out`` and ``notes`` name files, with reasons."""

    key: StudyKey
    participants: list[str] = field(default_factory=list)
    answers: list[PairAnswer] = field(default_factory=list)
    checks: list[CheckAnswer] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)

    def add(self, file: dict[str, Any]) -> None:
        """A participant's answers, by cell instead of by side."""
        participant = file["participant"]
        self.participants.append(participant)
        for saved in file["answers"]:
            name, question, choice = saved["item"], saved["question"], saved["choice"]
            item = self.key.items[name]
            if item.kind == "check":
                self.checks.append(CheckAnswer(participant, name, question, choice == "none"))
                continue
            swapped = saved["left"] == item.images[1]
            ratings = saved["rating_left"], saved["rating_right"]
            self.answers.append(
                PairAnswer(
                    participant=participant,
                    item=name,
                    question=question,
                    choice=None if choice == "none" else int((choice == "right") != swapped),
                    side=choice,
                    ratings=ratings[::-1] if swapped else ratings,
                    seconds=saved["ms"] / 1000,
                    place=saved["place"],
                )
            )


def load_key(path: Path) -> StudyKey:
    """Read a key. Raises ReportError where there is none or it is no key."""
    try:
        key = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        cure = "give key=FILE, which was written beside the page"
        raise ReportError(f"no key at {path}: {cure} ({error.strerror})") from error
    except ValueError as error:
        raise ReportError(f"key={path} is no JSON file: {error}") from error
    if not isinstance(key, dict) or key.get("format") != KEY_FORMAT:
        expected = "expected the file that python -m reports.user_study wrote beside its page"
        raise ReportError(f"key={path} is no key of a study: {expected}")
    first, second = (cell["words"] for cell in key["cells"])
    fields = ("prompt", "split", "seed", "kind", "masks")
    items = {
        name: StudyItem(**{f: item[f] for f in fields}, images=tuple(item["images"]))
        for name, item in key["items"].items()
    }
    cells = first, second
    return StudyKey(key["study"], key["sweep"], cells, key["questions"], key["counts"], items)


def read_responses(folder: Path, key: StudyKey, *, count_unfinished: bool = False) -> Responses:
    """Read all answers in ``folder``.

    A participant counts once: of several saves that with the most answers, of equals the one that
    took longest, since time only adds up. Raises ReportError where nothing is left to count.
    """
    if not folder.is_dir():
        raise ReportError(f"no folder {folder}: put the files that participants saved into one")
    responses = Responses(key)
    saves: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in ENDINGS or path.name.endswith(".key.json"):
            continue
        try:
            file = _read_file(path, key)
        except ValueError as error:
            responses.left_out.append((path.name, str(error)))
            continue
        saves.setdefault(file["participant"], []).append((path.name, file))
    for _, files in sorted(saves.items()):
        name, best = max(files, key=_count_answers)
        for other, file in files:
            if other != name:
                how = "a copy" if file["answers"] == best["answers"] else "another save"
                why = f"{how} of {name}, of the same participant"
                responses.left_out.append((other, why))
        n = len(best["answers"])
        count = f"{n} of {prose.count(key.screens, 'question')} answered"
        if n < key.screens and (not count_unfinished or not n):
            responses.left_out.append((name, f"unfinished: {count}"))
            continue
        if n < key.screens:
            responses.notes.append((name, f"unfinished, counted as far as it goes: {count}"))
        responses.add(best)
    if not responses.answers:
        why = "; ".join(f"{name}: {reason}" for name, reason in responses.left_out)
        why = why or "no file that ends in .json or .txt is there"
        raise ReportError(f"no answers to count in {folder}: {why}")
    return responses


def _count_answers(save: tuple[str, dict[str, Any]]) -> tuple[int, float]:
    answers = save[1]["answers"]
    return len(answers), sum(answer["ms"] for answer in answers)


def _read_file(path: Path, key: StudyKey) -> dict[str, Any]:
    """A file's content. Raises ValueError, which says why it cannot be counted."""
    try:
        file = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(f"cannot be read as JSON: {error}") from error
    if not isinstance(file, dict) or file.get("format") != FORMAT:
        raise ValueError("is no file of answers")
    if file.get("study") != key.study:
        studies = f"answers another study ({file.get('study')}) than the key is of ({key.study})"
        raise ValueError(studies)
    participant, answers = file.get("participant"), file.get("answers")
    if not isinstance(participant, str) or not participant or not isinstance(answers, list):
        raise ValueError("is damaged: it has no participant or no answers")
    if not PARTICIPANT.fullmatch(participant):
        raise ValueError(
            f"is damaged: participant {participant[:40]!r}; expected the 32 hexadecimal digits "
            "that the page drew"
        )
    seen: set[tuple[str, str]] = set()
    for number, answer in enumerate(answers, 1):
        damage = _find_damage(answer, key) if isinstance(answer, dict) else "is none"
        if damage:
            raise ValueError(f"is damaged: answer {number} {damage}")
        question = answer["item"], answer["question"]
        if question in seen:
            raise ValueError(f"is damaged: answer {number} is to a question answered before")
        seen.add(question)
    return file


def _find_damage(answer: dict[str, Any], key: StudyKey) -> str:
    """What is wrong with one answer; empty where nothing is."""
    name = answer.get("item")
    item = key.items.get(name) if isinstance(name, str) else None
    if item is None:
        return f"is to an unknown item {name!r}"
    if answer.get("question") not in item.questions:
        return f"is to an unknown question {answer.get('question')!r}"
    if sorted(str(answer.get(side)) for side in ("left", "right")) != sorted(item.images):
        return "shows other images than its item has"
    ratings = (range(1, 6), "1 to 5")
    expected: dict[str, tuple[Any, str]] = {
        "choice": (("left", "right", "none"), "left, right or none"),
        "rating_left": ratings,
        "rating_right": ratings,
    }
    for field_name, (values, words) in expected.items():
        value = answer.get(field_name)
        if isinstance(value, bool) or value not in values:
            return f"has the {field_name} {value!r}, expected {words}"
    ms: Any = answer.get("ms")
    if type(ms) not in (int, float) or not 0 <= ms < math.inf:
        return f"has the time {ms!r}, expected milliseconds"
    if type(answer.get("place")) is not int:
        return f"has the place {answer.get('place')!r}, expected its number"
    return ""
