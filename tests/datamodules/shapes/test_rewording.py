"""Other words for the same wish."""

from __future__ import annotations

from collections import Counter

import pytest

from datamodules.shapes.captions import draw_prompt
from datamodules.shapes.reading import read_prompt
from datamodules.shapes.rewording import WORDINGS, reword
from datamodules.shapes.scenes import sample_scene
from datamodules.shapes.splits import RECIPES
from datamodules.shapes.vocabulary import INVERSE, words

PROMPT = "two small striped red circles left of a blue ring, and a white cross"


@pytest.mark.parametrize(
    ("wording", "expected"),
    [
        ("own", PROMPT),
        ("order", "a blue ring right of two small striped red circles, and a white cross"),
        (
            "synonyms",
            "a pair of tiny scarlet discs that are striped is to the left of a cobalt hoop, and "
            "an ivory plus",
        ),
        ("opening", f"a photo of {PROMPT}"),
    ],
)
def test_each_wording(wording: str, expected: str):
    assert reword(PROMPT, wording) == expected


def test_without_a_relation_the_last_is_the_first():
    assert reword("a red circle, a blue ring and a cyan cross", "order") == (
        "a cyan cross, a blue ring and a red circle"
    )
    with pytest.raises(ValueError, match="wording='other': expected one of own, order"):
        reword("a red circle", "other")


def named(text: str) -> tuple[Counter, tuple | None]:
    """What a prompt names, and how its first two lie, whichever comes first."""
    mentions, relation = read_prompt(text)
    things = [(m.number, m.color, m.shape, m.size, m.pattern) for m in mentions]
    lies = None
    if relation:
        lies = min(
            (things[0], relation, things[1]), (things[1], INVERSE[relation], things[0]), key=str
        )
    return Counter(things), lies


@pytest.mark.parametrize("split", [name for name in RECIPES if name != "train"])
def test_the_wish_stays_the_same(split: str):
    known = set(words())
    for i in range(20):
        text = draw_prompt(split, i, sample_scene(split, i)).text
        for wording in WORDINGS:
            other = reword(text, wording)
            assert named(other) == named(text), (wording, text, other)
            assert set(other.replace(",", " ,").split()) <= known
            assert wording in ("own", "order") or other != text
