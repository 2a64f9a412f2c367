"""A sweep that searches: settings between the lowest and the highest level of each factor, proposed by an Optuna sampler.

A candidate is a cell like any other, whose seeds go through the sweep's queue; its value is the mean over seeds of each objective. What is
known of a candidate follows from the queue alone, so that any driver can take a search up where another left it. The untouched backbone
and the baseline cell are run too; the sampler knows the baseline's value.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_modules.tracking.store import public
from lightning_modules.training.progress import LOSSES, PRUNE, read_step
from sweeps.engine.plan import Job, Plan
from sweeps.engine.resolve import SEARCH
from sweeps.engine.study import Key, Study, key_of
from sweeps.sweep import Cell, Factor, level_text

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

__all__ = ["STARTUP", "SearchPlan", "sampler_of"]

DIGITS = 4  # significant digits of a proposed number: what a person can read and type
STARTUP = 4  # candidates that train to the end before any is compared with them
OPEN, CLOSED = ("RUNNING",), ("COMPLETE", "PRUNED", "FAIL")


def sampler_of(name: str, seed: int, objectives: int) -> Any:
    """The sampler by name, everything that versions of Optuna differ in set."""
    import optuna

    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=5, multivariate=objectives == 1, constant_liar=True)


@dataclass
class SearchPlan(Plan):
    """See the module. `search` is the study of the candidates."""

    search: Study | None = None
    _begun: int = -1  # the last trial of the queue when this process began: what failed before counts no more
    _lost: int = 0  # candidates that had failed by then, in whose place others are tried

    def size(self) -> str:
        told = f"{len(self.candidates())} of {self.config.candidates} candidates proposed, each × {len(self.seeds)} seeds"
        return f"search by {self.config.sampler} for {' and '.join(self.objectives)}: {told}"

    def more(self) -> int:
        known = {key for key in self.wanted if not self.cell(key[0]).baseline and not self.cell(key[0]).reference}
        ended = len(self.candidates("PRUNED", "FAIL"))
        return max((self.config.candidates + self._lost - ended) * len(self.seeds) - len(known), 0)

    def close(self) -> None:
        super().close()
        assert self.search is not None
        self.search.close()

    # --- candidates -----------------------------------------------------------------------------------------------------------

    @property
    def objectives(self) -> list[str]:
        return self.config.objectives or [self.sweep.headline]

    @property
    def proposals(self) -> optuna.Study:
        assert self.search is not None
        return self.search.study

    def candidates(self, *states: str) -> list[FrozenTrial]:
        """What was proposed, oldest first; not the baseline cell, whose value the sampler was only told."""
        assert self.search is not None
        return [trial for trial in self.search.trials(*states) if "values" in trial.user_attrs]

    def reconcile(self) -> None:
        self._begun = max((trial.number for trial in self.study.trials()), default=-1)
        self._lost = len(self.candidates("FAIL"))
        self.take_up()
        super().reconcile()

    def take_up(self) -> None:
        """Every candidate as a cell of the plan."""
        known = {cell.text for cell in self.cells}
        new = [cell for cell in map(self._cell_of, self.candidates()) if cell.text not in known]
        self.cells += list({cell.text: cell for cell in new}.values())
        if new:
            self.ledger.add_cells(self.cells)

    def _cell_of(self, candidate: FrozenTrial) -> Cell:
        return self.sweep.cell(candidate.user_attrs["values"], self.config.when)

    @property
    def wanted(self) -> list[Key]:
        """The seeds of the first cells, then those of candidates that have not been dropped; with pruning, the next seed of each."""
        fixed = {cell.text for cell in self.sweep.cells(self.config.when, "search")}
        keys = [(cell.text, seed) for seed in self.seeds for cell in self.cells if cell.text in fixed]
        complete = {key_of(trial) for trial in self.study.trials("COMPLETE")}
        for candidate in self.candidates(*OPEN, "COMPLETE"):
            text = self._cell_of(candidate).text
            for seed in self.seeds:
                keys.append((text, seed))
                if self.config.prune != "none" and (text, seed) not in complete:
                    break
        return list(dict.fromkeys(keys))

    def claim(self, training: Collection[str] = ()) -> Job | None:
        with self.study.lock:
            self.advance()
            job = super().claim(training)
            if job is None and len(self.candidates()) - self._lost < self.config.candidates and self._propose():
                job = super().claim(training)
        return job

    def _propose(self) -> bool:
        """Ask the sampler for one more candidate and queue it; False where it proposes nothing new any more."""
        for _ in range(10):
            # Seeded by how many there are: a search that is taken up again proposes what it would have proposed.
            number = len(self.proposals.get_trials(deepcopy=False))
            self.proposals.sampler = sampler_of(self.config.sampler, self.config.sampler_seed * 100_003 + number, len(self.objectives))
            trial = self.proposals.ask()
            values = {factor.key: _suggest(trial, factor) for factor in self.sweep.factors}
            cell = self.sweep.cell(values, self.config.when)
            if cell.text in {known.text for known in self.cells}:
                self.proposals.tell(trial, state=_state("FAIL"))
                continue
            trial.set_user_attr("values", values)
            self.take_up()
            self._queue_missing()
            return True
        return False

    def _queue_missing(self) -> None:
        known = {key_of(trial) for trial in self.study.trials("WAITING", "RUNNING", "COMPLETE")}
        for key in self.wanted:
            if key not in known and self._failures(key) <= self.config.retries:
                self.enqueue(key)

    def _failures(self, key: Key) -> int:
        failed = [trial for trial in self.study.trials("FAIL") if key_of(trial) == key and trial.number > self._begun]
        return sum(trial.user_attrs.get("status") == "FAILED" for trial in failed)

    # --- what becomes of them -------------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Tell the sampler what the queue knows by now; queue the next seeds. Called under the lock."""
        self.take_up()
        self._tell_baseline()
        seeds = self.ledger.seeds() if self.candidates(*OPEN) else {}
        for candidate in self.candidates(*OPEN):
            text = self._cell_of(candidate).text
            found = {seed: metrics for seed, metrics in seeds.get(text, {}).items() if seed in self.seeds}
            failed = [seed for seed in self.seeds if seed not in found and self._failures((text, seed)) > self.config.retries]
            if candidate.user_attrs.get("pruned") or (self.config.prune == "seeds" and self._hopeless(candidate, found)):
                self.proposals.tell(candidate.number, state=_state("PRUNED"))
            elif failed:
                self.proposals.tell(candidate.number, state=_state("FAIL"))
            elif len(found) == len(self.seeds):
                self.proposals.tell(candidate.number, [self._mean(found, key) for key in self.objectives])
        self._queue_missing()

    def _mean(self, found: dict[int, dict[str, float]], key: str) -> float:
        return sum(metrics.get(key, math.nan) for metrics in found.values()) / len(found)

    def _hopeless(self, candidate: FrozenTrial, found: dict[int, dict[str, float]]) -> bool:
        trial = self._trial(candidate)
        for seed in sorted(found):
            if seed not in candidate.intermediate_values:
                trial.report(found[seed].get(self.objectives[0], math.nan), seed)
        return 1 < len(found) < len(self.seeds) and trial.should_prune()

    def _trial(self, candidate: FrozenTrial) -> optuna.trial.Trial:
        import optuna

        return optuna.trial.Trial(self.proposals, candidate._trial_id)

    def _tell_baseline(self) -> None:
        import optuna

        cell = next(cell for cell in self.cells if cell.baseline)
        if "baseline" in self.proposals.user_attrs or not {(cell.text, seed) for seed in self.seeds} <= self.done():
            return
        found = self.ledger.seeds(cell.text)[cell.text]
        found = {seed: found[seed] for seed in self.seeds}
        spaces = {factor.key: _space(factor) for factor in self.sweep.factors}
        params = {factor.key: _stored(factor, cell.values[factor.key]) for factor in self.sweep.factors}
        values = [self._mean(found, key) for key in self.objectives]
        first, by_seed = self.objectives[0], {}
        if self.config.prune == "seeds":
            by_seed = {seed: metrics.get(first, math.nan) for seed, metrics in found.items()}
        if all(map(math.isfinite, values)):
            told = optuna.trial.create_trial(params=params, distributions=spaces, values=values, intermediate_values=by_seed)
            self.proposals.add_trial(told)
        self.proposals.set_user_attr("baseline", True)

    def told(self, job: Job, text: str) -> None:
        """With prune=training the loss of a candidate's first seed is compared with those of the candidates before it."""
        if self.config.prune != "training" or job.seed != self.seeds[0] or read_step(text) is None:
            return
        candidate = next((c for c in self.candidates(*OPEN) if self._cell_of(c).text == job.cell.text), None)
        if candidate is None:
            return
        trial, sign = self._trial(candidate), 1 if self.sweep.better(self.objectives[0]) == "lower" else -1
        for step, loss in _losses(job.folder):
            if step not in candidate.intermediate_values:
                trial.report(sign * loss, step)
        if trial.should_prune():
            (job.folder / PRUNE).touch()

    def pruned(self, job: Job) -> None:
        super().pruned(job)
        for candidate in self.candidates(*OPEN):
            if self._cell_of(candidate).text == job.cell.text:
                self._trial(candidate).set_user_attr("pruned", True)
        (job.folder / "result.json").unlink(missing_ok=True)
        (job.folder / PRUNE).unlink(missing_ok=True)

    # --- the answer -----------------------------------------------------------------------------------------------------------

    def front(self) -> list[tuple[Cell, list[float]]]:
        """The best candidate, or with several objectives all that no other beats in each (the Pareto front), the baseline cell among them,
        with their means."""
        baseline = next(cell for cell in self.cells if cell.baseline)
        return [(self._cell_of(t) if "values" in t.user_attrs else baseline, list(t.values)) for t in self.proposals.best_trials]

    def results(self) -> list[str]:
        with self.study.lock:
            self.advance()
        ends = {state: len(self.candidates(state)) for state in CLOSED}
        lines = [f"candidates: {ends['COMPLETE']} measured, {ends['PRUNED']} pruned, {ends['FAIL']} failed"]
        front = self.front()
        self.ledger.mark("front", [cell.text for cell, _ in front])
        if front:
            lines.append("best:" if len(self.objectives) == 1 else f"Pareto front of {' and '.join(self.objectives)}:")
            for cell, means in front:
                told = ", ".join(f"{key} {value:.3f}" for key, value in zip(self.objectives, means, strict=True))
                lines.append(f"  {cell.text}{' (baseline)' if cell.baseline else ''}: {told}")
        if any(not cell.baseline for cell, _ in front):
            lines.append("Chosen among many on these very seeds, so its mean flatters it. On seeds of its own:")
            lines.append(f"  {self.confirmation()}")
        return lines

    def confirmation(self) -> str:
        """A command that measures what was found, and the baseline, on seeds that it was not chosen by."""
        names = json.dumps([cell.text for cell, _ in self.front() if not cell.baseline], ensure_ascii=False)
        first, count = max(self.seeds) + 1, max(len(self.seeds), 3)
        kept = [_public(word) for word in self.words if word.partition("=")[0] not in (*SEARCH, "mode", "seed", "seeds")]
        words = [f"sweeps.{self.sweep.name}", *kept, "mode=list", f"cells={names}", f"seed={first}", f"seeds={count}"]
        return f"python -m {shlex.join(words)}"


