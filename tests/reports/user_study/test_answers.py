from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from reports.results import ReportError
from reports.user_study.answers import StudyKey, load_key, read_responses


def choose_first(item: str, question: str) -> tuple[int, tuple[int, int]]:
    """Prefers the left= cell everywhere, with ratings 5 and 2."""
    return 0, (5, 2)


def test_sides_become_cells(key: StudyKey, saved: Any, save: Any) -> None:
    found = read_responses(save("a.json", saved("a" * 32, choose_first)), key)
    assert found.participants == ["a" * 32] and not found.left_out
    rows = [(answer.item[-1], answer.question, answer.side) for answer in found.answers]
    assert rows == [
        ("0", "text", "left"),
        ("1", "text", "right"),
        ("2", "text", "left"),
        ("2", "mask", "left"),
        ("3", "text", "right"),
        ("3", "mask", "right"),
    ]
    assert all(answer.choice == 0 and answer.ratings == (5, 2) for answer in found.answers)
    assert [answer.seconds for answer in found.answers] == [1, 2, 3, 3, 4, 4]
    assert [check.passed for check in found.checks] == [True]


def test_no_difference_and_the_right_cell(key: StudyKey, saved: Any, save: Any) -> None:
    def choose(item: str, question: str) -> Any:
        return 1 if item in ("item0", "item1") else None, (1, 4)

    # Sent as text, in a message
    found = read_responses(save("a.txt", saved("a" * 32, choose, attentive=False)), key)
    assert [answer.choice for answer in found.answers] == [1, 1, *[None] * 4]
    assert [answer.side for answer in found.answers] == ["right", "left", *["none"] * 4]
    assert {answer.ratings for answer in found.answers} == {(1, 4)}
    assert [check.passed for check in found.checks] == [False]


def change_file(**change: Any) -> Callable[[Any], Any]:
    return lambda file: file | change


def change_answer(**change: Any) -> Callable[[Any], Any]:
    return lambda file: file | {"answers": [file["answers"][0] | change, *file["answers"][1:]]}


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda file: '{"format": ', "cannot be read as JSON"),
        (lambda file: [1, 2], "is no file of answers"),
        (change_file(format="another"), "is no file of answers"),
        (change_file(study="fedcba"), "answers another study (fedcba)"),
        (change_file(participant=7), "no participant or no answers"),
        (change_file(participant="=1+1"), "participant '=1+1'; expected the 32 hexadecimal digits"),
        (change_file(participant="A" * 32), "expected the 32 hexadecimal digits"),
        (change_file(answers=[1]), "answer 1 is none"),
        (change_answer(item="item9"), "answer 1 is to an unknown item 'item9'"),
        (change_answer(question="mask"), "answer 1 is to an unknown question 'mask'"),
        (change_answer(left="image1a"), "answer 1 shows other images"),
        (change_answer(left="image0b", right="image0b"), "answer 1 shows other images"),
        (change_answer(choice="both"), "choice 'both', expected left, right or none"),
        (change_answer(choice=["left"]), "choice ['left'], expected left, right or none"),
        (change_answer(rating_left=6), "rating_left 6, expected 1 to 5"),
        (change_answer(rating_right=True), "rating_right True, expected 1 to 5"),
        (change_answer(rating_right=2.5), "rating_right 2.5, expected 1 to 5"),
        (change_answer(rating_right={}), "rating_right {}, expected 1 to 5"),
        (change_answer(ms=-1), "answer 1 has the time -1"),
        (change_answer(ms=float("nan")), "answer 1 has the time nan"),
        (change_answer(place=None), "answer 1 has the place None"),
        (lambda f: f | {"answers": f["answers"][:1] * 2}, "answer 2 is to a question answered"),
    ],
)
def test_a_damaged_file_is_left_out_with_its_reason(
    spoil: Callable[[Any], Any], why: str, key: StudyKey, saved: Any, save: Any
) -> None:
    save("good.json", saved("a" * 32, choose_first))
    found = read_responses(save("spoilt.json", spoil(saved("b" * 32, choose_first))), key)
    assert found.participants == ["a" * 32]
    [(name, reason)] = found.left_out
    assert name == "spoilt.json" and why in reason


def test_a_participant_counts_once(key: StudyKey, saved: Any, save: Any) -> None:
    save("early.json", saved("a" * 32, lambda *_: (1, (1, 5)), stop=3))
    save("copy.json", saved("a" * 32, choose_first))
    later = saved("a" * 32, choose_first)
    later["answers"][0]["ms"] += 1  # Went back, looked again, and saved again
    save("whole.json", later)
    found = read_responses(save("other.json", saved("b" * 32, choose_first)), key)
    assert found.participants == ["a" * 32, "b" * 32] and len(found.answers) == 12
    why = "another save of whole.json, of the same participant"
    assert dict(found.left_out) == {"copy.json": why, "early.json": why}
    found = read_responses(save("copy.json", later), key)
    assert "a copy of copy.json" in dict(found.left_out)["whole.json"]


def test_who_stopped_early_is_left_out_or_counted(key: StudyKey, saved: Any, save: Any) -> None:
    save("none.json", saved("c" * 32, choose_first, stop=0))
    save("half.json", saved("b" * 32, choose_first, stop=3))
    folder = save("whole.json", saved("a" * 32, choose_first))
    left_out = dict(read_responses(folder, key).left_out)
    assert left_out["half.json"] == "unfinished: 3 of 7 questions answered"
    assert left_out["none.json"] == "unfinished: 0 of 7 questions answered"
    found = read_responses(folder, key, count_unfinished=True)
    assert found.participants == ["a" * 32, "b" * 32] and len(found.answers) == 6 + 3
    [(name, note)] = found.notes
    assert name == "half.json" and "3 of 7 questions answered" in note
    assert [name for name, _ in found.left_out] == ["none.json"]


def test_nothing_to_count_says_why(key: StudyKey, saved: Any, save: Any, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="no folder .*nowhere: put the files"):
        read_responses(tmp_path / "nowhere", key)
    save("study.key.json", {})  # No answers, and nothing to complain of
    with pytest.raises(ReportError, match=r"no file that ends in \.json or \.txt is there"):
        read_responses(tmp_path, key)
    with pytest.raises(ReportError, match="half.json: unfinished: 1 of 7"):
        read_responses(save("half.json", saved("a" * 32, choose_first, stop=1)), key)


def test_a_key_is_read_or_refused(key: StudyKey, save: Any, tmp_path: Path) -> None:
    cells = [{"setting": "left", "words": "target"}, {"setting": "right", "words": "blank"}]
    content = asdict(key) | {"format": "image study key 1", "cells": cells}
    assert load_key(save("study.key.json", json.dumps(content)) / "study.key.json") == key
    save("cut.json", "{")
    save("other.json", {"format": "x"})
    for name, message in (
        ("no.json", "no key at .*no.json: give key=FILE"),
        ("cut.json", "is no JSON file"),
        ("other.json", "is no key of a study"),
    ):
        with pytest.raises(ReportError, match=message):
            load_key(tmp_path / name)
