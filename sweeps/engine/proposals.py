"""The candidates of a search: an Optuna study beside the queue, whose trials are proposed
settings."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from sweeps.engine.queue import TrialQueue
from sweeps.engine.resolve import Request
from sweeps.sweep import Cell, Factor, level_text

__all__ = ["Proposals", "make_sampler"]

DIGITS = 4  # Significant digits of a proposed number: what a person can read and type
STARTUP = 4  # Candidates that train to the end before any is compared with them
TRIES = 10  # To propose a cell that is not there yet


def make_sampler(name: str, seed: int, objectives: int) -> Any:
    """The sampler by name, everything that versions of Optuna differ in set."""
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed)
    return optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=5, multivariate=objectives == 1, constant_liar=True
    )


class Proposals:
    """The study of a search's candidates, in the same file or database as its queue."""

    def __init__(
        self, request: Request, folder: Path, name: str, identity: Mapping[str, Any]
    ) -> None:
        self.sweep, self.config = request.sweep, request.config
        self.objectives: list[str] = self.config.objectives or [self.sweep.headline]
        directions = [self.sweep.better(key) for key in self.objectives]
        storage = self.config.storage
        self.queue = TrialQueue(folder, f"{name}.candidates", directions, identity, storage)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            pruners = {
                "seeds": optuna.pruners.WilcoxonPruner(n_startup_steps=1),
                "training": optuna.pruners.MedianPruner(STARTUP),
            }
        self.study.pruner = pruners.get(self.config.prune, optuna.pruners.NopPruner())

    @property
    def study(self) -> optuna.Study:
        return self.queue.study

    def candidates(self, *states: str) -> list[FrozenTrial]:
        """What was proposed, oldest first; not the control, of which the sampler only knows
        the value."""
        return [trial for trial in self.queue.trials(*states) if "values" in trial.user_attrs]

    def cell(self, candidate: FrozenTrial) -> Cell:
        """The cell of a candidate."""
        return self.sweep.cell(candidate.user_attrs["values"], self.config.when)

    def candidate_of(self, cell: Cell) -> FrozenTrial | None:
        """The open candidate of a cell."""
        candidates = self.candidates("RUNNING")
        return next((c for c in candidates if self.cell(c).text == cell.text), None)

    def propose(self, known: Sequence[str]) -> bool:
        """Ask the sampler for one more candidate whose cell is none of ``known``; False if it
        proposes nothing new any more."""
        for _ in range(TRIES):
            # Seeded by how many there are: a search that is taken up again proposes what it would
            # have proposed
            seed = self.config.sampler_seed * 100_003 + len(self.study.get_trials(deepcopy=False))
            self.study.sampler = make_sampler(self.config.sampler, seed, len(self.objectives))
            trial = self.study.ask()
            values = {factor.key: _suggest(trial, factor) for factor in self.sweep.factors}
            if self.sweep.cell(values, self.config.when).text not in known:
                trial.set_user_attr("values", values)
                return True
            self.end(trial, "FAIL")
        return False

    def open_trial(self, candidate: FrozenTrial) -> optuna.trial.Trial:
        """A candidate as Optuna's object that takes reports and attributes."""
        return optuna.trial.Trial(self.study, candidate._trial_id)

    def finish(self, candidate: FrozenTrial, seeds: Mapping[int, Mapping[str, float]]) -> None:
        """Tell the sampler the means of a candidate; one without a value of each objective has
        failed, and says which it lacks."""
        values = self.means(seeds)
        pairs = zip(self.objectives, values, strict=True)
        if lacking := [key for key, value in pairs if not math.isfinite(value)]:
            self.open_trial(candidate).set_user_attr("undefined", lacking)
            self.end(candidate, "FAIL")
        else:
            self.study.tell(candidate.number, values)

    def end(self, candidate: FrozenTrial | optuna.trial.Trial, state: str) -> None:
        """End a candidate without a value: "PRUNED" or "FAIL"."""
        self.study.tell(candidate.number, state=optuna.trial.TrialState[state])

    def means(self, seeds: Mapping[int, Mapping[str, float]]) -> list[float]:
        """The mean of each objective over seeds: seed -> metric -> value; NaN where a seed has
        none."""
        return [
            sum(metrics.get(key, math.nan) for metrics in seeds.values()) / len(seeds)
            for key in self.objectives
        ]

    def is_hopeless(
        self, candidate: FrozenTrial, values: Mapping[int, Mapping[str, float]], seeds: int
    ) -> bool:
        """With prune=seeds, whether the finished ones of ``seeds`` seeds say that it is no
        match."""
        if self.config.prune != "seeds":
            return False
        trial = self.open_trial(candidate)
        for seed in sorted(values):
            value = values[seed].get(self.objectives[0])
            if value is not None and seed not in candidate.intermediate_values:
                trial.report(value, seed)
        return 1 < len(values) < seeds and trial.should_prune()

    def add_control(self, control: Cell, seeds: Mapping[int, Mapping[str, float]]) -> None:
        """Tell the sampler, once, what the control's seeds gave."""
        values = self.means(seeds)
        by_seed = {}
        if self.config.prune == "seeds":
            first = self.objectives[0]
            by_seed = {seed: found[first] for seed, found in seeds.items() if first in found}
        if all(map(math.isfinite, values)):
            factors = self.sweep.factors
            params = {
                f.key: control.values[f.key] if f.numeric else level_text(control.values[f.key])
                for f in factors
            }
            trial = optuna.trial.create_trial(
                params=params,
                distributions={factor.key: _distribution(factor) for factor in factors},
                values=values,
                intermediate_values=by_seed,
            )
            self.study.add_trial(trial)
        self.study.set_user_attr("baseline", True)

    @property
    def knows_control(self) -> bool:
        """Whether ``add_control`` was called, by any process."""
        return "baseline" in self.study.user_attrs


def _suggest(trial: optuna.trial.Trial, factor: Factor) -> Any:
    if not factor.numeric:
        name = trial.suggest_categorical(factor.key, [level_text(level) for level in factor.levels])
        return next(level for level in factor.levels if level_text(level) == name)
    low, high = min(factor.levels), max(factor.levels)
    if _is_integer(factor):
        return trial.suggest_int(factor.key, low, high)
    return float(f"{trial.suggest_float(factor.key, low, high):.{DIGITS}g}")


def _distribution(factor: Factor) -> Any:
    if not factor.numeric:
        return CategoricalDistribution([level_text(level) for level in factor.levels])
    kind = IntDistribution if _is_integer(factor) else FloatDistribution
    return kind(min(factor.levels), max(factor.levels))


def _is_integer(factor: Factor) -> bool:
    return all(isinstance(level, int) for level in factor.levels)
