from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest

from reports import statistics as st

RNG = np.random.default_rng(4)
LAYERS = [(a, b) for a in range(4) for b in range(3) if a != 2 or b == 2]  # Two cells left out


def effects_of(order: int, cells: list[tuple[int, ...]], control: tuple[int, ...]) -> np.ndarray:
    """Random means of all ``cells`` whose effects have ``order`` factors at most."""
    total = np.zeros(len(cells))
    for size in range(order + 1):
        for term in combinations(range(len(control)), size):
            values: dict[tuple[int, ...], float] = {}
            total += [
                values.setdefault(tuple(cell[i] for i in term), RNG.normal()) for cell in cells
            ]
    return total


def true_effect(
    means: dict[tuple[int, ...], float], effect: st.FactorEffect, control: tuple[int, ...]
) -> float:
    """By its definition, over all combinations."""
    sums, count = 0.0, 0
    others = [i for i in range(len(control)) if i not in effect.factors]
    choices = [sorted({cell[i] for cell in means}) for i in others]
    for rest in product(*choices):
        count += 1
        for ends in product((0, 1), repeat=len(effect.factors)):
            cell = list(control)
            for i, level in zip(others, rest, strict=True):
                cell[i] = level
            for i, level, end in zip(effect.factors, effect.levels, ends, strict=True):
                cell[i] = control[i] if end else level
            sums += (-1) ** sum(ends) * means[tuple(cell)]
    return sums / count


def every(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    return list(product(*map(range, shape)))


@pytest.mark.parametrize("control", [(0, 0, 0), (1, 1, 2)])
@pytest.mark.parametrize(
    ("gaps", "kind", "order"),
    [((), "grid", 3), (((0, 0, 1),), "model", 2)],
)
def test_estimates_are_the_effects(
    control: tuple[int, ...], gaps: tuple[tuple[int, ...], ...], kind: str, order: int
) -> None:
    """Of all combinations as they are; with one missing, where no three factors interact."""
    full = every((2, 2, 3))
    cells = [cell for cell in full if cell not in gaps]
    found = st.separable_effects(cells, cells.index(control))
    assert (found.kind, found.order) == (kind, order)
    values = dict(zip(full, effects_of(order, full, control), strict=True))
    assert len(found.main) == 4 and len(found.interactions) == 5
    for effect in found.effects:
        estimate = effect.weights @ [values[cell] for cell in cells]
        assert estimate == pytest.approx(true_effect(values, effect, control))
        assert all(len(other) == 3 for _, other in effect.aliases)
        assert bool(effect.aliases) <= bool(gaps)
    assert (kind == "grid") == (found.shape == (2, 2, 3))


def test_a_grid_s_weights_are_those_of_factorial_effects() -> None:
    x = RNG.normal(size=(3, 2, 4))
    found = st.separable_effects(every((3, 2)), 2)  # Control (1, 0)
    expected = st.factorial_effects(x, controls=[1, 0])
    known = [c for name in ("A", "B", "AB") for c in expected.terms[name].contrasts]
    for effect, contrast in zip(found.effects, known, strict=True):
        assert effect.weights[found.used] == pytest.approx(contrast.weights.ravel())


@pytest.mark.parametrize("factors", [4, 5, 6, 7, 8])
@pytest.mark.parametrize("control", [0, 1])
def test_a_fraction_is_known_by_its_cells(factors: int, control: int) -> None:
    """Estimates are the sums that its aliases say, whatever three factors do together."""
    fraction = st.two_level_fraction(factors, 4)
    cells = [tuple(map(int, run if control == 0 else 1 - run)) for run in fraction.runs]
    found = st.separable_effects(cells, 0)
    assert found.kind == ("model" if factors == 5 else "fraction")
    full, base = every((2,) * factors), (control,) * factors
    values = dict(zip(full, effects_of(3, full, base), strict=True))
    for effect in found.effects:
        named = dict((other, sign) for sign, other in effect.aliases)
        of_words = {o: s for s, o in fraction.aliases(effect.factors, 3)}
        if effect in found.main:
            assert named == of_words
        expected = true_effect(values, effect, base)
        for other, sign in of_words.items():
            alias = st.FactorEffect(other, (1 - control,) * len(other), effect.weights)
            # An interaction of m factors is 2^(m-1) times what a column of signs gives of it
            scale = 2.0 ** (len(effect.factors) - len(other))
            expected += sign * true_effect(values, alias, base) * scale
        assert effect.weights @ [values[cell] for cell in cells] == pytest.approx(expected)
    assert len(found.main) == factors
    together = [{e.factors, *(o for _, o in e.aliases)} for e in found.interactions]
    if found.kind == "fraction":  # Each pair is in one group
        pairs = [pair for group in together for pair in group]
        assert sorted(pairs) == list(combinations(range(factors), 2))


def test_gaps_leave_the_largest_grid_with_the_control() -> None:
    found = st.separable_effects(LAYERS, LAYERS.index((1, 2)))
    assert (found.kind, found.shape) == ("sub-grid", (3, 3))
    assert [LAYERS[i] for i in found.used] == [(a, b) for a in (0, 1, 3) for b in range(3)]
    assert {level for e in found.main if e.factors == (0,) for level in e.levels} == {0, 3}
    for effect in found.effects:
        assert not effect.weights[[i for i in range(len(LAYERS)) if i not in found.used]].any()
    inside = st.separable_effects(LAYERS, LAYERS.index((2, 2)))  # The control is no part of it
    assert inside.kind != "sub-grid" or LAYERS.index((2, 2)) in inside.used


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ([(0, 0), (1, 0), (2, 0), (0, 1)], "one factor"),
        ([(0, 0), (1, 1), (2, 0)], "none"),
        ([(0, 0), (1, 0), (2, 0)], "none"),  # One factor only
    ],
)
def test_what_tells_no_effects_apart_says_so(cells: list[tuple[int, ...]], kind: str) -> None:
    found = st.separable_effects(cells, 0)
    assert (found.kind, found.effects) == (kind, ())


def test_cells_that_are_alike_are_refused() -> None:
    with pytest.raises(ValueError, match="expected different cells"):
        st.separable_effects([(0, 0), (0, 0)], 0)
