from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from reports import statistics as st

# Factors, resolution -> runs, resolution, lengths of words: Box, Hunter and Hunter (2005), table
# 6.22, and Chen, Sun and Wu (1993)
KNOWN = {
    (3, 4): (8, 4, {}),
    (4, 4): (8, 4, {4: 1}),
    (4, 5): (16, 5, {}),
    (5, 3): (8, 3, {3: 2, 4: 1}),
    (5, 5): (16, 5, {5: 1}),
    (6, 4): (16, 4, {4: 3}),
    (6, 5): (32, 6, {6: 1}),
    (7, 3): (8, 3, {3: 7, 4: 7, 7: 1}),
    (7, 4): (16, 4, {4: 7}),
    (7, 5): (64, 7, {7: 1}),
    (8, 4): (16, 4, {4: 14, 8: 1}),
    (8, 5): (64, 5, {5: 2, 6: 1}),
    (9, 4): (32, 4, {4: 6, 5: 8, 8: 1}),
    (9, 5): (128, 6, {6: 3}),
    (10, 4): (32, 4, {4: 10, 5: 16, 8: 5}),
}


@pytest.mark.parametrize("size", KNOWN)
def test_the_best_known_fractions_are_found(size: tuple[int, int]) -> None:
    runs, resolution, lengths = KNOWN[size]
    fraction = st.two_level_fraction(*size)
    own = [len(word) for word in fraction.words]
    assert (len(fraction.runs), fraction.resolution) == (runs, resolution)
    assert {length: own.count(length) for length in own} == lengths


def test_generators_of_textbooks() -> None:
    """D = ABC, E = ABCD; of the quarter of six factors and the eighth of seven all words of four
    letters, as E = ABC, F = BCD (G = ACD) have."""
    assert st.two_level_fraction(4, 4).generators == ((0, 1, 2),)
    assert st.two_level_fraction(5, 5).generators == ((0, 1, 2, 3),)
    assert {len(word) for word in st.two_level_fraction(6, 4).words} == {4}
    assert {len(word) for word in st.two_level_fraction(7, 4).words} == {4}


@pytest.mark.parametrize("size", KNOWN)
def test_runs_are_what_words_and_resolution_say(size: tuple[int, int]) -> None:
    fraction = st.two_level_fraction(*size)
    runs, signs = fraction.runs, 2 * fraction.runs - 1
    assert not runs[0].any() and len({*map(tuple, runs)}) == len(runs)
    for word in fraction.words:  # The product of a word's columns is constant
        assert (signs[:, word].prod(axis=1) == (-1) ** len(word)).all()
    # Any resolution - 1 factors are a full factorial with all combinations as often
    width = min(fraction.resolution - 1, fraction.factors, 4)
    for some in combinations(range(fraction.factors), width):
        found, counts = np.unique(runs[:, some], axis=0, return_counts=True)
        assert len(found) == 2**width and len(set(counts)) == 1
    assert (signs.T @ signs == len(runs) * np.eye(fraction.factors)).all()


@pytest.mark.parametrize(("factors", "resolution"), [(4, 4), (5, 5), (6, 4), (8, 5)])
def test_aliases_are_what_effects_estimate(factors: int, resolution: int) -> None:
    fraction = st.two_level_fraction(factors, resolution)
    signs = 2.0 * fraction.runs - 1
    terms = [t for n in (1, 2, 3) for t in combinations(range(factors), n)]
    for effect in terms[: factors + 6]:
        own = signs[:, effect].prod(axis=1)
        named = dict((term, sign) for sign, term in fraction.aliases(effect))
        for term in terms:
            share = float(own @ signs[:, term].prod(axis=1)) / len(signs)
            expected = 1 if term == effect else named.get(term, 0)
            assert share == expected


@pytest.mark.parametrize("wrong", [(1, 4), (11, 4), (4, 2)])
def test_what_there_is_no_fraction_of_is_refused(wrong: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"factors={wrong[0]}, resolution={wrong[1]}"):
        st.two_level_fraction(*wrong)