def _losses(folder: Path) -> list[tuple[int, float]]:
    """Steps and losses that a training has written so far: at the same steps in every training."""
    path = folder / LOSSES
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [(int(line.split()[0]), float(line.split()[1])) for line in lines if len(line.split()) == 2]


def _public(word: str) -> str:
    key, _, value = word.partition("=")
    return f"{key}={public(value)}" if "://" in value else word


def _state(name: str) -> Any:
    import optuna

    return optuna.trial.TrialState[name]


def _suggest(trial: optuna.trial.Trial, factor: Factor) -> Any:
    if not factor.numeric:
        return next(level for level in factor.levels if level_text(level) == trial.suggest_categorical(factor.key, _names(factor)))
    low, high = min(factor.levels), max(factor.levels)
    if all(isinstance(level, int) for level in factor.levels):
        return trial.suggest_int(factor.key, low, high)
    return float(f"{trial.suggest_float(factor.key, low, high):.{DIGITS}g}")


def _space(factor: Factor) -> Any:
    import optuna

    if not factor.numeric:
        return optuna.distributions.CategoricalDistribution(_names(factor))
    kind = optuna.distributions.IntDistribution if all(isinstance(level, int) for level in factor.levels) else None
    return (kind or optuna.distributions.FloatDistribution)(min(factor.levels), max(factor.levels))


def _stored(factor: Factor, level: Any) -> Any:
    return level if factor.numeric else level_text(level)


def _names(factor: Factor) -> list[str]:
    return [level_text(level) for level in factor.levels]
