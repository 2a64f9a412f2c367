from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from reports.statistics import krippendorff_alpha, wilson
from reports.user_study.analysis import Analysis, analyse, analyse_question
from reports.user_study.answers import PairAnswer, StudyKey, read_responses

# Of three participants on item0 … item3 in the text question: cell 0, cell 1, or no difference
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
def analysis(key: StudyKey, saved: Any, save: Any) -> Analysis:
    for person in CHOICES:

        def choose(item: str, question: str, person: str = person) -> Any:
            i = int(item[-1])
            return (CHOICES[person][i], RATINGS[person][i]) if question == "text" else (0, (5, 1))

        folder = save(f"{person}.json", saved(person * 32, choose, attentive=person != "c"))
    return analyse(read_responses(folder, key))


def test_preference_by_hand(analysis: Analysis) -> None:
    text = analysis.questions[0]
    assert text.chosen == (6, 3) and text.undecided == 3 and text.answers == 12
    assert text.preference is not None and text.binomial_p is not None
    assert text.preference.share == pytest.approx(6 / 9)
    assert text.preference.wilson == pytest.approx(wilson(6, 9))
    assert text.halved.share == pytest.approx((6 + 1.5) / 12)
    # Two-sided: all outcomes of nine that are no likelier than six
    assert text.binomial_p == pytest.approx(2 * sum(math.comb(9, k) for k in range(6, 10)) / 2**9)
    assert text.people == (2, 1, 0)
    # The participants' means less one half are 3/8, 1/4 and -1/4
    signs = (-1, 1)
    patterns = [abs(i * 3 / 8 + j / 4 + k / 4) for i in signs for j in signs for k in signs]
    assert text.people_p == pytest.approx(np.mean([total >= 3 / 8 - 1e-9 for total in patterns]))
    # Those of the items are 1/6, 0, 1/3 and 0: half of the patterns reach 1/2
    assert text.items_p == 0.5 and not text.is_clear


def test_sides_by_hand(analysis: Analysis) -> None:
    """item1 and item3 show the right= cell on the left."""
    text = analysis.questions[0]
    lefts = 4 + 1 + 1  # a: item0, item2; b: item0, item1, item2; c: item3
    assert text.left_side is not None and text.side_p is not None
    assert text.left_side.share == pytest.approx(lefts / 9)
    assert text.side_p == pytest.approx(stats.binomtest(lefts, 9).pvalue)


def test_ratings_and_agreement(analysis: Analysis) -> None:
    text, mask = analysis.questions
    both = np.array([RATINGS[person] for person in "abc"], dtype=float)  # [people, items, cells]
    means = both.mean(axis=(0, 1))
    assert [rating.mean for rating in text.ratings] == pytest.approx(means.tolist())
    difference = text.difference
    assert difference.mean == pytest.approx(means[0] - means[1]) and difference.n == 12
    assert difference.low < difference.mean < difference.high
    alpha = krippendorff_alpha(both.transpose(0, 2, 1).reshape(3, 8), "ordinal")
    assert text.alpha_rating == pytest.approx(alpha)
    choices = [[2 if c is None else c for c in CHOICES[person]] for person in "abc"]
    alpha = krippendorff_alpha(np.array(choices, dtype=float), "nominal")
    assert text.alpha_choice == pytest.approx(alpha)
    assert mask.chosen == (6, 0) and math.isnan(mask.alpha_choice) and mask.alpha_rating == 1.0


def test_attention_and_time(analysis: Analysis) -> None:
    attention, careful = analysis.attention, analysis.attentive[0]
    assert (attention.asked, attention.failed, attention.who) == (3, 1, ("c" * 32,))
    assert careful.chosen == (6, 1) and careful.undecided == 1
    assert analysis.questions[0].seconds == 2.5
    assert analysis.minutes == pytest.approx((1 + 2 + 3 + 3 + 4 + 4) / 60)


def test_every_pair_has_a_result(analysis: Analysis) -> None:
    items = {(item.item, item.question): item for item in analysis.items}
    assert len(items) == len(analysis.items) == 6
    third = items["item2", "text"]
    assert (third.prompt, third.chosen, third.undecided) == ("a red circle 2", (2, 0), 1)
    assert third.seconds == 3.0
    assert third.ratings == pytest.approx(((4 + 5 + 2) / 3, (3 + 1 + 2) / 3))


def test_when_nobody_sees_a_difference(respond: Any) -> None:
    result = analyse(respond(1, None)).questions[0]
    assert result.preference is None and result.binomial_p is None and result.left_side is None
    assert not result.is_clear and result.halved.share == 0.5
    assert result.people == (0, 0, 1) and result.people_p == 1.0


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
    places = [(f"p{p}", f"i{i}") for p in range(people) for i in range(items)]
    result = analyse_question(
        "text",
        [
            PairAnswer(*place, "text", int(n < against), "left", (4, 2), 1.0, n)
            for n, place in enumerate(places)
        ],
    )
    assert result.preference is not None and result.is_clear is clear
    # As if independent, all but the even split are beyond doubt
    assert (result.preference.wilson[0] > 0.5) is (against < 48)
