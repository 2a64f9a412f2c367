"""What a sweep cannot do, refused before anything is stored: its words, its levels, its cells."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from conf import load as conf
from conf import schema, spec
from conf.conditions import check_read, find_unread, list_changed_data
from conf.defaults import foreign_parts
from conf.describe import describe, nearest, show
from conf.seeds import SEEDS
from lightning_modules.training.checks import check
from sweeps.engine.errors import PlanError
from sweeps.engine.metrics import measurable
from sweeps.engine.request import trial_config
from sweeps.engine.same import check_factors
from sweeps.sweep import UNTOUCHED_METHOD, Cell, Sweep, level_text

if TYPE_CHECKING:
    from sweeps.engine.request import Request

__all__ = [
    "FEWEST_SEEDS",
    "SEARCH",
    "check_cell",
    "check_cells",
    "check_late",
    "check_levels",
    "check_measured",
    "check_mode",
    "check_objectives",
    "check_seeds",
    "is_only_embedded",
    "reason_to_decline",
]

PLACE_WORDS = ("output=", "tracking_uri=")
# Settings that only mode=search looks at
SEARCH = ("candidates", "sampler", "sampler_seed", "objectives", "prune")
# For prune=seeds: of three seeds that all lose the one-sided Wilcoxon test has p = 1/8, of four
# 1/16, which is below the pruner's .1
FEWEST_SEEDS = 5


def is_only_embedded(sweep: Sweep, config: schema.Sweep) -> bool:
    """Whether no backbone but those of the embedded world is asked for."""
    return "backbone" not in sweep.keys and config.backbone.path in schema.SHIPPED


def reason_to_decline(sweep: Sweep, words: Sequence[str]) -> str:
    # Another sweep's command goes to the same place
    places = shlex.join(word for word in words if word.startswith(PLACE_WORDS))
    other = re.sub(r"python -m sweeps\.\w+", rf"\g<0> {places}".rstrip(), sweep.instead)
    instead = f"; {other}" if other else ""
    return (
        f"{sweep.name} needs {sweep.needs}, which the embedded world does not have: "
        f"choose a backbone of your own, backbone=sdxl{instead}"
    )


def check_seeds(sweep: Sweep, config: schema.Sweep) -> None:
    if "seed" in sweep.keys:
        raise PlanError(
            f"{sweep.name} varies seed, which numbers the trials of every cell (seed=, seeds=): "
            f"vary one of {', '.join(SEEDS)}"
        )
    last = config.seed + config.seeds - 1
    if last > schema.MAX_SEED:
        raise PlanError(
            f"seed={config.seed} with seeds={config.seeds}: the last one, {last}, is beyond "
            f"{schema.MAX_SEED} (32 bit)"
        )


def check_levels(sweep: Sweep, config: schema.Sweep) -> None:
    """Raises PlanError for no levels, and for those that name what only the embedded data have."""
    if config.levels == []:
        own = "; ".join(
            f"{factor.key}: {', '.join(map(level_text, factor.levels))}" for factor in sweep.factors
        )
        raise PlanError(f"levels=[] names no level; give some, or leave it out for {own}")
    if sweep.needs or config.levels is not None or "data" not in foreign_parts(config):
        return
    for factor in sweep.factors:
        known = describe(schema.Run).settings.get(factor.key)
        if known and known.embedded == "data" and not factor.settings:
            listed = ", ".join(level_text(level) for level in factor.levels)
            raise PlanError(
                f"data={config.data.name}: the levels of {factor.key} in {sweep.name} ({listed}) "
                "are those of the embedded world; give others with levels=[…]"
            )


def check_late(sweep: Sweep, config: schema.Sweep) -> None:
    """Raises PlanError for what ``evaluate_with`` has of settings that are no method's, since the
    untouched backbone is evaluated without it, and for what the cells themselves set."""
    own: dict[str, str] = {}  # Key of a setting -> the factor that sets it
    for factor in sweep.factors:
        for level in factor.levels:
            own |= dict.fromkeys(factor.settings_of(level), factor.key)
    for key, value in config.evaluate_with.items():
        if key.startswith("evaluation.") or key in ("sampling_seed", "prompt_seed"):
            raise PlanError(
                f"evaluate_with has {key}, which acts after training by itself, and the untouched "
                f"backbone would be evaluated without it: set {key}={show(value)} instead"
            )
        if key in own:
            raise PlanError(
                f"evaluate_with has {key}, which {sweep.name} varies (its levels are those of "
                f"{own[key]}): leave it out"
            )


def check_mode(sweep: Sweep, config: schema.Sweep, words: Sequence[str]) -> None:
    named = {word.partition("=")[0] for word in words}
    if config.mode == "list" and not config.cells:
        raise PlanError(
            "mode=list runs the cells that cells=[…] names, and it names none; "
            "--plan prints the names"
        )
    if config.mode in ("search", "path") and config.evaluation.draw_only:
        raise PlanError(
            f"evaluation.draw_only=true with mode={config.mode}: cells follow from what is "
            "measured; use mode=grid"
        )
    if config.mode != "list" and "cells" in named:
        raise PlanError(
            f"cells=[{'; '.join(config.cells)}] is for mode=list, but mode={config.mode}"
        )
    for key, mode in (("against", "screen"), ("resolution", "screen"), ("to", "path")):
        if key in named and config.mode != mode:
            raise PlanError(f"{key} is for mode={mode}, but mode={config.mode}")
    if config.mode == "search" and sweep.within:
        raise PlanError(
            f"mode=search compares candidates with one control, but {sweep.name} has one for each "
            f"{sweep.within}; use mode=grid"
        )
    if config.mode != "search":
        for key in SEARCH:
            if key in named:
                raise PlanError(f"{key} is for mode=search, but mode={config.mode}")


def check_objectives(sweep: Sweep, config: schema.Sweep) -> None:
    comparable = [metric.key for metric in sweep.metrics if metric.better != "none"]
    for key in config.objectives:
        if key not in comparable:
            raise ValueError(
                f"objectives={key}: not a metric of {sweep.name} that has a better direction; "
                f"there are {', '.join(comparable)}{nearest(key, comparable)}"
            )
    if len(config.objectives) > 1 and config.prune != "none":
        raise ValueError(
            f"prune={config.prune} with objectives={', '.join(config.objectives)}: "
            "only one metric can tell what is hopeless"
        )
    if config.prune == "seeds" and config.seeds < FEWEST_SEEDS:
        raise ValueError(
            f"prune=seeds with seeds={config.seeds}: there is no later seed to leave out once a "
            f"candidate can be said to be no match, which takes {FEWEST_SEEDS - 1}; give at least "
            f"{FEWEST_SEEDS}"
        )


def check_cells(request: Request) -> None:
    """Raises PlanError for settings that cannot run, those of a search's corners too, and for what
    no trial reads: factors, and settings of the command."""
    sweep, config = request.sweep, request.config
    evaluations = []
    for cell in request.cells:
        run = request.run((cell.text, config.seed))
        check_cell(sweep, cell, run)
        if (evaluation := conf.with_eval_overrides(run).evaluation) not in evaluations:
            evaluations.append(evaluation)
            check_measured(sweep, cell, evaluation)
    searched = config.mode == "search"
    grid = sweep.cells(config.when) if searched else request.cells
    grid = [cell for cell in grid if not cell.untouched]
    if searched:
        runs = [trial_config(config, cell, config.seed, request.given) for cell in grid]
        for cell, run in zip(grid, runs, strict=True):
            check_cell(sweep, cell, run)
    else:
        runs = [request.run((cell.text, config.seed)) for cell in grid]
    check_factors(sweep, grid, runs, searched)
    known = describe(schema.Run).settings
    typed = [key for word in request.words if (key := word.partition("=")[0]) in known]
    late = [*config.evaluate_with] if "evaluate_with" in typed else []
    try:
        check_read(runs, [*dict.fromkeys([*typed, *late])])
        every = [request.run((cell.text, config.seed)) for cell in request.cells]
        check_read(every, list_changed_data(every[0]))
    except ValueError as error:
        raise PlanError(str(error)) from None


def check_measured(sweep: Sweep, cell: Cell, evaluation: schema.Evaluation) -> None:
    """Raises PlanError where a cell's evaluation does not give what the sweep compares."""
    if not evaluation.measures:
        raise PlanError(
            f"{cell.text}: evaluation.prompts=0 measures nothing, and a sweep compares what is "
            "measured; give a number of prompts"
        )
    try:
        measurable(sweep, evaluation, sweep.headline)
    except ValueError as error:
        raise PlanError(f"{cell.text}: {error}") from None


