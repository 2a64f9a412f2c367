from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from reports.study import ReportError
from reports.user_study.answers import Key, gather, load_key


def first(item: str, question: str) -> tuple[int, tuple[int, int]]:
    """Prefers the left= cell everywhere, with ratings 5 and 2."""
    return 0, (5, 2)


def test_sides_become_cells(key: Key, saved: Callable[..., Any], save: Callable[..., Path]) -> None:
    folder = save("a.json", saved("a" * 32, first))
    found = gather(folder, key)
    assert found.participants == ["a" * 32] and not found.left_out
    assert [(one.item, one.question) for one in found.answers] == [
        ("item0", "text"), ("item1", "text"), ("item2", "text"), ("item2", "mask"), ("item3", "text"), ("item3", "mask"),
    ]  # fmt: skip
    assert all(one.choice == 0 and one.ratings == (5, 2) for one in found.answers)
    assert [one.side for one in found.answers] == [
        "left",
        "right",
        "left",
        "left",
        "right",
        "right",
    ]
    assert [one.seconds for one in found.answers] == [1, 2, 3, 3, 4, 4]
    assert [one.passed for one in found.checks] == [True]


def test_no_difference_and_the_right_cell(
    key: Key, saved: Callable[..., Any], save: Callable[..., Path]
) -> None:
    folder = save(
        "a.txt",
        saved(
            "a",
            lambda item, question: (1 if item in ("item0", "item1") else None, (1, 4)),
            attentive=False,
        ),
    )
    found = gather(folder, key)  # sent as text, in a message
    assert [one.choice for one in found.answers] == [1, 1, None, None, None, None]
    assert [one.side for one in found.answers] == ["right", "left", "none", "none", "none", "none"]
    assert {one.ratings for one in found.answers} == {(1, 4)} and [
        one.passed for one in found.checks
    ] == [False]


def _changed(told: dict[str, Any], **change: Any) -> dict[str, Any]:
    return told | {"answers": [told["answers"][0] | change, *told["answers"][1:]]}


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda told: '{"format": ', "cannot be read as JSON"),
        (lambda told: [1, 2], "is no file of answers"),
        (lambda told: told | {"format": "another"}, "is no file of answers"),
        (
            lambda told: told | {"study": "fedcba"},
            r"answers another study \(fedcba\) than the key is of \(0123456789abcdef\)",
        ),
        (lambda told: told | {"participant": 7}, "no participant or no answers"),
        (lambda told: told | {"answers": [1]}, "answer 1 is none"),
        (lambda told: _changed(told, item="item9"), "answer 1 is to an unknown item 'item9'"),
        (lambda told: _changed(told, question="mask"), "answer 1 is to an unknown question 'mask'"),
        (
            lambda told: _changed(told, left="image1a"),
            "answer 1 shows other images than its item has",
        ),
        (
            lambda told: _changed(told, left="image0b", right="image0b"),
            "answer 1 shows other images than its item has",
        ),
        (
            lambda told: _changed(told, choice="both"),
            "answer 1 has the choice 'both', expected left, right or none",
        ),
        (lambda told: _changed(told, rating_left=6), "answer 1 has rating_left 6, expected 1 to 5"),
        (
            lambda told: _changed(told, rating_right=True),
            "answer 1 has rating_right True, expected 1 to 5",
        ),
        (lambda told: _changed(told, ms=-1), "answer 1 has the time -1"),
        (lambda told: _changed(told, ms=float("nan")), "answer 1 has the time nan"),
        (lambda told: _changed(told, place=None), "answer 1 has the place None"),
        (
            lambda told: told | {"answers": told["answers"][:1] * 2},
            "answer 2 is to a question that was answered before",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    spoil: Callable[[Any], Any],
    why: str,
    key: Key,
    saved: Callable[..., Any],
    save: Callable[..., Path],
) -> None:
    save("good.json", saved("a", first))
    found = gather(save("spoilt.json", spoil(saved("b", first))), key)
    assert found.participants == ["a"]
    [(name, reason)] = found.left_out
    assert name == "spoilt.json"
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(reason)


def test_a_participant_counts_once(
    key: Key, saved: Callable[..., Any], save: Callable[..., Path]
) -> None:
    save("early.json", saved("a", lambda item, question: (1, (1, 5)), stop=3))
    save("copy.json", saved("a", first))
    later = saved("a", first)
    later["answers"][0]["ms"] += 1  # went back, looked again, and saved again
    save("whole.json", later)
    found = gather(save("other.json", saved("b", first)), key)
    assert found.participants == ["a", "b"] and len(found.answers) == 12
    assert dict(found.left_out) == {
        "copy.json": "another save of whole.json, of the same participant",
        "early.json": "another save of whole.json, of the same participant",
    }
    found = gather(save("copy.json", later), key)
    assert dict(found.left_out)["whole.json"] == "a copy of copy.json, of the same participant"


def test_who_stopped_early_is_left_out_or_counted(
    key: Key, saved: Callable[..., Any], save: Callable[..., Path]
) -> None:
    save("none.json", saved("c", first, stop=0))
    save("half.json", saved("b", first, stop=3))
    folder = save("whole.json", saved("a", first))
    assert dict(gather(folder, key).left_out) == {
        "half.json": "unfinished: 3 of 7 questions answered",
        "none.json": "unfinished: 0 of 7 questions answered",
    }
    found = gather(folder, key, count_unfinished=True)
    assert found.participants == ["a", "b"] and len(found.answers) == 6 + 3
    assert found.notes == [
        ("half.json", "unfinished, counted as far as it goes: 3 of 7 questions answered")
    ]
    assert [name for name, _ in found.left_out] == ["none.json"]


def test_nothing_to_count_says_why(
    key: Key, saved: Callable[..., Any], save: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(ReportError, match="no folder .*nowhere: put the files"):
        gather(tmp_path / "nowhere", key)
    save("study.key.json", {})  # no answers, and nothing to complain of
    with pytest.raises(ReportError, match=r"no file that ends in \.json or \.txt is there"):
        gather(tmp_path, key)
    with pytest.raises(ReportError, match="half.json: unfinished: 1 of 7"):
        gather(save("half.json", saved("a", first, stop=1)), key)


def test_a_key_is_read_or_refused(key: Key, save: Callable[..., Path], tmp_path: Path) -> None:
    cells = [
        {"setting": "left", "name": "masks=target", "words": "target"},
        {"setting": "right", "name": "masks=blank", "words": "blank"},
    ]
    told = asdict(key) | {"format": "image study key 1", "cells": cells}
    assert load_key(save("study.key.json", json.dumps(told)) / "study.key.json") == key
    for name, content, message in (
        ("no.json", None, "no key at .*no.json: give key=FILE"),
        ("cut.json", "{", "is no JSON file"),
        ("other.json", {"format": "x"}, "is no key of a study"),
    ):
        if content is not None:
            save(name, content)
        with pytest.raises(ReportError, match=message):
            load_key(tmp_path / name)
