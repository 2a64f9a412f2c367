"""The candidates of a search: an Optuna study beside that of its trials, whose trials are proposed
settings."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial

from sweeps.engine.queue import TrialQueue
from sweeps.engine.request import Request
from sweeps.engine.scales import Scale, is_logarithmic, make_scale
from sweeps.engine.space import SearchSpace
from sweeps.sweep import Cell, Factor, level_text

__all__ = ["Proposals", "make_pruner", "make_sampler"]

STARTUP = 4  # Candidates that train to the end before any is compared with them
TRIES = 10  # To propose a cell that is not there yet
RANDOM_TRIES = 50  # More of them, at random, where the sampler insists on what is there
PROPOSED, CONTROL = "proposed", "baseline"  # Facts: levels of the candidates, the control is told
REFUSALS = 100  # Proposals in a row that the settings refuse


def make_sampler(name: str, seed: int, objectives: int, conditional: bool = False) -> Any:
    """The sampler by name, everything that versions of Optuna differ in set; ``conditional`` where
    some factors are not in all candidates."""
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed)
    single = objectives == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            seed=seed,
            n_startup_trials=5,
            multivariate=single,
            group=single and conditional,
            constant_liar=True,
        )


def make_pruner(name: str) -> Any:
    """The pruner of ``prune=``: of values at seeds, or of losses at steps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        pruners = {
            "none": optuna.pruners.NopPruner(),
            "seeds": optuna.pruners.WilcoxonPruner(n_startup_steps=1),
            "training": optuna.pruners.MedianPruner(STARTUP),
        }
    return pruners[name]


class Proposals:
    """The study of a search's candidates, in the same file as that of its trials."""

    def __init__(
        self, request: Request, folder: Path, name: str, identity: Mapping[str, Any]
    ) -> None:
        self.sweep, self.config = request.sweep, request.config
        self.objectives: list[str] = self.config.objectives or [self.sweep.headline]
        directions = [self.sweep.better(key) for key in self.objectives]
        self.queue = TrialQueue(folder, f"{name}.candidates", directions, identity)
        self.study.pruner = make_pruner(self.config.prune)
        self.space = SearchSpace(request)
        self.scales = {f.key: self._scale(f) for f in self.sweep.factors if f.numeric}
        self._restore()

    def _restore(self) -> None:
        """Proposes again what a journal that was lost had; results follow from the folders."""
        if self.queue.trials() or not (proposed := self.queue.facts.get(PROPOSED)):
            return
        self.queue.remember(CONTROL, False)
        factors = {factor.key: factor for factor in self.sweep.factors}
        for known in proposed:
            self.study.add_trial(
                optuna.trial.create_trial(
                    state=optuna.trial.TrialState.RUNNING,
                    params=known["params"],
                    distributions={k: self._distribution(factors[k]) for k in known["params"]},
                    user_attrs={"values": known["values"]},
                )
            )

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
        proposes nothing new any more. What the settings refuse is no candidate."""
        refused = {told["cell"] for told in self.refusals()}
        if self.space.cells is not None and self.space.cells <= refused.union(known):
            return False
        tries = refusals = 0
        while tries < TRIES + RANDOM_TRIES and refusals < REFUSALS:
            # Seeded by how many there are: a search that is taken up again proposes what it would
            # have proposed
            seed = self.config.sampler_seed * 100_003 + len(self.study.get_trials(deepcopy=False))
            name = self.config.sampler if tries < TRIES else "random"
            self.study.sampler = make_sampler(
                name, seed, len(self.objectives), self.space.conditional
            )
            trial = self.study.ask()
            values = self._suggest(trial)
            cell = self.sweep.cell(values, self.config.when)
            if cell.text in known or cell.text in refused:
                tries += 1
            elif reason := self.space.refusal(cell):
                refusals += 1
                refused.add(cell.text)
                trial.set_user_attr("refused", {"cell": cell.text, "reason": reason})
            else:
                new = {"values": values, "params": trial.params}
                self.queue.remember(PROPOSED, [*self.queue.facts.get(PROPOSED, []), new])
                trial.set_user_attr("values", values)
                return True
            self.end(trial, "FAIL")
        return False

    def refusals(self) -> list[dict[str, str]]:
        """The proposals that the settings refused: "cell" and "reason" of each."""
        trials = self.queue.trials("FAIL")
        return [t.user_attrs["refused"] for t in trials if "refused" in t.user_attrs]

    def _suggest(self, trial: optuna.trial.Trial) -> dict[str, Any]:
        """A level of each factor; those that are left out are no parameters of the trial."""
        values: dict[str, Any] = {}
        for factor in self.space.order:
            levels = self.space.levels(factor, values)
            if len(levels) == 1 < len(factor.levels):
                values[factor.key] = levels[0]
                continue
            if factor.numeric:
                values[factor.key] = self.scales[factor.key].suggest(trial, factor.key)
            else:
                named = {level_text(level): level for level in factor.levels}
                values[factor.key] = named[trial.suggest_categorical(factor.key, list(named))]
        return {key: values[key] for key in self.sweep.keys}

    def _scale(self, factor: Factor) -> Scale:
        """A search goes on with the scale that it began with."""
        stored = (t.distributions.get(factor.key) for t in self.queue.trials())
        begun = next(filter(None, stored), None)
        log = is_logarithmic(factor) if begun is None else getattr(begun, "log", False)
        return make_scale(factor, log)

    def _distribution(self, factor: Factor) -> BaseDistribution:
        if factor.numeric:
            return self.scales[factor.key].distribution
        return CategoricalDistribution([level_text(level) for level in factor.levels])

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
            searched = self._searched_in(control)
            params = {
                f.key: self.scales[f.key].number(control.values[f.key])
                if f.numeric
                else level_text(control.values[f.key])
                for f in searched
            }
            trial = optuna.trial.create_trial(
                params=params,
                distributions={f.key: self._distribution(f) for f in searched},
                values=values,
                intermediate_values=by_seed,
            )
            self.study.add_trial(trial)
        self.queue.remember(CONTROL, True)

    def _searched_in(self, cell: Cell) -> list[Factor]:
        """The factors that are not left out in a cell."""
        before: dict[str, Any] = {}
        searched = []
        for factor in self.space.order:
            if len(self.space.levels(factor, before)) > 1 or len(factor.levels) == 1:
                searched.append(factor)
            before[factor.key] = cell.values[factor.key]
        return searched

    @property
    def knows_control(self) -> bool:
        """Whether ``add_control`` was called, by any process."""
        return bool(self.queue.facts.get(CONTROL))