def check_cell(sweep: Sweep, cell: Cell, run: schema.Run) -> None:
    """Raises PlanError for settings that cannot run; its cause may be DetectionsMissing."""
    groups = ("backbone", "data", "trainer")
    late = [
        key
        for key in cell.evaluation
        if key in ("method", "method.name") or key.partition(".")[0] in groups
    ]
    if late and not cell.untouched:
        raise PlanError(
            f"{late[0]} acts in training, so that {sweep.name} cannot vary it afterwards: "
            "use when=train"
        )
    try:
        check(run)
    except ValueError as error:
        raise PlanError(str(error)) from error
    method = spec.methods()[run.method.name]
    unread = tuple(f"method.{name}." for name in spec.unread_sections(run.method.name))
    ignored = [key for key in sweep.keys if key.startswith(unread)]
    if ignored and method.sections and not cell.untouched:
        raise PlanError(
            f"method={run.method.name} does not read {ignored[0]}, which {sweep.name} varies; it "
            f"reads {', '.join(f'method.{section}.*' for section in method.sections)}; "
            f"{find_unread(run, ignored)[ignored[0]].cure}"
        )
    expected = cell.untouched or cell.training.get("method") == UNTOUCHED_METHOD
    if run.method.name == UNTOUCHED_METHOD and not expected:
        varied = [key for key in sweep.keys if key.startswith("method.")]
        reads = f"it reads none of {', '.join(varied)}, and " if varied else ""
        raise PlanError(
            f"method={run.method.name}: {reads}every sweep has the untouched backbone as a cell "
            "of its own; choose another method"
        )
