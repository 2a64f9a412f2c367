"""What a command asks for: the sweep with its levels, its cells and the settings of their trials,
each checked before anything is stored.

Needs none of the heavy libraries: an error in a command is reported before they load.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from conf import load as conf
from conf import schema
from conf.describe import describe
from lightning_modules.training.checks import DRAW_FIRST, DetectionsMissing
from sweeps.engine.checks import (
    check_cells,
    check_late,
    check_levels,
    check_mode,
    check_objectives,
    check_seeds,
    is_only_embedded,
    reason_to_decline,
)
from sweeps.engine.drawn import show_command
from sweeps.engine.errors import Declined, PlanError
from sweeps.engine.metrics import measurable
from sweeps.engine.path import plan_path
from sweeps.engine.request import Request, trial_config
from sweeps.engine.same import find_same
from sweeps.engine.screen import plan_screen, with_against
from sweeps.engine.stopping import check_stopping
from sweeps.sweep import Cell, Factor, Sweep, level_text

__all__ = ["resolve"]


def resolve(sweep: Sweep, config: schema.Sweep, words: Sequence[str] = ()) -> Request:
    """The sweep with the levels that were asked for, and its cells; every cell is checked against
    the schema. Raises PlanError."""
    for key in sweep.keys:
        for word in words:
            if f"{word.partition('=')[0]}.".startswith(f"{key}."):
                raise PlanError(
                    f"{word}: {key} is what this sweep varies; choose its levels with levels=[…]"
                )
    if sweep.needs and is_only_embedded(sweep, config):
        raise Declined(reason_to_decline(sweep, words))
    check_late(sweep, config)
    if not config.evaluation.measures:
        raise PlanError(
            "evaluation.prompts=0 measures nothing, and a sweep compares what is measured; "
            "give a number of prompts"
        )
    check_seeds(sweep, config)
    check_levels(sweep, config)
    check_mode(sweep, config, words)
    sweep = override_levels(sweep, config, [word.partition("=")[0] for word in words])
    try:
        sweep = measurable(sweep, config.evaluation, config.headline, config.delta)
        if config.levels is not None:
            levels = [_as_written(config, sweep.main_factor, level) for level in config.levels]
            config = dataclasses.replace(config, levels=levels)
            sweep = sweep.with_levels(levels)
        sweep = sweep.with_named(config.cells)
        if config.to is not None:
            sweep = sweep.with_named([config.to], "to")
        if config.mode == "screen":
            sweep = with_against(sweep, config.against)
        sweep = _with_typed_levels(config, sweep)
        names, screen, path = config.cells, None, None
        if config.mode == "screen":
            screen = plan_screen(sweep, config.against, config.resolution)
            names = screen.names
        elif config.mode == "path":
            path = plan_path(sweep, config.to, config.when)
            names = [cell.text for cell in path.cells({})]
        cells = sweep.cells(config.when, config.mode, names)
        check_objectives(sweep, config)
    except conf.ConfigError:
        raise
    except (ValueError, FileNotFoundError) as error:  # The latter of a model that is not there
        raise PlanError(str(error)) from None
    # Only where cells have other data or backbones than the command
    others = any(key.startswith(("data", "backbone")) for cell in cells for key in cell.training)
    given = frozenset(conf.given_keys(words, sweep.preset)) if others else frozenset()
    request = Request(sweep, config, cells, list(words), given, screen, path)
    check_stopping(sweep, config, cells)
    try:
        check_cells(request)
    except PlanError as error:
        if not isinstance(error.__cause__, DetectionsMissing):
            raise
        command = show_command(request, draw_only=True)
        raise PlanError(f"{error}; {DRAW_FIRST}: {command}") from None
    _merge_same(request)
    return request


def _merge_same(request: Request) -> None:
    """Leaves out cells that are the same as another, and notes which. Raises PlanError where one of
    them is what was asked for."""
    sweep, config, path = request.sweep, request.config, request.path
    if config.mode == "search":
        return  # It proposes none

    def run_of(cell: Cell) -> schema.Run:
        if path:  # Whose later cells are not there yet
            return trial_config(config, cell, config.seed, request.given)
        return request.run((cell.text, config.seed))

    same = find_same(sweep, path.every_cell() if path else request.cells, run_of)
    for group in same:
        for cell in group.others:
            for key, name in (("primary", config.primary), ("to", config.to)):
                if name == cell.text:
                    raise PlanError(
                        f"{key}={name}: the same as {group.cell.text}, {group.why}; name that"
                    )
    if same and request.screen:
        raise PlanError(
            f"mode=screen needs cells that differ, but {same[0].describe()}; choose other levels "
            'with against=["factor=level",…], or use mode=grid'
        )
    left_out = frozenset(cell.text for group in same for cell in group.others)
    if path:
        request.path = dataclasses.replace(path, same=left_out)
    request.cells = [cell for cell in request.cells if cell.text not in left_out]
    request.notes = [group.describe() for group in same]


def override_levels(sweep: Sweep, config: schema.Sweep, keys: Sequence[str]) -> Sweep:
    """The sweep in whose levels the command line, which sets ``keys``, goes over the settings that
    levels stand for, as it does over all others. Raises PlanError.

    A named trainer, data set or backbone replaces a level's settings of it; the method and the
    evaluation are what levels are.
    """
    replaced = tuple(f"{key}." for key in keys if key in ("trainer", "data", "backbone"))
    if "method" in keys:
        for factor in sweep.factors:
            if factor.settings and all("method" in s for s in factor.settings.values()):
                raise PlanError(
                    f"method={config.method.name}: each level of {factor.key} is a method of its "
                    "own; leave it out"
                )

    def override(settings: Mapping[str, Any]) -> dict[str, Any]:
        kept = {k: value for k, value in settings.items() if not f"{k}.".startswith(replaced)}
        set_by_files = conf.given_keys([], {}, kept)
        inside = [
            key
            for key in keys
            if key != "method"
            and (key in set_by_files or any(key == k or key.startswith(f"{k}.") for k in kept))
        ]
        return kept | {key: conf.lookup(config, key) for key in inside}

    factors = []
    for before in sweep.factors:
        settings = {level: override(known) for level, known in before.settings.items()}
        factors.append(dataclasses.replace(before, settings=settings))
        for one, two in itertools.combinations(settings, 2):
            if same_settings(config, settings[one], settings[two]) and not same_settings(
                config, before.settings[one], before.settings[two]
            ):
                raise PlanError(
                    f"these settings make {one} and {two} of {before.key} the same; "
                    "leave out what tells them apart"
                )
    also = [(levels, override(settings)) for levels, settings in sweep.also]
    return dataclasses.replace(sweep, factors=factors, also=also)


def same_settings(config: schema.Sweep, one: Mapping[str, Any], two: Mapping[str, Any]) -> bool:
    """Whether two levels come to the same settings, with the config's where they say nothing."""
    return all(
        one.get(key, conf.lookup(config, key)) == two.get(key, conf.lookup(config, key))
        for key in one.keys() | two.keys()
    )


