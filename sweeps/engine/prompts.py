"""How many prompts a trial has been measured on: a fact of the trial, not of its study. A finished
trial of fewer prompts than are asked for is queued again: its adapter is kept, only new images are
drawn, and its result is replaced once the new one is whole.

    ask_for_prompts(plan, {key: 224})   # of this process alone: say it again at each start
    queue_extensions(plan)              # what has finished with fewer waits again
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from conf.describe import show_count
from conf.prompts import PROMPTS, Extent, with_prompts
from lightning_modules.training.versions import made_by
from sweeps.engine.trials import key_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from optuna.trial import FrozenTrial

    from sweeps.engine.plan import Plan
    from sweeps.engine.request import Request
    from sweeps.engine.trials import Key, StoredTrial

__all__ = [
    "ask_for_prompts",
    "describe_lacking",
    "describe_mixed",
    "extent_of",
    "find_lacking",
    "is_wanted",
    "lacking_trials",
    "queue_extensions",
]


def read_extent(trial: FrozenTrial | StoredTrial, made_with: Mapping[str, Any]) -> Extent:
    """How many prompts a finished trial has; ``made_with`` are the settings of its study, which
    once had one number for all."""
    if "prompts" in trial.user_attrs or PROMPTS not in made_with:
        return Extent.read(trial.user_attrs)
    return Extent(made_with[PROMPTS], made_with[PROMPTS] is None)


# --- of a plan ------------------------------------------------------------------------------------


def ask_for_prompts(plan: Plan, prompts: Mapping[Key, int]) -> None:
    """From now on trials of ``plan`` are asked for so many prompts, whatever its settings say.

    Trials that wait are then run with as many, finished ones after `queue_extensions`. Raises
    ValueError where the settings do not allow so many, before anything is changed.
    """
    from lightning_modules.training.checks import check

    for key, count in prompts.items():
        check(with_prompts(plan.request.run(key), count))
    plan.targets |= prompts


def find_lacking(
    request: Request,
    trials: Iterable[FrozenTrial | StoredTrial],
    asked: Mapping[Key, int | None],
    made_with: Mapping[str, Any],
) -> dict[Key, Extent]:
    """The finished ones among the ``trials`` of a study that have fewer prompts than are
    ``asked`` for, and what they have. Those that other code made than this are not among them: it
    would not draw the same images, nor perhaps train the same adapter."""
    last = {key_of(trial): trial for trial in trials if trial.state.name == "COMPLETE"}
    extents = {key: read_extent(last[key], made_with) for key in asked if key in last}
    return {
        key: extent
        for key, extent in extents.items()
        if extent.lacks(asked[key])
        and last[key].user_attrs.get("code") == made_by(request.run(key))["code"]
    }


def lacking_trials(plan: Plan) -> dict[Key, Extent]:
    """The trials of ``plan`` that have finished with fewer prompts than are asked for, and what
    they have."""
    asked = {key: plan.asked(key) for key in plan.planned}
    return find_lacking(plan.request, plan.queue.trials("COMPLETE"), asked, _made_with(plan))


def extent_of(plan: Plan, trial: FrozenTrial | StoredTrial) -> Extent:
    """How many prompts a finished trial of ``plan`` has."""
    return read_extent(trial, _made_with(plan))


def _made_with(plan: Plan) -> dict[str, Any]:
    return plan.queue.facts["identity"]["config"]


def queue_extensions(plan: Plan, without: Collection[Key] = ()) -> list[Key]:
    """Queue again the finished trials of ``plan`` that have fewer prompts than are asked for, but
    those ``without``; which they are. May be repeated: none is queued twice."""
    waiting = {key_of(trial) for trial in plan.queue.trials("WAITING", "RUNNING")} | {*without}
    lacking = {key: e for key, e in lacking_trials(plan).items() if key not in waiting}
    for key, extent in lacking.items():
        plan.enqueue(key, extends=extent.prompts)
    return list(lacking)


def is_wanted(trial: FrozenTrial | StoredTrial, lacking: Collection[Key]) -> bool:
    """Whether a plan wants an open trial of its queue: not one that adds prompts, for another
    command, to a trial that is none of those ``lacking`` some here."""
    return trial.user_attrs.get("extends") is None or key_of(trial) in lacking


def describe_lacking(lacking: Mapping[Key, Extent], asked: Mapping[Key, int | None]) -> str:
    """A line on the finished trials that get more prompts; empty if there are none."""
    counts: Counter[str] = Counter()
    for key, extent in lacking.items():
        wanted, have = asked[key], extent.prompts or 0
        more = "all other prompts" if wanted is None else show_count(wanted - have, "more prompt")
        counts[f"{more} of each split ({have} so far)"] += 1
    return "; ".join(
        f"{show_count(count, 'finished trial')} {'gets' if count == 1 else 'get'} {more}"
        for more, count in counts.items()
    )


def describe_mixed(plan: Plan) -> str:
    """A line where finished trials of ``plan`` differ in how many prompts they have; empty where
    they do not."""
    done = set(plan.planned)
    last = {key_of(t): t for t in plan.queue.trials("COMPLETE") if key_of(t) in done}
    extents = [extent_of(plan, trial) for trial in last.values()]
    counts = sorted({e.prompts for e in extents if e.prompts is not None})
    if len(counts) < 2:
        return ""
    return (
        f"trials have {counts[0]} to {counts[-1]} prompts of each split: each mean here is over "
        f"all that its trials have, and not over the {counts[0]} that they have in common"
    )
