"""What a command asks for: the sweep with its levels, its cells and their trials' settings, each checked before anything is stored.

Needs none of the heavy libraries: whatever is wrong with a command is said before they load.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from conf import load as conf
from conf import schema
from lightning_modules.train import check
from sweeps.engine.measurable import measurable
from sweeps.sweep import Cell, Factor, Sweep

__all__ = ["SEARCH", "PlanError", "resolve", "seeds_of", "trial_config"]

SEARCH = ("candidates", "sampler", "sampler_seed", "objectives", "prune")  # what only mode=search looks at


class PlanError(ValueError):
    """A sweep that cannot be planned, said in one line."""


def resolve(sweep: Sweep, config: schema.Sweep, argv: Sequence[str] = ()) -> tuple[Sweep, list[Cell]]:
    """The sweep with the levels that were asked for, and its cells; every cell is checked against the schema. Raises PlanError."""
    for key in sweep.keys:
        if any(word.partition("=")[0] == key for word in argv):
            raise PlanError(f"{key} is what this sweep varies; choose its levels with levels=[…]")
    if sweep.needs and config.backbone.path == "embedded":
        raise PlanError(f"{sweep.name} needs {sweep.needs}, which the embedded world has not: choose a backbone of your own, backbone=sdxl")
    if not config.evaluation.prompts:
        raise PlanError("evaluation.prompts=0 measures nothing, and a sweep compares what is measured; give a number of prompts")
    _check_mode(config, argv)
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
    run = trial_config(config, cell, config.seed)
    try:
        check(run)
    except ValueError as error:
        raise PlanError(str(error)) from None
    if run.method.name == "baseline" and not (cell.reference or cell.baseline and cell.training.get("method") == "baseline"):
        raise PlanError(f"method.name=baseline: {', '.join(sweep.keys)} would change nothing in it; choose another method")


def seeds_of(config: schema.Sweep) -> list[int]:
    """The seeds of every cell."""
    return list(range(config.seed, config.seed + config.seeds))


def trial_config(config: schema.Sweep, cell: Cell, seed: int) -> schema.Run:
    """The settings of one trial. Raises ConfigError for a level that the schema does not allow."""
    run = conf.as_run(config)
    if cell.evaluation:
        conf.replace(run, cell.evaluation, "levels")  # checked here, applied after training
    late = {} if cell.reference else {**run.evaluate_with, **cell.evaluation}
    return conf.replace(run, {**cell.training, "seed": seed, "evaluate_with": late}, "levels")


def _check_mode(config: schema.Sweep, argv: Sequence[str]) -> None:
    named = {word.partition("=")[0] for word in argv}
    if config.mode == "list" and not config.cells:
        raise PlanError("mode=list runs the cells that cells=[…] names, and it names none; --plan prints the names")
    if config.mode != "list" and config.cells:
        raise PlanError(f"cells=[{'; '.join(config.cells)}] is for mode=list, but mode={config.mode}")
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
