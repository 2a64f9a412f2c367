"""``--replay-pruning``: what pruning would have saved on a finished sweep, and whether it would
have dropped the winner. Nothing is trained: values per seed and losses are those that are kept.

The control is known first; then the others come one after another, as with one worker, in the order
in which they were begun. What is asked of a pruner is what a search asks (``engine.search``): with
``prune=seeds`` after each seed from the second to the last but one, with ``prune=training`` at each
logged loss of the first seed, whose training ends at the next one.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import optuna
from rich.table import Table

from conf.describe import show_count
from lightning_modules.training.progress import format_duration
from sweeps.engine.checks import FEWEST_SEEDS
from sweeps.engine.errors import PlanError
from sweeps.engine.proposals import make_pruner
from sweeps.engine.studies import find_study
from sweeps.engine.trials import key_of, read_losses

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from sweeps.engine.plan import Plan
    from sweeps.engine.request import Request
    from sweeps.engine.trials import Key

__all__ = ["Candidate", "Outcome", "check_replayable", "replay", "replay_plan", "replay_table"]

PRUNES = ("none", "seeds", "training")
ORDERS = 20  # In which the candidates are replayed besides
BEFORE = ("start", "data", "train")  # Phases of a trial up to the end of its training


@dataclass(frozen=True)
class Candidate:
    """A finished cell: its values, one for each seed, the losses (step, loss) of the first seed's
    training, and what its trials took."""

    name: str
    values: tuple[float, ...]
    losses: tuple[tuple[int, float], ...] = ()
    seconds: tuple[float, ...] = ()  # Of each seed's trial, or none where that is not known
    training: float = 0.0  # Seconds of the first seed's training
    after: float = 0.0  # Seconds of the first seed's trial after the training

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)


@dataclass(frozen=True)
class Outcome:
    """What one way of pruning would have done."""

    prune: str
    dropped: tuple[str, ...]
    trials: int  # Not begun, or ended in their training
    seconds: float
    best: str  # Of what is left, the control among it
    loss: float  # How much better the winner of all is
    orders_lost: int = 0  # Of ``ORDERS`` other orders those in which the winner is dropped


def replay(candidates: Sequence[Candidate], control: Candidate, better: str, prune: str) -> Outcome:
    """Prune ``candidates`` in their order; ``better`` is "higher" or "lower"."""
    kept, trials, seconds = [control], 0, 0.0
    dropped: list[str] = []
    study = optuna.create_study(
        direction="maximize" if better == "higher" else "minimize", pruner=make_pruner(prune)
    )
    study.add_trial(
        optuna.trial.create_trial(
            value=control.mean,
            intermediate_values=dict(enumerate(control.values)) if prune == "seeds" else {},
        )
    )
    for candidate in candidates:
        trial = study.ask()
        seeds = len(candidate.values)
        end, saved = _ask(trial, candidate, better, prune)
        if end is None:
            study.tell(trial, candidate.mean)
            kept.append(candidate)
            continue
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        dropped.append(candidate.name)
        trials += seeds - end
        seconds += saved + sum(candidate.seconds[end + (prune == "training") :])
    best, winner = _best(kept, better), _best([control, *candidates], better)
    return Outcome(prune, tuple(dropped), trials, seconds, best.name, abs(winner.mean - best.mean))


def _ask(
    trial: optuna.Trial, candidate: Candidate, better: str, prune: str
) -> tuple[int | None, float]:
    """How many seeds a candidate finishes before it is dropped, None where it is not; and the
    seconds that are saved of the trial in which it is."""
    values, losses = candidate.values, candidate.losses
    if prune == "seeds":
        for count, value in enumerate(values, 1):
            trial.report(value, count - 1)
            if 1 < count < len(values) and trial.should_prune():
                return count, 0.0
    if prune == "training":
        sign = 1 if better == "lower" else -1
        for number, (step, loss) in enumerate(losses):
            trial.report(sign * loss, step)
            # It ends at the logged step after that, unless that is the last one
            if number + 2 < len(losses) and trial.should_prune():
                left = 1 - losses[number + 1][0] / losses[-1][0]
                return 0, left * candidate.training + candidate.after
    return None, 0.0


def _best(candidates: Iterable[Candidate], better: str) -> Candidate:
    """The first of the best."""
    return (max if better == "higher" else min)(candidates, key=lambda c: c.mean)


def replay_all(candidates: Sequence[Candidate], control: Candidate, better: str) -> list[Outcome]:
    """Every way of pruning, in the given order and in ``ORDERS`` others (seed 0)."""
    outcomes = []
    for prune in PRUNES:
        draw, order, lost = random.Random(0), list(candidates), 0
        for _ in range(ORDERS if prune != "none" else 0):
            draw.shuffle(order)
            lost += replay(order, control, better, prune).loss > 0
        first = replay(candidates, control, better, prune)
        outcomes.append(Outcome(**{**vars(first), "orders_lost": lost}))
    return outcomes


# --- of a plan ------------------------------------------------------------------------------------


def check_replayable(request: Request) -> None:
    """Raises PlanError where nothing can be replayed."""
    sweep, config = request.sweep, request.config
    flag = "--replay-pruning"
    if len(config.objectives) > 1:
        raise PlanError(
            f"{flag} with objectives={', '.join(config.objectives)}: only one metric can tell what "
            "is hopeless; give one"
        )
    if sweep.within:
        raise PlanError(
            f"{flag}: pruning compares with one control, but {sweep.name} has one for each "
            f"{sweep.within}; replay another sweep"
        )
    if not find_study(sweep, config, request)[1]:
        raise PlanError(
            f"{flag}: no trial with these settings has finished below {config.output}: run it "
            f"first, without {flag}"
        )


def replay_plan(plan: Plan) -> dict[str, Any]:
    """Replay the finished cells of a plan: what a report needs to know of it. Raises PlanError
    where too few have finished."""
    request = plan.request
    metric = next(iter(request.config.objectives), request.sweep.headline)
    better = request.sweep.better(metric)
    candidates, control, left_out = _read_candidates(plan, metric)
    if control is None or len(candidates) < 2:
        raise PlanError(
            f"--replay-pruning: with {metric} for each of {show_count(len(request.seeds), 'seed')} "
            f"there {'are' if control else 'is no control, and there are'} "
            f"{show_count(len(candidates), 'other cell')}; it takes the control and two: run the "
            "sweep first, without --replay-pruning"
        )
    outcomes = replay_all(candidates, control, better)
    with_losses = sum(len(c.losses) > 2 for c in candidates)
    seconds = sum(sum(c.seconds) for c in candidates)
    seeds, settings = len(request.seeds), [vars(outcome) for outcome in outcomes]
    return {
        "metric": metric,
        "winner": _best([control, *candidates], better).name,
        "control": control.name,
        "candidates": len(candidates),
        "left_out": left_out,
        "trials": len(candidates) * seeds,
        "seconds": seconds,
        "with_losses": with_losses,
        "fewest_seeds": FEWEST_SEEDS if seeds < FEWEST_SEEDS else 0,
        "orders": ORDERS,
        "outcomes": [known | {"dropped": len(known["dropped"])} for known in settings],
    }


def _read_candidates(plan: Plan, metric: str) -> tuple[list[Candidate], Candidate | None, int]:
    """The cells that have a value for each seed, in the order in which they were begun, but the
    untouched backbone; the control; and how many others lack some."""
    request, stored = plan.request, plan.mirror.seeds()
    trials: dict[Key, list[FrozenTrial]] = {}
    begun: dict[str, int] = {}
    for trial in plan.queue.trials():
        begun.setdefault(key_of(trial)[0], trial.number)
        if trial.state.name == "COMPLETE":
            trials.setdefault(key_of(trial), []).append(trial)
    first = request.seeds[0]
    adapters = Counter(request.adapter((cell.text, first)) for cell in request.cells)
    candidates, control, left_out = [], None, 0
    for cell in sorted(request.cells, key=lambda cell: begun.get(cell.text, len(begun))):
        if cell.untouched:
            continue
        keys = [(cell.text, seed) for seed in request.seeds]
        values = [stored.get(cell.text, {}).get(seed, {}).get(metric) for seed in request.seeds]
        defined = tuple(value for value in values if value is not None)
        if len(defined) < len(keys):
            left_out += not cell.control
            continue
        # An adapter that others need, too, is trained all the same
        shared = adapters[request.adapter((cell.text, first))] > 1
        phases = [_add_phases(trials.get(key, [])) for key in keys]
        candidate = Candidate(
            cell.text,
            defined,
            tuple(sorted(dict(read_losses(plan.trial_folder(keys[0]))).items())),
            tuple(
                sum(parts.values()) - (parts.get("train", 0.0) if shared else 0.0)
                for parts in phases
            ),
            0.0 if shared else phases[0].get("train", 0.0),
            sum(spent for phase, spent in phases[0].items() if phase not in BEFORE),
        )
        if cell.control:
            control = candidate
        else:
            candidates.append(candidate)
    return candidates, control, left_out


def _add_phases(trials: Iterable[FrozenTrial]) -> dict[str, float]:
    """Seconds of each phase, over the trials of a cell and seed: one may have got more prompts."""
    spent: Counter[str] = Counter()
    for trial in trials:
        known = trial.user_attrs.get("phases") or {"rest": trial.user_attrs.get("seconds") or 0.0}
        spent.update(known)
    return dict(spent)


def replay_table(found: Mapping[str, Any]) -> tuple[Table, list[str]]:
    """The table for a person, and lines on what it rests on."""
    title = f"pruning replayed on {show_count(found['candidates'], 'finished cell')}"
    table = Table("prune", title=title, title_justify="left", title_style="")
    for name in ("dropped", "trials saved", "time saved"):
        table.add_column(name, justify="right")
    table.add_column("winner")
    table.add_column("in other orders")
    for known in found["outcomes"]:
        lost = known["loss"] > 0
        others = f"dropped in {known['orders_lost']} of {found['orders']}"
        table.add_row(
            known["prune"],
            str(known["dropped"]),
            f"{known['trials']} of {found['trials']}",
            format_duration(known["seconds"]),
            f"dropped: {known['best']} is left, worse by {known['loss']:.3g}" if lost else "kept",
            "" if known["prune"] == "none" else others,
        )
    lines = [f"winner by {found['metric']}: {found['winner']}"]
    if found["left_out"]:
        lines.append(f"{show_count(found['left_out'], 'cell')} left out, without all seeds")
    if found["fewest_seeds"]:
        fewest = show_count(found["fewest_seeds"], "seed")
        lines.append(f"prune=seeds drops nothing with fewer than {fewest}")
    if found["with_losses"] < found["candidates"]:
        count = found["candidates"] - found["with_losses"]
        lines.append(f"{show_count(count, 'cell')} without three logged losses of its first seed")
    return table, lines
