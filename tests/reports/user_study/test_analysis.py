from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from reports.statistics import wilson
from reports.user_study.analysis import Analysis, analyse, of_question
from reports.user_study.answers import Answer, Key, gather
from reports.user_study.measures import krippendorff_alpha

# choices of three participants on item0 … item3 in the text question: cell 0, cell 1, or no difference
CHOICES: dict[str, list[int | None]] = {
    "a": [0, 0, 0, None],
    "b": [0, 1, 0, 0],
    "c": [1, None, None, 1],
}
RATINGS = {
    "a": [(5, 2), (4, 2), (4, 3), (3, 3)],
    "b": [(4, 2), (2, 4), (5, 1), (4, 3)],
    "c": [(3, 4), (3, 3), (2, 2), (1, 3)],
}


@pytest.fixture
def found(key: Key, saved: Callable[..., Any], save: Callable[..., Path]) -> Analysis:
    for person in CHOICES:

        def say(
            item: str, question: str, person: str = person
        ) -> tuple[int | None, tuple[int, int]]:
            number = int(item[-1])
            return (
                (CHOICES[person][number], RATINGS[person][number])
                if question == "text"
                else (0, (5, 1))
            )

        folder = save(f"{person}.json", saved(person, say, attentive=person != "c"))
    return analyse(gather(folder, key))


def test_preference_by_hand(found: Analysis) -> None:
    text = found.questions[0]
    assert text.chosen == (6, 3) and text.undecided == 3 and text.answers == 12
    assert text.preference is not None and text.binomial_p is not None
    assert text.preference.share == pytest.approx(
        6 / 9
    ) and text.preference.wilson == pytest.approx(wilson(6, 9))
    assert text.halved.share == pytest.approx((6 + 1.5) / 12)
    # two-sided: all outcomes of nine that are no likelier than six
    assert text.binomial_p == pytest.approx(2 * sum(math.comb(9, k) for k in range(6, 10)) / 2**9)
    assert text.people == (2, 1, 0)
    # the participants' means less one half are 3/8, 1/4 and -1/4
    patterns = [abs(i * 3 / 8 + j / 4 + k / 4) for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)]
    assert text.people_p == pytest.approx(np.mean([total >= 3 / 8 - 1e-9 for total in patterns]))
    # those of the items are 1/6, 0, 1/3 and 0: all but the patterns that part them reach 1/2
    assert text.items_p == 0.5 and not text.clear


def test_sides_by_hand(found: Analysis) -> None:
    """item1 and item3 show the right= cell on the left."""
    text = found.questions[0]
    lefts = 4 + 1 + 1  # a: item0, item2; b: item0, item1, item2; c: item3
    assert text.left_side is not None and text.side_p is not None
    assert text.left_side.share == pytest.approx(lefts / 9)
    assert text.side_p == pytest.approx(stats.binomtest(lefts, 9).pvalue)


def test_ratings_and_agreement(found: Analysis) -> None:
    text = found.questions[0]
    both = np.array(
        [RATINGS[person] for person in "abc"], dtype=float
    )  # [participants, items, cells]
    assert [rating.mean for rating in text.ratings] == pytest.approx(
        both.mean(axis=(0, 1)).tolist()
    )
    assert (
        text.difference.mean == pytest.approx((both[..., 0] - both[..., 1]).mean())
        and text.difference.n == 12
    )
    assert text.difference.low < text.difference.mean < text.difference.high
    assert text.alpha_rating == pytest.approx(
        krippendorff_alpha(both.transpose(0, 2, 1).reshape(3, 8), "ordinal")
    )
    choices = np.array(
        [[2 if c is None else c for c in CHOICES[person]] for person in "abc"], dtype=float
    )
    assert text.alpha_choice == pytest.approx(krippendorff_alpha(choices, "nominal"))
    mask = found.questions[1]
    assert mask.chosen == (6, 0) and math.isnan(mask.alpha_choice) and mask.alpha_rating == 1.0


def test_attention_and_time(found: Analysis) -> None:
    assert (found.attention.asked, found.attention.failed, found.attention.who) == (3, 1, ("c",))
    careful = found.attentive[0]
    assert careful.chosen == (6, 1) and careful.undecided == 1
    assert found.questions[0].seconds == 2.5 and found.minutes == pytest.approx(
        (1 + 2 + 3 + 3 + 4 + 4) / 60
    )


def test_every_pair_has_a_row(found: Analysis) -> None:
    rows = {(row.item, row.question): row for row in found.rows}
    assert len(rows) == len(found.rows) == 6
    third = rows["item2", "text"]
    assert (third.prompt, third.chosen, third.undecided, third.seconds) == (
        "a red circle 2",
        (2, 0),
        1,
        3.0,
    )
    assert third.ratings == pytest.approx(((4 + 5 + 2) / 3, (3 + 1 + 2) / 3))


def test_when_nobody_sees_a_difference(
    key: Key, saved: Callable[..., Any], save: Callable[..., Path]
) -> None:
    of = analyse(
        gather(save("a.json", saved("a", lambda item, question: (None, (3, 3)))), key)
    ).questions[0]
    assert of.preference is None and of.binomial_p is None and of.left_side is None and not of.clear
    assert of.halved.share == 0.5 and of.people == (0, 0, 1) and of.people_p == 1.0


def answers(people: int, items: int, *, against: int = 0) -> list[Answer]:
    """All for the left= cell but the first `against`."""
    places = [(p, i) for p in range(people) for i in range(items)]
    return [
        Answer(f"p{p}", f"i{i}", "text", int(n < against), "left", (4, 2), 1.0, n)
        for n, (p, i) in enumerate(places)
    ]


@pytest.mark.parametrize(
    ("people", "items", "against", "clear"),
    [
        (8, 12, 0, True),
        (8, 12, 5, True),
        (8, 12, 48, False),
        (5, 30, 1, False),
        (30, 5, 1, False),
        (1, 30, 0, False),
    ],
)
def test_a_preference_takes_enough_people_and_items(
    people: int, items: int, against: int, clear: bool
) -> None:
    of = of_question("text", answers(people, items, against=against))
    assert of.preference is not None
    assert of.clear is clear
    assert (of.preference.wilson[0] > 0.5) is (
        against < 48
    )  # as if independent, all but the even split are beyond doubt
