"""``mode=screen``: two levels of each factor, in as few combinations as tell effects apart.

A fraction of resolution IV keeps main effects free of two-way interactions, which are aliased with
each other; one of resolution V tells these apart, too. With three factors all combinations are run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice, permutations
from typing import TYPE_CHECKING, Any

from conf.describe import nearest
from sweeps.sweep import Factor, Sweep, level_text, short_names

if TYPE_CHECKING:
    from reports.statistics import Fraction

__all__ = ["Screen", "plan_screen", "with_against"]

FEWEST = 3  # Factors
ORDERS = 5040  # Orders of the factors that are tried where combinations are left out


@dataclass(frozen=True)
class Screen:
    """``levels``: key -> its control level and the other; ``keys``: the factors in the order of the
    columns of ``fraction``."""

    sweep: Sweep
    fraction: Fraction
    keys: tuple[str, ...]
    levels: Mapping[str, tuple[Any, Any]]

    @property
    def names(self) -> list[str]:
        """Of the cells."""
        return [self.sweep.cell(values).text for values in self.combinations]

    @property
    def combinations(self) -> list[dict[str, Any]]:
        """Factor key -> level of each run; a factor of one level keeps it."""
        return _combine(self.sweep, self.fraction, self.keys, self.levels)

    def describe(self) -> list[str]:
        """Which levels, how many cells, and what they cannot tell apart, in words."""
        short = short_names(self.sweep.keys)
        levels = "; ".join(
            f"{short[key]} {level_text(other)} against {level_text(control)}"
            for key, (control, other) in self.levels.items()
        )
        count, runs = len(self.keys), len(self.fraction.runs)
        whole = not self.fraction.words
        size = f"all {runs} combinations of {count} factors at two levels"
        if not whole:
            kind = {4: "IV", 5: "V", 6: "VI", 7: "VII"}.get(self.fraction.resolution, "above VII")
            size = (
                f"{runs} of the {2**count} combinations of {count} factors at two levels, a "
                f"fraction of resolution {kind}"
            )
        return [f"screen: {size}", f"  levels: {levels}", f"  {self._describe_aliases(short)}"]

    def _describe_aliases(self, short: Mapping[str, str]) -> str:
        fraction = self.fraction
        if not fraction.words:
            return "every main effect and interaction can be told apart"
        if fraction.resolution > 4:
            return (
                "main effects and two-way interactions can be told apart, supposing that no three "
                "factors interact"
            )

        def name(factors: Sequence[int]) -> str:
            return " × ".join(short[self.keys[i]] for i in factors)

        groups, seen = [], set()
        for pair in combinations(range(len(self.keys)), 2):
            if pair not in seen:
                own = [pair, *(other for _, other in fraction.aliases(pair, 2))]
                seen |= set(own)
                groups += [" = ".join(map(name, own))] if len(own) > 1 else []
        return (
            "main effects can be told apart from two-way interactions (supposing that no three "
            f"factors interact), but not these from each other: {'; '.join(groups)}; all are with "
            "resolution=5"
        )


def plan_screen(sweep: Sweep, against: Sequence[str], resolution: int) -> Screen:
    """The screen of a sweep; ``against`` are words ``factor=level``. Raises ValueError."""
    from reports.statistics import MOST_FACTORS, two_level_fraction

    if sweep.within:
        raise ValueError(
            f"mode=screen compares levels with one control, but {sweep.name} has one for each "
            f"{sweep.within}; use mode=grid"
        )
    chosen = _read_against(sweep, against)
    levels = {}
    for factor in sweep.factors:
        control = sweep.control[factor.key]
        other = chosen.get(factor.key, _furthest(factor, control))
        if other is not None:
            levels[factor.key] = (control, other)
    if not FEWEST <= len(levels) <= MOST_FACTORS:
        raise ValueError(
            f"mode=screen is for sweeps over {FEWEST} to {MOST_FACTORS} factors, but {sweep.name} "
            f"varies {len(levels)} ({', '.join(levels)}); use mode=grid or mode=one_factor"
        )
    fraction = two_level_fraction(len(levels), resolution)
    for keys in islice(permutations(levels), ORDERS if fraction.words else 1):
        left_out = [v for v in _combine(sweep, fraction, keys, levels) if sweep.leaves_out(v)]
        if not left_out:
            return Screen(sweep, fraction, keys, levels)
    name = sweep.cell(left_out[0]).text
    raise ValueError(
        f"mode=screen needs the cell {name}, which {sweep.name} leaves out; choose other levels "
        'with against=["factor=level",…], or use mode=grid'
    )


def with_against(sweep: Sweep, against: Sequence[str]) -> Sweep:
    """The same sweep with the numbers that ``against`` names as levels in addition. Raises
    ValueError."""
    chosen = {} if sweep.within else _read_against(sweep, against)

    def with_level(factor: Factor) -> Factor:
        level = chosen.get(factor.key)
        if level is None or level_text(level) in map(level_text, factor.levels):
            return factor
        return dataclasses.replace(factor, levels=sorted([*factor.levels, level]))

    return dataclasses.replace(sweep, factors=[with_level(factor) for factor in sweep.factors])


def _combine(
    sweep: Sweep,
    fraction: Fraction,
    keys: Sequence[str],
    levels: Mapping[str, tuple[Any, Any]],
) -> list[dict[str, Any]]:
    found = []
    for run in fraction.runs.tolist():
        own = {key: levels[key][place] for key, place in zip(keys, run, strict=True)}
        found.append({key: own.get(key, sweep.control[key]) for key in sweep.keys})
    return found


def _read_against(sweep: Sweep, against: Sequence[str]) -> dict[str, Any]:
    """Key -> level. Raises ValueError for a factor or level that there is not."""
    keys = {name: key for key, name in short_names(sweep.keys).items()}
    factors = {factor.key: factor for factor in sweep.factors}
    chosen: dict[str, Any] = {}
    for word in against:
        name, separator, text = word.partition("=")
        key = keys.get(name, name)
        if not separator or key not in factors:
            listed = ", ".join(keys)
            raise ValueError(
                f"against={word}: expected factor=level with a factor of {sweep.name}, {listed}"
                f"{nearest(name, list(keys))}"
            )
        try:
            level = factors[key].read_level(text)
        except ValueError as error:
            raise ValueError(f"against={word}: {name}={error}") from None
        if factors[key].numeric:  # 1 where the schema has read 1.0
            level = next((known for known in factors[key].levels if known == level), level)
        control = level_text(sweep.control[key])
        if level_text(level) == control or key in chosen:
            why = f"{control} is its control level" if key not in chosen else "it is given twice"
            raise ValueError(f"against={word}: {why}; name one other level of each factor")
        chosen[key] = level
    return chosen


def _furthest(factor: Factor, control: Any) -> Any:
    """The level furthest from the control's: in value, else in the order of the levels; the later
    of two. None where there is no other."""
    texts = [level_text(level) for level in factor.levels]
    at = texts.index(level_text(control))
    if factor.numeric:
        distances = [abs(float(level) - float(control)) for level in factor.levels]
    else:
        distances = [abs(i - at) for i in range(len(texts))]
    furthest = max(range(len(texts)), key=lambda i: (distances[i], i))
    return None if furthest == at else factor.levels[furthest]
