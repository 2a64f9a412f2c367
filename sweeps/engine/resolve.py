"""What a command asks for: the sweep with its levels, its cells and the settings of their trials,
each checked before anything is stored.

Needs none of the heavy libraries: an error in a command is reported before they load.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import shlex
import sys
import time
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from conf import load as conf
from conf import schema, spec
from conf.conditions import why_unread
from conf.defaults import foreign_parts
from conf.describe import describe, show_count
from conf.seeds import SEEDS
from lightning_modules.training.checks import DRAW_FIRST, DetectionsMissing, check
from lightning_modules.training.contents import contents_of
from lightning_modules.training.foresee import Findings, foresee, list_facts
from lightning_modules.training.keys import training_facts
from sweeps.engine.drawn import show_command
from sweeps.engine.errors import Declined, PlanError
from sweeps.engine.metrics import measurable
from sweeps.engine.path import AblationPath, plan_path
from sweeps.engine.screen import Screen, plan_screen, with_against
from sweeps.engine.stopping import check_stopping
from sweeps.engine.trials import Key
from sweeps.sweep import UNTOUCHED_METHOD, Cell, Factor, Sweep, level_text

if TYPE_CHECKING:
    from sweeps.engine.designs import Design

__all__ = ["FEWEST_SEEDS", "SEARCH", "Request", "check_cell", "resolve", "trial_config"]

PLACE_WORDS = ("output=", "storage=", "tracking_uri=")
# Settings that only mode=search looks at
SEARCH = ("candidates", "sampler", "sampler_seed", "objectives", "prune")
# For prune=seeds: of three seeds that all lose the one-sided Wilcoxon test has p = 1/8, of four
# 1/16, which is below the pruner's .1
FEWEST_SEEDS = 5


@dataclass
class Request:
    """A sweep as a command asks for it: with its levels, settings, cells, and the command's
    words."""

    sweep: Sweep
    config: schema.Sweep
    cells: list[Cell]
    words: list[str]
    given: frozenset[str] = frozenset()  # Keys that the command sets, where defaults are looked at
    screen: Screen | None = None  # With mode=screen
    path: AblationPath | None = None  # With mode=path, whose cells grow
    design: Design | None = None  # Seeds of each cell and prompts, where looks have added some
    _runs: dict[str, schema.Run] = field(default_factory=dict, repr=False)
    _prompts: dict[str, int | None] = field(default_factory=dict, repr=False)
    _contents: dict[str, dict[str, str]] = field(default_factory=dict, repr=False)

    @property
    def seeds(self) -> list[int]:
        """The seeds of every cell, but those that `seeds_of` says get fewer."""
        count = self.design.most_seeds if self.design else self.config.seeds
        return list(range(self.config.seed, self.config.seed + count))

    def seeds_of(self, text: str) -> int:
        """How many seeds a cell has."""
        return self.design.seeds.get(text, len(self.seeds)) if self.design else len(self.seeds)

    @property
    def keys(self) -> list[Key]:
        """Every (cell, seed), seed by seed, so that an interrupted sweep has whole seeds rather
        than whole cells."""
        return [
            (cell.text, seed)
            for count, seed in enumerate(self.seeds)
            for cell in self.cells
            if count < self.seeds_of(cell.text)
        ]

    def describe_size(self) -> str:
        """3 cells × 1 seed = 3 trials."""
        cells, seeds = show_count(len(self.cells), "cell"), show_count(len(self.seeds), "seed")
        return f"{cells} × {seeds} = {show_count(len(self.keys), 'trial')}"

    def cell(self, text: str) -> Cell:
        """The cell of that name."""
        return next(cell for cell in self.cells if cell.text == text)

    def run(self, key: Key) -> schema.Run:
        """The settings of a trial."""
        text, seed = key
        if text not in self._runs:  # Settings take tens of milliseconds to put together
            self._runs[text] = trial_config(self.config, self.cell(text), seed, self.given)
        return dataclasses.replace(self._runs[text], seed=seed)

    def prompts(self, key: Key) -> int | None:
        """How many prompts of each split a trial is asked for; None: all that there are."""
        if key[0] not in self._prompts:
            late = conf.with_eval_overrides(self.run(key))
            self._prompts[key[0]] = late.evaluation.prompts
        asked = self._prompts[key[0]]
        return asked if asked is None or not self.design else max(asked, self.design.prompts)

    def adapter(self, key: Key) -> str:
        """Digest of the settings that a trial's training depends on; trials of one share a trained
        adapter. Empty if nothing is trained."""
        run = self.run(key)
        trains = spec.methods()[run.method.name].trains(run.method)
        return conf.digest(training_facts(run)) if trains else ""

    def contents(self, key: Key) -> dict[str, str]:
        """What lay in the files that a trial reads when it was asked for first (see
        ``contents_of``). Raises PlanError for data that cannot be used."""
        text, _ = key
        if text not in self._contents:
            run = self.run(key)
            late = conf.with_eval_overrides(run)
            facts = {name: conf.to_dict(late)[name] for name in ("backbone", "data", "evaluation")}
            settings = conf.digest(facts | {"method": (run.method.name, run.method.init)})
            if settings not in self._contents:
                self._contents[settings] = _read_contents(run)
            self._contents[text] = self._contents[settings]
        return self._contents[text]

    def check_records(self) -> list[str]:
        """Raises PlanError where data, prompts or models cannot give what a cell asks for: splits,
        numbers of prompts, what a method trains on, the headline. Decodes no image, and reads no
        weights. Returns sentences on what only a part of them gives."""
        objectives = self.config.objectives if self.config.mode == "search" else []
        wanted, shown = {self.sweep.headline, *objectives}, [m.key for m in self.sweep.metrics]
        seen: dict[str, Findings] = {}
        acting = []  # What is told of the cells with a method
        for cell in self.cells:
            run = self.run((cell.text, self.config.seed))
            if (facts := conf.digest(list_facts(run))) not in seen:
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")  # The trial itself will say it
                        seen[facts] = foresee(run, _Lines(), wanted)
                except (ValueError, OSError, ImportError) as error:
                    raise PlanError(str(error)) from error
            acting += [] if cell.untouched else [facts]
        findings = [seen[facts] for facts in dict.fromkeys(acting)]
        notes = [note for one in findings for note in one.notes]
        for key in dict.fromkeys([*sorted(wanted), *shown]):
            reasons = [one.undefined[key] for one in findings if key in one.undefined]
            if key in wanted and reasons and len(reasons) == len(findings):
                setting = "headline" if key == self.sweep.headline else "objectives"
                raise PlanError(f"{setting}={key}: no trial can give it: {reasons[0]}")
            if reasons:
                some = "" if len(reasons) == len(findings) else "in some cells "
                notes.append(f"{key} will be missing: {some}{reasons[0]}")
        return list(dict.fromkeys(notes))


def _read_contents(run: schema.Run) -> dict[str, str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # The trial itself will say it
            return contents_of(run, emit=_Lines())
    except (ValueError, OSError, ImportError) as error:
        raise PlanError(str(error)) from error


class _Lines:
    """Prints what is read, a line in two seconds at most."""

    def __init__(self) -> None:
        self.phase, self.printed = "", time.monotonic()

    def __call__(self, text: str, share: float) -> None:
        phase, now = text.partition(":")[0], time.monotonic()
        # Which data it is, is known
        if phase != "data" and (phase != self.phase or now - self.printed > 2):
            self.phase, self.printed = phase, now
            print(text, file=sys.stderr, flush=True)


def resolve(sweep: Sweep, config: schema.Sweep, words: Sequence[str] = ()) -> Request:
    """The sweep with the levels that were asked for, and its cells; every cell is checked against
    the schema. Raises PlanError."""
    for key in sweep.keys:
        for word in words:
            if f"{word.partition('=')[0]}.".startswith(f"{key}."):
                raise PlanError(
                    f"{word}: {key} is what this sweep varies; choose its levels with levels=[…]"
                )
    if sweep.needs and _only_embedded(sweep, config):
        raise Declined(_reason_to_decline(sweep, words))
    if not config.evaluation.measures:
        raise PlanError(
            "evaluation.prompts=0 measures nothing, and a sweep compares what is measured; "
            "give a number of prompts"
        )
    _check_seeds(sweep, config)
    _check_levels(sweep, config)
    _check_mode(sweep, config, words)
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
        _check_objectives(sweep, config)
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
        _check_cells(request)
    except PlanError as error:
        if not isinstance(error.__cause__, DetectionsMissing):
            raise
        command = show_command(request, draw_only=True)
        raise PlanError(f"{error}; {DRAW_FIRST}: {command}") from None
    return request


def trial_config(
    config: schema.Sweep, cell: Cell, seed: int, given: Collection[str] = ()
) -> schema.Run:
    """The settings of one trial. Raises ConfigError for a level that the schema does not allow, and
    for a default of the embedded world in a cell outside it; ``given`` are the keys that the
    command sets."""
    run = conf.replace(conf.as_run(config), cell.training, "levels")
    moves = any(key.startswith(("data", "backbone")) for key in cell.training)
    if moves and (foreign := foreign_parts(run) - foreign_parts(config)):
        run = conf.with_defaults(run, {*given, *conf.given_keys([], {}, cell.training)}, foreign)
    if cell.evaluation:
        conf.replace(run, cell.evaluation, "levels")  # Checked here, applied after training
    late = {} if cell.untouched else {**run.evaluate_with, **cell.evaluation}
    return dataclasses.replace(run, seed=seed, evaluate_with=late)


def _check_cells(request: Request) -> None:
    """Raises PlanError for settings that cannot run, those of a search's corners too."""
    sweep, config = request.sweep, request.config
    for cell in request.cells:
        check_cell(sweep, cell, request.run((cell.text, config.seed)))
    if config.mode == "search":
        grid = [cell for cell in sweep.cells(config.when) if not cell.untouched]
        runs = [trial_config(config, cell, config.seed, request.given) for cell in grid]
        for cell, run in zip(grid, runs, strict=True):
            check_cell(sweep, cell, run)
        for key in sweep.keys:
            if all(why := [why_unread(run, key) for run in runs]):
                raise PlanError(
                    f"mode=search over {key}: with {why[0]} no trial reads it, so that all "
                    "candidates would be the same; choose another"
                )


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
            f"reads {', '.join(f'method.{section}.*' for section in method.sections)}"
        )
    expected = cell.untouched or (cell.control and cell.training.get("method") == UNTOUCHED_METHOD)
    if run.method.name == UNTOUCHED_METHOD and not expected:
        varied = [key for key in sweep.keys if key.startswith("method.")]
        reads = f"it reads none of {', '.join(varied)}, and " if varied else ""
        raise PlanError(
            f"method={run.method.name}: {reads}every sweep has the untouched backbone as a cell "
            "of its own; choose another method"
        )


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
        inside = [
            key
            for key in keys
            if key != "method" and any(key == k or key.startswith(f"{k}.") for k in kept)
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


def _only_embedded(sweep: Sweep, config: schema.Sweep) -> bool:
    """Whether nothing but the embedded world is asked for."""
    if "backbone" in sweep.keys:
        embedded = spec.data_sets()[config.data.name].embedded(config)
        return embedded and config.levels is None
    return config.backbone.path == "embedded"


def _reason_to_decline(sweep: Sweep, words: Sequence[str]) -> str:
    choice = "backbone=sdxl"
    if "backbone" in sweep.keys:
        choice = "levels=[embedded,sdxl,/my/backbone]"
    # Another sweep's command goes to the same place
    places = shlex.join(word for word in words if word.startswith(PLACE_WORDS))
    other = re.sub(r"python -m sweeps\.\w+", rf"\g<0> {places}".rstrip(), sweep.instead)
    instead = f"; {other}" if other else ""
    return (
        f"{sweep.name} needs {sweep.needs}, which the embedded world does not have: "
        f"choose a backbone of your own, {choice}{instead}"
    )


def _check_seeds(sweep: Sweep, config: schema.Sweep) -> None:
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


def _check_levels(sweep: Sweep, config: schema.Sweep) -> None:
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


def _check_mode(sweep: Sweep, config: schema.Sweep, words: Sequence[str]) -> None:
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


def _check_objectives(sweep: Sweep, config: schema.Sweep) -> None:
    comparable = [metric.key for metric in sweep.metrics if metric.better != "none"]
    for key in config.objectives:
        if key not in comparable:
            raise ValueError(
                f"objectives={key}: not a metric of {sweep.name} that has a better direction; "
                f"there are {', '.join(comparable)}"
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
