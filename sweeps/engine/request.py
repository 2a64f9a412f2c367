"""A sweep as a command asks for it: its levels, its cells, and the settings of their trials."""

from __future__ import annotations

import dataclasses
import sys
import time
import warnings
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from conf import load as conf
from conf import schema, spec
from conf.defaults import foreign_parts
from conf.describe import show_count
from lightning_modules.training.contents import contents_of
from lightning_modules.training.foresee import Findings, check_concepts, foresee, list_facts
from lightning_modules.training.keys import training_facts
from sweeps.engine.errors import PlanError
from sweeps.engine.path import AblationPath
from sweeps.engine.screen import Screen
from sweeps.engine.trials import Key
from sweeps.sweep import Cell, Sweep

if TYPE_CHECKING:
    from sweeps.engine.designs import Design

__all__ = ["Request", "trial_config"]

# What the training prompts made of concepts depend on, and what they have to fit
CONCEPT_WORDS = {
    *("data", "data.name", "data.concepts", "data.objects", "data.joins", "data.article"),
    *("data.concept_draw", "levels", "cells", "backbone", "backbone.path", "method"),
}


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
    notes: list[str] = field(default_factory=list)  # What a person should know of the cells
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
        return asked if asked is None or not self.design else self.design.prompts

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
        # Else they are the sweep's own, which are known to fit
        own = any(word.partition("=")[0] in CONCEPT_WORDS for word in self.words)
        acting = []  # What is told of the cells with a method
        for cell in self.cells:
            run = self.run((cell.text, self.config.seed))
            if (facts := conf.digest(list_facts(run))) not in seen:
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")  # The trial itself will say it
                        if own:
                            check_concepts(run)
                        seen[facts] = foresee(run, _Lines(), wanted)
                except (ValueError, OSError, ImportError) as error:
                    raise PlanError(str(error)) from error
            acting += [] if cell.untouched else [facts]
        findings = [seen[facts] for facts in dict.fromkeys(acting)]
        data_notes = [note for one in seen.values() for note in one.data_notes]
        notes = self.notes + data_notes + [note for one in findings for note in one.notes]
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