def _as_written(config: schema.Sweep, factor: Factor, level: Any) -> Any:
    """A level of the command line by the type of its setting; of several settings, or a group's
    file, it is a name."""
    if factor.settings:
        names = {level_text(name): name for name in factor.settings}
        return names.get(level, level) if isinstance(level, str) else level
    if factor.key in describe(schema.Sweep).groups:
        return str(level) if isinstance(level, str) else level
    return _as_in_schema(config, factor, level)


def _with_typed_levels(config: schema.Sweep, sweep: Sweep) -> Sweep:
    """The sweep with each level, wherever it names one, as the schema reads it."""
    known = {factor.key: factor for factor in sweep.factors}

    def typed(levels: Mapping[str, Any]) -> dict[str, Any]:
        return {key: _as_in_schema(config, known[key], level) for key, level in levels.items()}

    return dataclasses.replace(
        sweep,
        factors=[
            dataclasses.replace(f, levels=[_as_in_schema(config, f, level) for level in f.levels])
            for f in sweep.factors
        ],
        control=typed(sweep.control),
        without=[typed(levels) for levels in sweep.without],
        also=[(typed(levels), settings) for levels, settings in sweep.also],
    )


def _as_in_schema(config: schema.Sweep, factor: Factor, level: Any) -> Any:
    """A level as the schema reads it (1 is 1.0 if a number is expected); the name of a group's
    file, or of several settings, stays as it is."""
    if factor.settings:
        return level
    if type(level) is type(conf.lookup(config, factor.key)) and not isinstance(level, list | dict):
        return level
    value = conf.lookup(conf.replace(config, {factor.key: level}, "levels"), factor.key)
    return level if dataclasses.is_dataclass(value) else value
