"""A study without images: its key, and files of answers as its page saves them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reports.user_study.answers import Item, Key

Said = tuple[
    int | None, tuple[int, int]
]  # the chosen cell (None: no difference), and the ratings of both cells


@pytest.fixture
def key() -> Key:
    """Four pairs, of which the last two have masks, and one attention check: seven questions."""
    items = {
        f"item{i}": Item(f"a red circle {i}", "val", i % 2, "pair", i >= 2, (f"image{i}a", f"image{i}b")) for i in range(4)
    } | {"check": Item("a blue square", "val", 0, "check", False, ("image4a", "image4b"))}  # fmt: skip
    counts = {"pairs": 4, "checks": 1, "common": 9, "identical": 2}
    return Key(
        "0123456789abcdef",
        "mask_vs_blank",
        ("target", "blank"),
        {"text": "Which fits?", "mask": "Which fills?"},
        counts,
        items,
    )


@pytest.fixture
def saved(key: Key) -> Callable[..., dict[str, Any]]:
    """What a participant saves who says `say(item, question)` of every pair; the right= cell stands left in every second item."""

    def result(
        participant: str,
        say: Callable[[str, str], Said],
        *,
        attentive: bool = True,
        stop: int | None = None,
    ) -> dict[str, Any]:
        answers: list[dict[str, Any]] = []
        for number, (name, item) in enumerate(key.items.items()):
            swapped = number % 2 == 1
            for question in item.questions:
                choice, ratings = (
                    say(name, question)
                    if item.kind == "pair"
                    else (None if attentive else 0, (3, 3))
                )
                left, right = item.images[::-1] if swapped else item.images
                one, other = ratings[::-1] if swapped else ratings
                side = "none" if choice is None else "left" if (choice == 0) != swapped else "right"
                answers.append({
                    "place": len(answers), "item": name, "question": question, "left": left, "right": right, "choice": side,
                    "rating_left": one, "rating_right": other, "ms": 1000 * (number + 1),
                })  # fmt: skip
        kept = answers[:stop]
        return {
            "format": "image study answers 1", "study": key.study, "participant": participant, "seed": 7,
            "finished": len(kept) == len(answers), "answers": kept,
        }  # fmt: skip

    return result


@pytest.fixture
def save(tmp_path: Path) -> Callable[[str, Any], Path]:
    """Writes a file of answers; returns the folder of all of them."""

    def write(name: str, told: Any) -> Path:
        (tmp_path / name).write_text(
            told if isinstance(told, str) else json.dumps(told), encoding="utf-8"
        )
        return tmp_path

    return write
