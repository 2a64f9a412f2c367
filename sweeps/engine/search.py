"""A sweep that searches: settings between the lowest and the highest level of each factor, proposed
by an Optuna sampler.

A candidate is a cell like any other, whose seeds go through the sweep's queue; its value is the
mean over seeds of each objective. What is known of a candidate follows from the study alone, so
that the next start can go on with a search that was left. The untouched backbone and the control
are run too; the sampler knows the control's value.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from conf.describe import show_count
from lightning_modules.tracking.store import public
from lightning_modules.training.progress import PRUNE, read_step
from sweeps.engine.checks import SEARCH
from sweeps.engine.importance import measure_importance
from sweeps.engine.plan import Job, Plan
from sweeps.engine.proposals import Proposals
from sweeps.engine.trials import RESULT, Key, key_of, read_losses
from sweeps.sweep import Cell

__all__ = ["SearchPlan", "make_search_plan"]

OPEN, CLOSED = ("RUNNING",), ("COMPLETE", "PRUNED", "FAIL")


@dataclass
class SearchPlan(Plan):
    """See the module."""

    proposals: Proposals = field(kw_only=True)
    # The last trial of the queue when this process began: what failed before counts no more
    _begun: int = -1
    _lost: int = 0  # Candidates that had failed by then, which are replaced

    def describe_size(self) -> str:
        config, seeds = self.request.config, len(self.request.seeds)
        return (
            f"search by {config.sampler} for {' and '.join(self.proposals.objectives)}: "
            f"{len(self.proposals.candidates())} of {show_count(config.candidates, 'candidate')} "
            "proposed, "
            f"each × {show_count(seeds, 'seed')}"
        )

    def unknown_trials(self) -> int:
        fixed = {cell.text for cell in _fixed_cells(self)}
        known = {key for key in self.planned if key[0] not in fixed}
        ended = len(self.proposals.candidates("PRUNED", "FAIL"))
        candidates = self.request.config.candidates + self._lost - ended
        return max(candidates * len(self.request.seeds) - len(known), 0)

    def prepare(self) -> None:
        self._begun = max((trial.number for trial in self.queue.trials()), default=-1)
        self._lost = len(self.proposals.candidates("FAIL"))
        self._add_candidates()

    @property
    def planned(self) -> list[Key]:
        """The seeds of the first cells, then those of candidates that have not been dropped; with
        pruning, the next seed of each."""
        seeds, pruning = self.request.seeds, self.request.config.prune != "none"
        fixed = {cell.text for cell in _fixed_cells(self)}
        cells = [cell.text for cell in self.request.cells if cell.text in fixed]
        keys = [(text, seed) for seed in seeds for text in cells]
        complete = {key_of(trial) for trial in self.queue.trials("COMPLETE")}
        for candidate in self.proposals.candidates(*OPEN, "COMPLETE"):
            text = self.proposals.cell(candidate).text
            for seed in seeds:
                keys.append((text, seed))
                if pruning and (text, seed) not in complete:
                    break
        return list(dict.fromkeys(keys))

    def claim(self, training: Collection[str] = ()) -> Job | None:
        self.advance()
        job = super().claim(training)
        proposed = len(self.proposals.candidates()) - self._lost
        known = [cell.text for cell in self.request.cells]
        if (
            job is None
            and proposed < self.request.config.candidates
            and self.proposals.propose(known)
        ):
            self._add_candidates()
            self._queue_missing()
            job = super().claim(training)
        return job

    def advance(self) -> None:
        """Tell the sampler what the study knows by now; queue the next seeds."""
        self._add_candidates()
        control = next(cell for cell in self.request.cells if cell.control)
        seeds, retries = self.request.seeds, self.request.config.retries
        if not self.proposals.knows_control and {(control.text, s) for s in seeds} <= self.done():
            values = self.mirror.seeds(control.text)[control.text]
            self.proposals.add_control(control, {seed: values[seed] for seed in seeds})
        running = self.proposals.candidates(*OPEN)
        stored = self.mirror.seeds() if running else {}
        for candidate in running:
            text = self.proposals.cell(candidate).text
            values = {s: metrics for s, metrics in stored.get(text, {}).items() if s in seeds}
            missing = [seed for seed in seeds if seed not in values]
            hopeless = self.proposals.is_hopeless(candidate, values, len(seeds))
            if candidate.user_attrs.get("pruned") or hopeless:
                self.proposals.end(candidate, "PRUNED")
            elif any(_count_failures(self, (text, seed)) > retries for seed in missing):
                self.proposals.end(candidate, "FAIL")
            elif not missing:
                self.proposals.finish(candidate, values)
        self._queue_missing()

    def on_progress(self, job: Job, text: str) -> None:
        """With prune=training the loss of a candidate's first seed is compared with those of the
        candidates before it."""
        if self.request.config.prune != "training" or job.seed != self.request.seeds[0]:
            return
        candidate = self.proposals.candidate_of(job.cell)
        if candidate is None or read_step(text) is None:
            return
        trial = self.proposals.open_trial(candidate)
        sign = 1 if self.request.sweep.better(self.proposals.objectives[0]) == "lower" else -1
        for step, loss in read_losses(job.folder):
            if step not in candidate.intermediate_values:
                trial.report(sign * loss, step)
        if trial.should_prune():
            (job.folder / PRUNE).touch()

    def on_pruned(self, job: Job) -> None:
        candidate = self.proposals.candidate_of(job.cell)
        if candidate is not None:
            self.proposals.open_trial(candidate).set_user_attr("pruned", True)
        for name in (RESULT, PRUNE):
            (job.folder / name).unlink(missing_ok=True)

    def summary_lines(self) -> list[str]:
        self.advance()
        ends = {state: len(self.proposals.candidates(state)) for state in CLOSED}
        lines = [
            f"candidates: {ends['COMPLETE']} measured, {ends['PRUNED']} pruned, "
            f"{ends['FAIL']} failed"
        ]
        if refusals := self.proposals.refusals():
            first, count = refusals[0], show_count(len(refusals), "proposed combination")
            lines.append(f"{count} refused, e.g. {first['cell']}: {first['reason']}")
        for candidate in self.proposals.candidates("FAIL"):
            if lacking := candidate.user_attrs.get("undefined"):
                text = self.proposals.cell(candidate).text
                lines.append(f"  {text} has no value of {', '.join(lacking)}: not ranked")
        lines += self._measure_importance()
        front = find_front(self)
        self.mirror.mark("front", [cell.text for cell, _ in front])
        objectives = self.proposals.objectives
        if front:
            several = f"Pareto front of {' and '.join(objectives)}:"
            lines.append("best:" if len(objectives) == 1 else several)
        for cell, means in front:
            values = zip(objectives, means, strict=True)
            text = ", ".join(f"{key} {value:.4g}" for key, value in values)
            lines.append(f"  {cell.text}{' (control)' if cell.control else ''}: {text}")
        if any(not cell.control for cell, _ in front):
            lines.append(
                "Selected among many on these very seeds, so its mean flatters it. On others:"
            )
            lines.append(f"  {confirmation_command(self)}")
        return lines

    def _measure_importance(self) -> list[str]:
        """Lines on it; the report is told, too. Measured again only if there are more."""
        count = len(self.proposals.queue.trials("COMPLETE"))
        known = self.queue.facts.get("importance", {})
        if known.get("candidates") != count:
            known = measure_importance(self.proposals.study, self.proposals.objectives)
            self.queue.remember("importance", known)
        self.mirror.tell("importance", json.dumps(known))
        lines = []
        for part in known["objectives"]:
            shares = [f"{f['key']} {f['share']:.2f} (p {f['p']:.2f})" for f in part["factors"]]
            text = part["why"] and f"not known, {part['why']}"
            lines.append(f"importance for {part['metric']}: {text or ', '.join(shares)}")
        return lines

    def _add_candidates(self) -> None:
        """Every candidate as a cell of the plan."""
        known = {cell.text for cell in self.request.cells}
        cells = {c.text: c for c in map(self.proposals.cell, self.proposals.candidates())}
        new = [cell for text, cell in cells.items() if text not in known]
        self.request.cells.extend(new)
        if new:
            self.mirror.add_cells(self.request.cells)

    def _queue_missing(self) -> None:
        known = {key_of(trial) for trial in self.queue.trials("WAITING", "RUNNING", "COMPLETE")}
        for key in self.planned:
            if key not in known and _count_failures(self, key) <= self.request.config.retries:
                self.enqueue(key)


def make_search_plan(plan: Plan, identity: Mapping[str, Any]) -> SearchPlan:
    """The search with the queue and the experiment of ``plan``."""
    proposals = Proposals(plan.request, plan.folder, plan.name, identity)
    parts = {item.name: getattr(plan, item.name) for item in dataclasses.fields(plan)}
    return SearchPlan(**parts, proposals=proposals)


def find_front(plan: SearchPlan) -> list[tuple[Cell, list[float]]]:
    """The best candidate, or with several objectives all that no other beats in each (the Pareto
    front), the control among them, with their means."""
    control = next(cell for cell in plan.request.cells if cell.control)
    return [
        (plan.proposals.cell(t) if "values" in t.user_attrs else control, list(t.values))
        for t in plan.proposals.study.best_trials
    ]


def confirmation_command(plan: SearchPlan) -> str:
    """A command that measures the best candidates, and the control, on seeds that they were not
    chosen by."""
    request = plan.request
    cells = [cell.text for cell, _ in find_front(plan) if not cell.control]
    names = json.dumps(cells, ensure_ascii=False)
    left_out = (*SEARCH, "mode", "seed", "seeds")
    kept = [_hide_password(w) for w in request.words if w.partition("=")[0] not in left_out]
    first, count = max(request.seeds) + 1, max(len(request.seeds), 3)
    words = ["mode=list", f"cells={names}", f"seed={first}", f"seeds={count}"]
    return f"python -m {shlex.join([f'sweeps.{request.sweep.name}', *kept, *words])}"


def _fixed_cells(plan: SearchPlan) -> list[Cell]:
    """The cells that are no candidates."""
    return plan.request.sweep.cells(plan.request.config.when, "search")


def _count_failures(plan: SearchPlan, key: Key) -> int:
    """How often a trial has failed by itself since this process began; what would fail again
    counts as all its tries."""
    retries = plan.request.config.retries
    return sum(
        retries + 1 if trial.user_attrs.get("final") else 1
        for trial in plan.queue.trials("FAIL")
        if key_of(trial) == key
        and trial.number > plan._begun
        and trial.user_attrs.get("status") == "FAILED"
    )


def _hide_password(word: str) -> str:
    key, _, value = word.partition("=")
    return f"{key}={public(value)}" if "://" in value else word
