"""The files that participants saved -> their answers, by cell; what is wrong with a file is said, and the file left out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reports.study import ReportError
from reports.user_study.page import KEY_FORMAT

__all__ = ["FORMAT", "Answer", "Check", "Gathered", "Item", "Key", "gather", "load_key", "unblinded"]

FORMAT = "image study answers 1"
ENDINGS = (".json", ".txt")  # who copies the answers into a message often sends a text file


@dataclass(frozen=True)
class Item:
    """One item of a page. `images` are the random names of the left= and the right= cell's image; of a check, both show the same."""

    prompt: str
    split: str
    seed: int
    kind: str  # "pair" or "check"
    masks: bool
    images: tuple[str, str]

    @property
    def questions(self) -> tuple[str, ...]:
        return ("text", "mask") if self.masks else ("text",)


@dataclass(frozen=True)
class Key:
    """What `study.key.json` says. `cells` are the left= and the right= cell in words, `questions` the wording of "text" and "mask"."""

    study: str
    sweep: str
    cells: tuple[str, str]
    questions: dict[str, str]
    counts: dict[str, int]
    items: dict[str, Item]

    @property
    def screens(self) -> int:
        """Questions that one participant answers."""
        return sum(len(item.questions) for item in self.items.values())


@dataclass(frozen=True)
class Answer:
    """One participant's answer to one question of one pair. Cells are 0 (left=) and 1 (right=); `ratings` are in that order."""

    participant: str
    item: str
    question: str
    choice: int | None  # the preferred cell, None for no difference
    side: str  # "left", "right" or "none": where the choice stood
    ratings: tuple[int, int]
    seconds: float
    place: int  # number of the question in this participant's order


@dataclass(frozen=True)
class Check:
    """An answer to an attention check; passed with "no difference"."""

    participant: str
    item: str
    question: str
    passed: bool


@dataclass
class Gathered:
    """All answers that count. `left_out` and `notes` name files and say why they do not count, or how they do."""

    key: Key
    participants: list[str] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)


def load_key(path: Path) -> Key:
    """Read a key. Raises ReportError where there is none or it is no key."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReportError(f"no key at {path}: give key=FILE, which was written beside the page ({error.strerror})") from error
    except ValueError as error:
        raise ReportError(f"key={path} is no JSON file: {error}") from error
    if not isinstance(told, dict) or told.get("format") != KEY_FORMAT:
        raise ReportError(f"key={path} is no key of a study: expected the file that python -m reports.user_study wrote beside its page")
    first, second = (cell["words"] for cell in told["cells"])
    items = {
        name: Item(one["prompt"], one["split"], one["seed"], one["kind"], one["masks"], (one["images"][0], one["images"][1]))
        for name, one in told["items"].items()
    }
    return Key(told["study"], told["sweep"], (first, second), told["questions"], told["counts"], items)


def gather(folder: Path, key: Key, *, count_unfinished: bool = False) -> Gathered:
    """Read all answers in `folder`.

    A participant counts once: of several saves that with the most answers, of equals the one that took longest, since time only adds up.
    Raises ReportError where nothing is left to count.
    """
    if not folder.is_dir():
        raise ReportError(f"no folder {folder}: put the files that participants saved into one")
    gathered = Gathered(key)
    saves: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in ENDINGS or path.name.endswith(".key.json"):
            continue
        try:
            told = _read(path, key)
        except ValueError as error:
            gathered.left_out.append((path.name, str(error)))
            continue
        saves.setdefault(told["participant"], []).append((path.name, told))
    for participant, files in sorted(saves.items()):
        name, told = max(files, key=lambda entry: (len(entry[1]["answers"]), sum(one["ms"] for one in entry[1]["answers"])))
        for other, again in files:
            if other != name:
                how = "a copy" if again["answers"] == told["answers"] else "another save"
                gathered.left_out.append((other, f"{how} of {name}, of the same participant"))
        given = len(told["answers"])
        if given < key.screens:
            if not count_unfinished or not given:
                gathered.left_out.append((name, f"unfinished: {given} of {key.screens} questions answered"))
                continue
            gathered.notes.append((name, f"unfinished, counted as far as it goes: {given} of {key.screens} questions answered"))
        gathered.participants.append(participant)
        for one in unblinded(told, key):
            (gathered.answers if isinstance(one, Answer) else gathered.checks).append(one)  # type: ignore[arg-type]
    if not gathered.answers:
        why = "; ".join(f"{name}: {reason}" for name, reason in gathered.left_out) or "no file that ends in .json or .txt is there"
        raise ReportError(f"no answers to count in {folder}: {why}")
    return gathered


def unblinded(told: dict[str, Any], key: Key) -> Iterator[Answer | Check]:
    """A participant's answers by cell instead of by side."""
    for one in told["answers"]:
        item = key.items[one["item"]]
        if item.kind == "check":
            yield Check(told["participant"], one["item"], one["question"], one["choice"] == "none")
            continue
        swapped = one["left"] == item.images[1]
        ratings = (one["rating_right"], one["rating_left"]) if swapped else (one["rating_left"], one["rating_right"])
        choice = None if one["choice"] == "none" else int((one["choice"] == "right") != swapped)
        yield Answer(
            told["participant"], one["item"], one["question"], choice, one["choice"], ratings, one["ms"] / 1000, one["place"]
        )  # fmt: skip


def _read(path: Path, key: Key) -> dict[str, Any]:
    """A file's content. Raises ValueError, which says why it cannot be counted."""
    try:
        told = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(f"cannot be read as JSON: {error}") from error
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise ValueError("is no file of answers")
    if told.get("study") != key.study:
        raise ValueError(f"answers another study ({told.get('study')}) than the key is of ({key.study})")
    participant, answers = told.get("participant"), told.get("answers")
    if not isinstance(participant, str) or not participant or not isinstance(answers, list):
        raise ValueError("is damaged: it has no participant or no answers")
    seen: set[tuple[str, str]] = set()
    for number, one in enumerate(answers, 1):
        if not isinstance(one, dict) or (wrong := _wrong(one, key)):
            raise ValueError(f"is damaged: answer {number} {wrong if isinstance(one, dict) else 'is none'}")
        if (one["item"], one["question"]) in seen:
            raise ValueError(f"is damaged: answer {number} is to a question that was answered before")
        seen.add((one["item"], one["question"]))
    return told


def _wrong(one: dict[str, Any], key: Key) -> str:
    """What is wrong with one answer; empty where nothing is."""
    item = key.items.get(one["item"]) if isinstance(one.get("item"), str) else None
    if item is None:
        return f"is to an unknown item {one.get('item')!r}"
    if one.get("question") not in item.questions:
        return f"is to an unknown question {one.get('question')!r}"
    if sorted(map(str, (one.get("left"), one.get("right")))) != sorted(item.images):
        return "shows other images than its item has"
    if one.get("choice") not in ("left", "right", "none"):
        return f"has the choice {one.get('choice')!r}, expected left, right or none"
    for name in ("rating_left", "rating_right"):
        if type(one.get(name)) is not int or not 1 <= one[name] <= 5:
            return f"has {name} {one.get(name)!r}, expected 1 to 5"
    if type(one.get("ms")) not in (int, float) or not 0 <= one["ms"] < float("inf"):
        return f"has the time {one.get('ms')!r}, expected milliseconds"
    if type(one.get("place")) is not int:
        return f"has the place {one.get('place')!r}, expected its number"
    return ""
