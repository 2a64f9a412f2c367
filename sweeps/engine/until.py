"""A sweep with until=: when nothing waits it is looked at, and what the look asks for is queued.

What was looked at and what is measured next is stored with the study before anything of it begins,
so that the next start goes on from there, and shown in ``looks.json`` and in MLflow.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from conf.describe import show_count
from conf.files import to_json, write_atomically
from lightning_modules.training.progress import format_duration
from sweeps.engine.designs import UNPAID, Design, Reading
from sweeps.engine.looks import (
    ALPHA,
    History,
    Look,
    Round,
    begin_small,
    decide,
    plan_stages,
)
from sweeps.engine.plan import Job, Plan
from sweeps.engine.prompts import extent_of, queue_extensions, read_extent
from sweeps.engine.reading import count_most_prompts, measure_costs, read_verdicts
from sweeps.engine.stopping import fixed_primary, read_budget, read_until
from sweeps.engine.trials import key_of

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from sweeps.engine.request import Request
    from sweeps.engine.trials import StoredTrial

__all__ = [
    "FILE",
    "UntilPlan",
    "add_looks",
    "describe_looking_again",
    "look_tags",
    "make_until_plan",
    "note_look",
]

FACT, FILE = "looks", "looks.json"
PRIMARY = "primary"
TAG = 4500  # Characters of a tag that every MLflow server takes


# --- What is stored -------------------------------------------------------------------------------


def add_looks(
    request: Request,
    facts: Mapping[str, Any],
    trials: Sequence[FrozenTrial | StoredTrial],
    primary: str,
) -> History:
    """The looks at the study of ``request``, from what is stored with it; with until= ``request``
    gets the design that is measured now, and the last round is that of its rule."""
    config, history = request.config, History.read(facts.get(FACT))
    finished = [trial for trial in trials if trial.state.name == "COMPLETE"]
    until = read_until(config)
    if not until:
        return history
    last = history.last
    same = (until, primary, config.seed)
    least, few = _begin(request, until)
    seeds, prompts = _find_done(request, finished, facts, few)
    if last is None or (last.until, last.primary, last.first) != same:
        first = max(seeds, least)
        spent = len(history.claimed(config.seed))
        alone = sum(not cell.untouched for cell in request.cells) == 2
        last = Round(until, plan_stages(first), spent, primary, config.seed, alone)
        history = history.add(last)
    look = last.last
    now = (look.after or look.design) if look else None
    asked = {cell.text: least for cell in request.cells}
    if now is None:
        now = Design(dict.fromkeys(asked, last.planned[0]), prompts)
    known = {c: now.seeds.get(c, now.most_seeds) for c in asked}
    request.design = Design({c: max(n, known[c]) for c, n in asked.items()}, now.prompts)
    return history


def _begin(request: Request, until: str) -> tuple[int, int]:
    """Seeds, and prompts of a split, of a first look at nothing."""
    first = request.config.seed
    prompts = max(request.prompts((cell.text, first)) or 0 for cell in request.cells)
    given = {word.partition("=")[0] for word in request.words}
    splits = max(1, len(request.config.evaluation.splits))
    return begin_small(until, request.config.seeds, prompts, splits, given)


def _find_done(
    request: Request,
    finished: Sequence[FrozenTrial | StoredTrial],
    facts: Mapping[str, Any],
    least: int,
) -> tuple[int, int]:
    """How many of the first seeds have finished in all cells, and how many prompts of a split are
    measured first: what these have, ``least`` or more."""
    first, cells = request.config.seed, [cell.text for cell in request.cells]
    last = {key_of(trial): trial for trial in finished}
    seeds = 0
    while all((cell, first + seeds) in last for cell in cells):
        seeds += 1
    made_with = facts.get("identity", {"config": {}})["config"]
    keys = [(cell, first + seed) for cell in cells for seed in range(seeds)]
    counts = [read_extent(last[key], made_with).prompts or 0 for key in keys]
    return seeds, max(min(counts, default=0), least)


def look_tags(request: Request, history: History, primary: str) -> dict[str, str]:
    """What a report is told: the looks, in short, and the cells that have fewer seeds."""
    short = history.describe()
    for round_ in short["rounds"]:
        round_["taken"] = [_shorten(look) for look in round_["taken"]]
    while len(text := json.dumps(short)) > TAG and short["rounds"]:
        del short["rounds"][0]
    fewer = {
        cell.text: count
        for cell in request.cells
        if (count := request.seeds_of(cell.text)) < len(request.seeds)
    }
    return {FACT: text, "cell_seeds": json.dumps(fewer, ensure_ascii=False), PRIMARY: primary}


def _shorten(look: Mapping[str, Any]) -> dict[str, Any]:
    halves = [reading["half"] for reading in look["readings"]]
    seeds = look["design"]["seeds"].values()
    return {
        "seeds": max(seeds),
        "prompts": look["design"]["prompts"],
        "widest": max(halves, default=None),
        "settled": len(look["settled"]),
        "comparisons": len(halves),
    }


def _store(plan: Plan, history: History) -> None:
    """First with the queue, which decides."""
    plan.queue.remember(FACT, history.describe())
    _show(plan, history)


def _show(plan: Plan, history: History) -> None:
    write_atomically(plan.folder / FILE, to_json(history.describe()))
    experiment = plan.mirror.experiment
    tags = look_tags(plan.request, history, fixed_primary(plan.queue.facts))
    tags["seeds"] = json.dumps(plan.request.seeds)
    known = experiment.client.get_experiment(experiment.id).tags
    for key, value in tags.items():
        if known.get(key) != value:
            experiment.client.set_experiment_tag(experiment.id, key, value)


# --- The plan -------------------------------------------------------------------------------------


@dataclass
class UntilPlan(Plan):
    """See the module."""

    history: History = field(kw_only=True)

    @property
    def round(self) -> Round:
        assert self.history.last is not None
        return self.history.last

    def begin(self) -> None:
        _show(self, self.history)
        if self.round.stopped == UNPAID:
            # A larger budget may pay for more: it is looked at the same data again
            again = dataclasses.replace(self.round, taken=self.round.taken[:-1])
            self.history = self.history.replace_last(again)
            self.queue.remember(FACT, self.history.describe())
        self._look()

    def claim(self, training: Collection[str] = ()) -> Job | None:
        if self.is_spent():
            return None
        job = super().claim(training)
        if job is None and self._look():
            job = super().claim(training)
        return job

    def spent(self) -> float:
        """Seconds that the trials of this plan have taken, one after another."""
        planned = set(self.planned)
        return sum(
            trial.user_attrs.get("seconds", 0.0)
            for trial in self.queue.trials("COMPLETE")
            if key_of(trial) in planned
        )

    def is_spent(self) -> bool:
        budget = read_budget(self.request.config)
        return budget is not None and self.spent() >= budget

    def summary_lines(self) -> list[str]:
        taken = self.round.taken
        looks = f"until={self.round.until}: {show_count(len(taken), 'look')} taken"
        if self.round.stopped:
            return [f"{looks}; it ends: {self.round.stopped}"]
        if self.is_spent():
            budget, spent = self.request.config.budget, format_duration(self.spent())
            return [f"{looks}; budget={budget} is spent ({spent}): with more it goes on"]
        return [f"{looks}; it goes on when what is planned has finished"]

    def _look(self) -> bool:
        """Look at what is there, if it is whole, and queue what that asks for; True if something
        waits."""
        if self.round.stopped or set(self.planned) - self.done():
            return False
        look = self._decide()
        taken = (*self.round.taken, look)
        self.history = self.history.replace_last(dataclasses.replace(self.round, taken=taken))
        self._grow()
        _store(self, self.history)
        self.say(self._describe(look))
        if look.after is not None:
            self._queue_missing()
        return look.after is not None

    def _grow(self) -> None:
        last = self.round.last
        if last is not None and last.after is not None:
            self.request.design = last.after

    def _decide(self) -> Look:
        design = self.request.design
        assert design is not None
        readings, why = read_comparisons(self, self.round.level)
        end = Look(design, self.round.level, seconds=self.spent())
        if not readings:
            return dataclasses.replace(end, reason=why)
        splits = max(1, round(readings[0].comparison.prompts / max(1, design.prompts)))
        facts = self.queue.facts["identity"]["config"]
        costs = measure_costs(self.request, self.queue.trials(), splits, facts)
        look = decide(
            self.round,
            readings,
            design,
            costs,
            most_prompts=count_most_prompts(self.request),
            seconds=self.spent(),
            budget=read_budget(self.request.config) if costs.measured else None,
        )
        before = self.round.last
        if look.after and before and before.seen == look.seen and before.after == design:
            why = "what was added does not count: other code made the trials, add --fresh"
            return dataclasses.replace(look, after=None, reason=why)
        return look

    def _queue_missing(self) -> None:
        known = {key_of(trial) for trial in self.queue.trials("WAITING", "RUNNING", "COMPLETE")}
        for key in self.planned:
            if key not in known:
                self.enqueue(key)
        queue_extensions(self)

    def _describe(self, look: Look) -> str:
        design, number = look.design, len(self.round.taken)
        prompts = show_count(design.prompts, "prompt")
        data = f"{show_count(design.most_seeds, 'seed')}, {prompts} of each split"
        widest = f": widest ±{look.widest:.3g}" if look.readings else ""
        if self.round.until == "settled" and look.readings:
            cells = {reading["cell"] for reading in look.readings}
            widest += f", {len(cells & set(look.settled))} of {len(cells)} settled"
        return f"look {number} ({data}){widest}; {'next' if look.after else 'end'}: {look.reason}"


def make_until_plan(plan: Plan, history: History) -> UntilPlan:
    """The plan with the looks at it, the last round of which is its own."""
    parts = {item.name: getattr(plan, item.name) for item in dataclasses.fields(plan)}
    return UntilPlan(**parts, history=history)


def read_comparisons(plan: Plan, level: float) -> tuple[list[Reading], str]:
    """What the report's rule says of the headline, or why it says nothing."""
    return read_verdicts(plan.mirror.uri, plan.name, level)


