"""What ``until=`` would have taken, replayed on finished trials of many seeds.

At each look the engine's own decision is given what it had asked for, the first seeds of each cell
and the first prompts of each split, and its next design is followed as far as the trials go. What
a design costs is the engine's own sum, with what a training and an image took in these trials.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from reports.image_tables import build_table, keep_first
from reports.results import SweepResults
from sweeps.engine.designs import Costs, Design, Reading
from sweeps.engine.looks import Round, decide, plan_stages
from sweeps.engine.reading import PREPARING, read_results

__all__ = ["Replay", "count_prompts", "count_seeds", "read_costs", "replay", "replay_sweep"]

MOST_LOOKS = 40


@dataclass(frozen=True)
class Replay:
    """``round``: the looks that were taken; ``seconds``: what their designs cost in all;
    ``beyond``: why it could not be followed to its end, empty where it was."""

    round: Round
    design: Design
    seconds: float
    beyond: str = ""

    @property
    def widest(self) -> float:
        return max(reading["half"] for reading in self.round.taken[-1].readings)


def replay(
    plan: Round,
    design: Design,
    read: Callable[[Design, float], list[Reading]],
    costs: Costs,
    *,
    seeds: int,
    prompts: int,
    most_prompts: int | None = None,
) -> Replay:
    """The looks of ``plan`` from the ``design`` on. ``read`` gives the comparisons of a design at a
    level; ``seeds`` of each cell and ``prompts`` of each split are there to be read.

    ``most_prompts``: how many a split is said to have (default: those that are there). A design
    with more than there is ends the replay.
    """
    spent = costs.between(Design({}, 0), design)
    for _ in range(MOST_LOOKS):
        look = decide(
            plan,
            read(design, plan.level),
            design,
            costs,
            most_prompts=most_prompts or prompts,
            seconds=spent,
        )
        plan = dataclasses.replace(plan, taken=(*plan.taken, look))
        after = look.after
        if after is None:
            return Replay(plan, design, spent)
        if after.prompts > prompts:
            lacking = f"{after.prompts} prompts of a split, of which the trials have {prompts}"
            return Replay(plan, design, spent, f"asks for {lacking}")
        if after.most_seeds > seeds:
            lacking = f"{after.most_seeds} seeds, of which {seeds} have finished"
            return Replay(plan, design, spent, f"asks for {lacking}")
        spent += costs.between(design, after)
        design = after
    raise AssertionError(f"no end after {MOST_LOOKS} looks")


def count_seeds(results: SweepResults) -> int:
    """How many of the first seeds have finished in all cells."""
    count = 0
    for seed in results.seeds:
        if not all(seed in cell.trials for cell in results.cells):
            break
        count += 1
    return count


def count_prompts(results: SweepResults) -> tuple[int, int]:
    """Prompts of each split that the headline's table has at least, and how many splits."""
    names = [name.partition("/")[0] for name in build_table(results, results.headline).prompts]
    counts = {split: names.count(split) for split in names}
    return min(counts.values()), len(counts)


def read_costs(results: SweepResults) -> Costs:
    """Medians, of trials that found nothing to take over."""
    prompts, splits = count_prompts(results)
    trained = [t for _, t in results.trials() if t.training and t.seconds.get("sample", 0) > 1]
    untrained = frozenset(
        cell.name
        for cell in results.cells
        if not any(trial.counts.get("trained_parameters") for trial in cell.trials.values())
    )

    def median(names: tuple[str, ...]) -> float:
        return statistics.median(sum(t.seconds.get(n, 0.0) for n in names) for t in trained)

    start = median(tuple(name for name in PREPARING if name != "train"))
    image = median(("sample", "score")) / (prompts * splits)
    return Costs(median(PREPARING), image, start, untrained, splits, measured=True)


def replay_sweep(
    results: SweepResults,
    until: str,
    first: int,
    prompts: int,
    most_prompts: int | None = None,
    costs: Costs | None = None,
) -> Replay:
    """`replay` of a finished sweep, first looked at with ``first`` seeds and ``prompts`` of each
    split."""
    there, _ = count_prompts(results)

    def read(design: Design, level: float) -> list[Reading]:
        cut = keep_first(results, design.seeds, design.prompts)
        readings, why = read_results(cut, level)
        assert readings, why
        return readings

    return replay(
        Round(until, plan_stages(first)),
        Design({cell.name: first for cell in results.cells}, prompts),
        read,
        costs or read_costs(results),
        seeds=count_seeds(results),
        prompts=there,
        most_prompts=most_prompts,
    )
