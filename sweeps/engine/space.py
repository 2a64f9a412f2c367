"""Which combinations of levels a search may propose: a factor is left out where nothing reads it,
or where one of its levels alone goes with those of the others; what the settings refuse is none."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from conf import load as conf
from conf.conditions import deciding_keys, why_unread
from sweeps.engine.checks import check_cell
from sweeps.engine.errors import PlanError
from sweeps.engine.request import Request, trial_config
from sweeps.sweep import Cell, Factor, level_text

__all__ = ["SearchSpace"]


class SearchSpace:
    """The space of a search over the factors of ``request``."""

    def __init__(self, request: Request) -> None:
        self.request, self.sweep = request, request.sweep
        self.deciding = {factor.key: self._deciding(factor) for factor in self.sweep.factors}
        self.order = _put_in_order(self.sweep.factors, self.deciding)

    @property
    def conditional(self) -> bool:
        """Whether a factor may be left out."""
        named = {key for combination in self.sweep.without for key in combination}
        return any(
            self.deciding[factor.key] or (factor.key in named and not factor.numeric)
            for factor in self.sweep.factors
        )

    def levels(self, factor: Factor, chosen: Mapping[str, Any]) -> list[Any]:
        """The levels of a factor that go with those ``chosen`` of the factors before it in
        ``order``; one where it is left out, and of a number that is searched the ends."""
        levels = list(factor.levels)
        if not factor.numeric:
            levels = [x for x in levels if not self._is_left_out({**chosen, factor.key: x})]
        control = self.sweep.control[factor.key]
        if self.deciding[factor.key] and self._is_unread(factor, chosen):
            texts = [level_text(level) for level in levels]
            return [control] if level_text(control) in texts else levels[:1]
        return levels

    def complete(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """``values`` in which factors that are left out have the level that they have then."""
        chosen: dict[str, Any] = {}
        for factor in self.order:
            levels = self.levels(factor, chosen)
            chosen[factor.key] = levels[0] if len(levels) == 1 else values[factor.key]
        return {key: chosen[key] for key in self.sweep.keys}

    def refusal(self, cell: Cell) -> str:
        """Why there is no such cell, "" if there is."""
        if self._is_left_out(cell.values):
            return "the sweep leaves it out"
        config = self.request.config
        try:
            run = trial_config(config, cell, config.seed, self.request.given)
            check_cell(self.sweep, cell, run)
        except (PlanError, conf.ConfigError) as error:
            return str(error)
        return ""

    @functools.cached_property
    def cells(self) -> set[str] | None:
        """The names of all cells that can be proposed; None where a factor is a number."""
        if any(factor.numeric for factor in self.sweep.factors):
            return None
        values = map(self.complete, self.sweep.combinations())
        return {self.sweep.cell(v, self.request.config.when).text for v in values}

    def _deciding(self, factor: Factor) -> set[str]:
        """The other factors that decide whether anything reads ``factor``."""
        keys = set() if factor.settings else {*deciding_keys(factor.key)}
        keys |= {key.partition(".")[0] for key in keys if key == "method.name"}  # A group's file
        return {
            other.key
            for other in self.sweep.factors
            if other is not factor
            and any(keys & settings.keys() for settings in self._settings_of(other))
        }

    def _settings_of(self, factor: Factor) -> list[dict[str, Any]]:
        """What each level of a factor sets, also in ``also``."""
        also = [dict(settings) for levels, settings in self.sweep.also if factor.key in levels]
        return [*map(factor.settings_of, factor.levels), *also]

    def _is_left_out(self, chosen: Mapping[str, Any]) -> bool:
        """Whether ``without`` says that no cell has these levels."""
        return any(
            all(
                key in chosen and level_text(chosen[key]) == level_text(level)
                for key, level in combination.items()
            )
            for combination in self.sweep.without
        )

    def _is_unread(self, factor: Factor, chosen: Mapping[str, Any]) -> bool:
        config, values = self.request.config, {**self.sweep.control, **chosen}
        try:
            cell = self.sweep.cell({key: values[key] for key in self.sweep.keys}, config.when)
            run = trial_config(config, cell, config.seed, self.request.given)
        except conf.ConfigError:  # It will be refused
            return False
        return bool(why_unread(run, factor.key))


def _put_in_order(factors: Sequence[Factor], deciding: Mapping[str, set[str]]) -> list[Factor]:
    """The factors, each behind those that decide on it, else as they are."""
    order: list[Factor] = []
    rest = list(factors)
    while rest:
        placed = {factor.key for factor in order}
        ready = [factor for factor in rest if deciding[factor.key] <= placed]
        order.append((ready or rest)[0])
        rest.remove(order[-1])
    return order