# --- Looks of commands without a stop rule --------------------------------------------------------


def note_look(plan: Plan) -> str:
    """Store that a finished sweep was looked at, if it is on more than at the last look; a line on
    what looking again costs, empty at the first."""
    request = plan.request
    if request.config.until is not None or request.config.mode in ("search", "path"):
        return ""
    if not plan.planned or set(plan.planned) - plan.done():
        return ""
    stored = History.read(plan.queue.facts.get(FACT))
    planned = set(plan.planned)
    finished = [trial for trial in plan.queue.trials("COMPLETE") if key_of(trial) in planned]
    last = {key_of(trial): extent_of(plan, trial).prompts or 0 for trial in finished}
    history = _add_look(stored, request, min(last.values(), default=0))
    if history is not stored:
        _store(plan, history)
    return _describe_again(history)


def describe_looking_again(history: History, request: Request) -> str:
    """What it costs to look at the design of ``request``, too; empty for the first look, and for
    what was looked at."""
    prompts = request.prompts((request.cells[0].text, request.seeds[0]))
    if request.config.mode in ("search", "path"):
        return ""
    new = _add_look(history, request, prompts or 0)
    return "" if new is history else _describe_again(new)


def _add_look(history: History, request: Request, prompts: int) -> History:
    """With the look at so much of ``request``, if none was at as much."""
    first = request.config.seed
    design = Design({cell.text: len(request.seeds) for cell in request.cells}, prompts)
    earlier = [look.design for r in history.rounds for look in r.taken if r.first == first]
    if any(_covers(known, design) for known in earlier):
        return history
    look = Look(design, 1 - ALPHA, reason="all that was asked for")
    return history.add(Round("", (design.most_seeds,), first=first, taken=(look,)))


def _covers(known: Design, design: Design) -> bool:
    """Whether a look was on as much."""
    enough = all(known.seeds.get(cell, 0) >= count for cell, count in design.seeds.items())
    return enough and known.prompts >= design.prompts


def _describe_again(history: History) -> str:
    """What several looks cost, in a line; empty where there was one."""
    looks = history.claimed()
    if len(looks) < 2 or history.error < 1.1 * ALPHA:  # Hardly any more data
        return ""
    sizes = " → ".join(
        f"{show_count(x.design.most_seeds, 'seed')} × {show_count(x.design.prompts, 'prompt')}"
        for x in looks
    )
    return (
        f"look {len(looks)} at the same trials and more ({sizes}): at 95 % each, one of these "
        f"looks claims what is not there in {history.error:.0%} of sweeps, not 5 %; until= plans "
        "its looks so that it stays at 5 %"
    )
