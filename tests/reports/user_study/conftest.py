"""A study without images: its key, and files of answers as its page saves them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reports.user_study.answers import Responses, StudyItem, StudyKey, read_responses

Choice = tuple[int | None, tuple[int, int]]  # The cell (None: no difference), ratings of both cells


@pytest.fixture
def key() -> StudyKey:
    """Four pairs, of which the last two have masks, and one attention check: seven questions."""
    items = {}
    for i in range(4):
        images = (f"image{i}a", f"image{i}b")
        items[f"item{i}"] = StudyItem(f"a red circle {i}", "val", i % 2, "pair", i >= 2, images)
    images = ("image4a", "image4b")
    items["check"] = StudyItem("a blue square", "val", 0, "check", False, images)
    questions = {"text": "Which fits?", "mask": "Which fills?"}
    counts = {"pairs": 4, "checks": 1, "common": 9, "identical": 2}
    cells = ("target", "blank")
    return StudyKey("0123456789abcdef", "mask_vs_blank", cells, questions, counts, items)


@pytest.fixture
def saved(key: StudyKey) -> Callable[..., dict[str, Any]]:
    """What a participant saves who answers ``choose(item, question)`` of every pair.

    The right= cell stands left in every second item.
    """

    def result(
        participant: str,
        choose: Callable[[str, str], Choice],
        *,
        attentive: bool = True,
        stop: int | None = None,
    ) -> dict[str, Any]:
        answers: list[dict[str, Any]] = []
        for number, (name, item) in enumerate(key.items.items()):
            swapped = number % 2 == 1
            for question in item.questions:
                choice, ratings = None if attentive else 0, (3, 3)
                if item.kind == "pair":
                    choice, ratings = choose(name, question)
                left, right = item.images[::-1] if swapped else item.images
                one, other = ratings[::-1] if swapped else ratings
                side = "left" if (choice == 0) != swapped else "right"
                answers.append(
                    {
                        "place": len(answers),
                        "item": name,
                        "question": question,
                        "left": left,
                        "right": right,
                        "choice": "none" if choice is None else side,
                        "rating_left": one,
                        "rating_right": other,
                        "ms": 1000 * (number + 1),
                    }
                )
        kept = answers[:stop]
        return {
            "format": "image study answers 1",
            "study": key.study,
            "participant": participant,
            "seed": 7,
            "finished": len(kept) == len(answers),
            "answers": kept,
        }

    return result


@pytest.fixture
def save(tmp_path: Path) -> Callable[[str, Any], Path]:
    """Writes a file of answers; returns the folder of all of them."""

    def write(name: str, content: Any) -> Path:
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path

    return write


@pytest.fixture
def respond(key: StudyKey, saved: Any, save: Any) -> Callable[..., Responses]:
    """Answers of so many participants who all choose the same of each pair."""

    def answer(people: int, choice: int | None, *, careless: int = 0) -> Responses:
        for number in range(people):
            attentive = number >= careless
            file = saved(f"{number:032d}", lambda *_: (choice, (4, 2)), attentive=attentive)
            folder = save(f"{number}.json", file)
        return read_responses(folder, key)

    return answer
