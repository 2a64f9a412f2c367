"""What a plan can see, said before anything runs: the smallest difference, and what halving it
costs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from conf.describe import show_count
from lightning_modules.training.progress import format_duration
from reports.statistics import Variances, predict_smallest_difference, variances_of
from sweeps.engine.designs import Costs, Design
from sweeps.engine.looks import History
from sweeps.engine.reading import measure_costs, read_verdicts
from sweeps.engine.stopping import OTHER_MODES

if TYPE_CHECKING:
    from sweeps.engine.designs import Reading
    from sweeps.engine.request import Request
    from sweeps.engine.status import PlanStatus
    from sweeps.engine.trials import StoredTrial

__all__ = ["describe_looks", "describe_power"]

# Variances of the difference of two cells, of a training, a prompt and an image, by the unit of a
# metric or else by its key. Of success the mean of those of threshold (0.001, 0.001, 0.06) and of
# objectives (0, 0.01, 0.2) in the embedded world, 3 seeds each; of the others those of
# injection_layer in the world before it
TYPICAL = {
    "share": Variances(0.0004, 0.005, 0.13),
    "score": Variances(0.00001, 0.0001, 0.008),
    "per image": Variances(0.00001, 0.0003, 0.037),
}
MOST, MOST_SEEDS = 2**14, 60  # Prompts and seeds beyond which nothing is proposed


def describe_power(
    request: Request, status: PlanStatus, trials: Sequence[StoredTrial], most: int | None
) -> list[str]:
    """Lines on the plan of ``request``, from what has finished of it or else from typical
    variances; ``most`` prompts each split has, None where none can be added."""
    metric = next(m for m in request.sweep.metrics if m.key == request.sweep.headline)
    prompts = request.prompts((request.cells[0].text, request.seeds[0]))
    if not metric.per_image or prompts is None or request.config.mode in OTHER_MODES:
        return []
    own = sum(not cell.control and not cell.untouched for cell in request.cells)
    if not own:
        return []
    seeds, splits = len(request.seeds), max(1, len(request.config.evaluation.splits))
    readings = _read(request, status) if len(status.counts.done) > 2 else []
    if readings:
        count = show_count(len(status.counts.done), "finished trial")
        variances, source = _average(readings), f"variances of {count}"
        splits = max(1, round(readings[0].comparison.prompts / prompts))
    else:
        known = TYPICAL.get(metric.unit) or TYPICAL.get(metric.key)
        if known is None:
            return [
                f"what this plan can see of {metric.label} is known once trials have finished: "
                "no typical variances of such a metric are recorded"
            ]
        variances, source = known, "typical variances of the embedded world"
    if seeds < 2:
        return [
            "one seed says nothing of other trainings: no difference between cells can be claimed "
            "(seeds=3 or more)"
        ]
    costs = measure_costs(request, trials, splits)

    def smallest(seeds: int, prompts: int) -> float:
        return predict_smallest_difference(
            variances, seeds, prompts * splits, own, degrees_a_seed=own
        )

    now = smallest(seeds, prompts)
    at_once = f", {own} comparisons at once" if own > 1 else ""
    lines = [
        f"{show_count(seeds, 'seed')} and {show_count(prompts, 'prompt')} of each split see "
        f"differences of {now:.2g} in {metric.label} in four of five sweeps{at_once} ({source})"
    ]
    ways = _list_ways(lambda s, p: smallest(s, p) <= now / 2, request, seeds, prompts, most, costs)
    return [*lines, f"to halve that: {'; or '.join(ways)}"]


def _list_ways(
    enough: Callable[[int, int], bool],
    request: Request,
    seeds: int,
    prompts: int,
    most: int | None,
    costs: Costs,
) -> list[str]:
    """More prompts alone, more seeds alone, and what costs least of both together."""
    design = Design({cell.text: seeds for cell in request.cells}, prompts)
    limit = MOST if most is None else most

    def price(plan: Design) -> str:
        total = costs.between(design, plan)
        if costs.measured:
            return f"about {format_duration(total)}"
        if not costs.training:  # Trained on each prompt, or not at all
            return f"as long as {show_count(round(total / costs.image), 'image')}"
        return f"as long as {show_count(round(total / costs.training), 'training')}"

    def add(plan: Design) -> str:
        parts = []
        if plan.prompts > prompts:
            parts.append(f"{show_count(plan.prompts - prompts, 'more prompt')} of each split")
        if plan.most_seeds > seeds:
            parts.append(show_count(plan.most_seeds - seeds, "more seed"))
        return f"{' and '.join(parts)} ({price(plan)})"

    plans, last = [], _fewest(lambda n: enough(n, prompts), seeds, MOST_SEEDS)
    for count in range(seeds, (last or MOST_SEEDS) + 1):
        found = _fewest(functools.partial(enough, count), prompts, limit)
        if found is not None:
            plans.append(design.with_seeds(count).with_prompts(found))
    alone = [plan for plan in plans if seeds == plan.most_seeds or prompts == plan.prompts]
    ways = [add(plan) for plan in alone]
    best = min(plans, key=lambda plan: costs.between(design, plan), default=None)
    if best is not None and best not in alone:
        ways.append(add(best))
    if not any(plan.most_seeds == seeds for plan in plans):
        have = (
            "more prompts alone"
            if most is None
            else f"the {show_count(most, 'prompt')} of a split alone"
        )
        ways.insert(0, f"{have} do not do it")
    return ways


def describe_looks(history: History, until: str) -> list[str]:
    """The looks of a stop rule, planned and taken."""
    last = history.last
    if not until or last is None:
        return []
    planned = ", ".join(map(str, last.planned))
    lines = [f"until={until}: looks at {planned} seeds at most, intervals of {last.level:.1%}"]
    for number, look in enumerate(last.taken, 1):
        lines.append(
            f"  look {number}, {show_count(look.design.most_seeds, 'seed')} and "
            f"{show_count(look.design.prompts, 'prompt')} of each split: widest "
            f"±{look.widest:.3g}; {look.reason}"
        )
    return lines


def _read(request: Request, status: PlanStatus) -> list[Reading]:
    """What has finished, as a report would read it; nothing where it cannot."""
    from reports.results import ReportError

    config = request.config
    uri = config.tracking_uri or f"sqlite:///{(Path(config.output) / 'mlflow.db').resolve()}"
    try:
        readings, _ = read_verdicts(uri, status.name)
    except ReportError:
        return []
    return [r for r in readings if len(r.comparison.seeds) > 1]


def _average(readings: Sequence[Reading]) -> Variances:
    found = [variances_of(reading.comparison) for reading in readings]
    names = [field.name for field in dataclasses.fields(Variances)]
    return Variances(**{n: sum(getattr(v, n) for v in found) / len(found) for n in names})


def _fewest(works: Callable[[int], bool], start: int, most: int) -> int | None:
    """The smallest number from ``start`` to ``most`` that works; None if none does."""
    if start > most or not works(most):
        return None
    low, high = start - 1, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if works(middle) else (middle, high)
    return high
