"""What a command asks for: the sweep with its levels, its cells and their trials' settings, each checked before anything is stored.

Needs none of the heavy libraries: whatever is wrong with a command is said before they load.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from conf import load as conf
from conf import schema
from lightning_modules.training.run import check
from sweeps.engine.measurable import measurable
from sweeps.sweep import Cell, Factor, Sweep

__all__ = ["SEARCH", "Declined", "PlanError", "resolve", "seeds_of", "trial_config"]

SEARCH = ("candidates", "sampler", "sampler_seed", "objectives", "prune")  # what only mode=search looks at


class PlanError(ValueError):
    """A sweep that cannot be planned, said in one line."""


class Declined(PlanError):
    """A sweep that the embedded world has nothing to show of."""


def resolve(sweep: Sweep, config: schema.Sweep, argv: Sequence[str] = ()) -> tuple[Sweep, list[Cell]]:
    """The sweep with the levels that were asked for, and its cells; every cell is checked against the schema. Raises PlanError."""
    for key in sweep.keys:
        if given := [word for word in argv if f"{word.partition('=')[0]}.".startswith(f"{key}.")]:
            raise PlanError(f"{given[0]}: {key} is what this sweep varies; choose its levels with levels=[…]")
    if sweep.needs and _embedded(sweep, config):
        raise Declined(_declined(sweep))
    if not config.evaluation.prompts:
        raise PlanError("evaluation.prompts=0 measures nothing, and a sweep compares what is measured; give a number of prompts")
    _check_mode(sweep, config, argv)
    sweep = _under(sweep, config, [word.partition("=")[0] for word in argv])
    try:
        sweep = measurable(sweep, config.evaluation, config.headline)
        if config.levels is not None:
            sweep = sweep.with_levels(config.levels)
        sweep = sweep.with_named(config.cells)
        factors = [dataclasses.replace(f, levels=[_canonical(config, f, level) for level in f.levels]) for f in sweep.factors]
        sweep = dataclasses.replace(sweep, factors=factors)
        cells = sweep.cells(config.when, config.mode, config.cells)
        _check_objectives(sweep, config)
    except conf.ConfigError:
        raise
    except ValueError as error:
        raise PlanError(str(error)) from None
    for cell in sweep.cells(config.when) if config.mode == "search" else cells:
        check_cell(sweep, config, cell)
    return sweep, cells


def check_cell(sweep: Sweep, config: schema.Sweep, cell: Cell) -> None:
    """Raises PlanError for settings that cannot run."""
    late = [key for key in cell.evaluation if key in ("method", "method.name") or key.partition(".")[0] in ("backbone", "data", "trainer")]
    if late and not cell.reference:
        raise PlanError(f"{late[0]} acts in training, so that {sweep.name} cannot vary it afterwards: use when=train")
    run = trial_config(config, cell, config.seed)
    try:
        check(run)
    except ValueError as error:
        raise PlanError(str(error)) from None
    if run.method.name == "untouched" and not (cell.reference or cell.baseline and cell.training.get("method") == "untouched"):
        raise PlanError(f"method.name=untouched: {', '.join(sweep.keys)} would change nothing in it; choose another method")


def _under(sweep: Sweep, config: schema.Sweep, said: Sequence[str]) -> Sweep:
    """The sweep with what the command line says of the settings that levels stand for: it goes over them, as it does over all others.
    Raises PlanError.

    A named trainer, data set or backbone takes the place of a level's settings of it; the method and the evaluation are what levels are.
    """
    groups = tuple(f"{key}." for key in said if key in ("trainer", "data", "backbone"))
    if "method" in said:
        for factor in sweep.factors:
            if factor.settings and all("method" in settings for settings in factor.settings.values()):
                raise PlanError(f"method={config.method.name}: each level of {factor.key} is a method of its own; leave it out")

    def over(settings: Mapping[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in settings.items() if not f"{key}.".startswith(groups)}
        inside = [key for key in said if key != "method" and any(key == other or key.startswith(f"{other}.") for other in kept)]
        return kept | {key: conf.lookup(config, key) for key in inside}

    factors = [dataclasses.replace(f, settings={level: over(settings) for level, settings in f.settings.items()}) for f in sweep.factors]
    for before, after in zip(sweep.factors, factors, strict=True):
        for one, two in itertools.combinations(after.settings, 2):
            was, now = (_alike(config, factor.settings[one], factor.settings[two]) for factor in (before, after))
            if now and not was:
                raise PlanError(f"these settings make {one} and {two} of {after.key} the same; leave out what tells them apart")
    return dataclasses.replace(sweep, factors=factors, also=[(levels, over(settings)) for levels, settings in sweep.also])


def _alike(config: schema.Sweep, one: Mapping[str, Any], two: Mapping[str, Any]) -> bool:
    """Whether two levels come to the same settings, each what the config has where it says nothing."""
    return all(one.get(key, conf.lookup(config, key)) == two.get(key, conf.lookup(config, key)) for key in one.keys() | two.keys())


def _embedded(sweep: Sweep, config: schema.Sweep) -> bool:
    """Whether nothing but the embedded world was chosen."""
    if "backbone" in sweep.keys:
        return config.data.name == "shapes" and config.levels is None
    return config.backbone.path == "embedded"


def _declined(sweep: Sweep) -> str:
    choice = "levels=[embedded,sdxl,/my/backbone]" if "backbone" in sweep.keys else "backbone=sdxl"
    instead = f"; {sweep.instead}" if sweep.instead else ""
    return f"{sweep.name} needs {sweep.needs}, which the embedded world has not: choose a backbone of your own, {choice}{instead}"


def seeds_of(config: schema.Sweep) -> list[int]:
    """The seeds of every cell."""
    return list(range(config.seed, config.seed + config.seeds))


def trial_config(config: schema.Sweep, cell: Cell, seed: int) -> schema.Run:
    """The settings of one trial. Raises ConfigError for a level that the schema does not allow."""
    run = conf.replace(conf.as_run(config), cell.training, "levels")
    if cell.evaluation:
        conf.replace(run, cell.evaluation, "levels")  # checked here, applied after training
    late = {} if cell.reference else {**run.evaluate_with, **cell.evaluation}
    return dataclasses.replace(run, seed=seed, evaluate_with=late)


def _check_mode(sweep: Sweep, config: schema.Sweep, argv: Sequence[str]) -> None:
    named = {word.partition("=")[0] for word in argv}
    if config.mode == "list" and not config.cells:
        raise PlanError("mode=list runs the cells that cells=[…] names, and it names none; --plan prints the names")
    if config.mode != "list" and "cells" in named:
        raise PlanError(f"cells=[{'; '.join(config.cells)}] is for mode=list, but mode={config.mode}")
    if config.mode == "search" and sweep.within:
        said = f"mode=search compares candidates with one baseline, but {sweep.name} has one for each {sweep.within}"
        raise PlanError(f"{said}; use mode=grid")
    if config.mode != "search" and (idle := [key for key in SEARCH if key in named]):
        raise PlanError(f"{idle[0]} is for mode=search, but mode={config.mode}")


def _check_objectives(sweep: Sweep, config: schema.Sweep) -> None:
    better = {metric.key: metric.better for metric in sweep.metrics}
    for key in config.objectives:
        if better.get(key, "none") == "none":
            there = ", ".join(key for key, direction in better.items() if direction != "none")
            raise ValueError(f"objectives={key}: not a metric of {sweep.name} that has a better direction; there are {there}")
    if len(config.objectives) > 1 and config.prune != "none":
        raise ValueError(f"prune={config.prune} with objectives={', '.join(config.objectives)}: only one metric can tell what is hopeless")
    if config.prune == "seeds" and config.seeds < 2:
        raise ValueError(f"prune=seeds with seeds={config.seeds}: there is no later seed to leave out; give more")


def _canonical(config: schema.Sweep, factor: Factor, level: Any) -> Any:
    """A level as the schema reads it (1 is 1.0 where a number is wanted); the name of a group's file, or of several settings, stays one."""
    if factor.settings:
        return level
    value = conf.lookup(conf.replace(config, {factor.key: level}, "levels"), factor.key)
    return level if dataclasses.is_dataclass(value) else value
