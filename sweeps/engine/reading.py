"""What finished trials of a sweep say, and what they cost: read by the code of the reports, so that
a look and a report never differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from conf import load as conf
from lightning_modules.training.foresee import count_prompts
from sweeps.engine.designs import Costs, Reading
from sweeps.engine.prompts import read_extent

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from reports.results import SweepResults
    from sweeps.engine.request import Request
    from sweeps.engine.trials import StoredTrial

__all__ = ["count_most_prompts", "measure_costs", "read_results", "read_verdicts"]

PREPARING = ("start", "data", "train")  # Phases of a trial that do not grow with its prompts
TRAINING_IN_IMAGES = 295.0  # What a training costs, where no times are known


def read_verdicts(uri: str, name: str, level: float = 0.95) -> tuple[list[Reading], str]:
    """The comparisons of a sweep's headline, or why there are none. Raises ReportError."""
    from reports.collect import collect

    return read_results(collect(uri, name), level)


def read_results(results: SweepResults, level: float = 0.95) -> tuple[list[Reading], str]:
    """`read_verdicts` of what was collected."""
    from reports.judging import judge

    verdicts = judge(results, results.headline, level)
    readings = [
        Reading(
            v.cell,
            v.control,
            v.mean,
            v.low,
            v.high,
            v.verdict,
            v.metric.delta,
            v.images,
            bool((table := verdicts.table_of(v.cell)) and table.binary),
        )
        for v in (*verdicts.levels, *verdicts.untouched)
        if v.images is not None
    ]
    why = f"{results.headline.label} cannot be compared by images: {verdicts.why or 'no cells'}"
    return readings, "" if readings else why


def measure_costs(
    request: Request,
    trials: Iterable[FrozenTrial | StoredTrial],
    splits: int,
    made_with: Mapping[str, Any] | None = None,
) -> Costs:
    """What trainings and images have cost in the finished ``trials``."""
    preparing: dict[str, list[float]] = {"trained": [], "untrained": [], "extended": []}
    drawing, drawn = 0.0, 0
    for trial in trials:
        facts = trial.user_attrs
        if trial.state.name != "COMPLETE" or not (phases := facts.get("phases")):
            continue
        before = sum(phases.get(name, 0.0) for name in PREPARING)
        kind = facts.get("kind", "trained")
        preparing[kind if kind in preparing else "trained"].append(before)
        drawing += sum(phases.values()) - before
        drawn += (read_extent(trial, made_with or {}).prompts or 0) - facts.get("extends", 0)
    adapters = {c.text: request.adapter((c.text, request.seeds[0])) for c in request.cells}
    untrained = frozenset(text for text, adapter in adapters.items() if not adapter)
    own: dict[str, Any] = {"untrained": untrained, "splits": splits}
    if not drawing > 0 or drawn <= 0:
        distinct, trained = len({*adapters.values()} - {""}), len(adapters) - len(untrained)
        return Costs(TRAINING_IN_IMAGES * distinct / max(1, trained), 1.0, **own)
    times = preparing["trained"] or [0.0]
    starts = preparing["extended"] or preparing["untrained"] or [0.0]
    mean = sum(times) / len(times)
    return Costs(mean, drawing / drawn / splits, sum(starts) / len(starts), measured=True, **own)


def count_most_prompts(request: Request) -> int | None:
    """How many prompts each split has at least; None where all are drawn already."""
    counts: dict[str, int] = {}
    for cell in request.cells:
        key = cell.text, request.seeds[0]
        if request.prompts(key) is None:
            return None
        run = request.run(key)
        if (data := conf.digest(conf.to_dict(conf.with_eval_overrides(run))["data"])) not in counts:
            counts[data] = count_prompts(run)
    return min(counts.values())
