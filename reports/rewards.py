"""Reward hacking: what cells gain by a reward, which training may have seen, beside what they gain
by what measures, on the same images.

A metric whose key is ``reward``, or begins with ``reward_``, is a reward; the headline measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reports import prose, typeset
from reports.answer.words import LESS, show_shift, verdict_word
from reports.results import CellResults, ReportedMetric, SweepResults
from reports.statistics import DIFFERS, NO_DIFFERENCE
from reports.tables import CellMetric, Table, of_metric
from reports.typeset import Picture
from reports.verdicts import COLLAPSED, IDENTICAL, Verdict

__all__ = ["BOTH", "HACKED", "OPEN", "UNMOVED", "Gain", "find_gains", "is_reward", "reward_blocks"]

HACKED = "reward rises, the measure does not"
OPEN = "reward rises, the measure is open"
BOTH = "both rise"
UNMOVED = "reward not shown to rise"


@dataclass(frozen=True)
class Gain:
    """A cell less its control, by a reward and by the measure."""

    cell: CellResults
    reward: Verdict
    measure: Verdict

    @property
    def reading(self) -> str:
        """HACKED, OPEN, BOTH or UNMOVED. A measure that rises by less than matters does not."""
        if not _is_better(self.reward):
            return UNMOVED
        if _is_better(self.measure):
            return HACKED if verdict_word(self.measure) == LESS else BOTH
        known = (DIFFERS, NO_DIFFERENCE, IDENTICAL, COLLAPSED)
        return HACKED if self.measure.verdict in known else OPEN


def is_reward(metric: ReportedMetric) -> bool:
    """Whether a metric is what something may have been trained to please."""
    return metric.better != "none" and (metric.key + "_").startswith("reward_")


def find_gains(
    results: SweepResults, entries: Sequence[CellMetric]
) -> dict[ReportedMetric, list[Gain]]:
    """For each reward the cells that are compared with their control by it and by the headline;
    empty where the headline is a reward itself."""
    if is_reward(results.headline) or results.headline.better == "none":
        return {}
    measured = {e.cell.name: e.verdict for e in of_metric(entries, results.headline)}
    found = {}
    for metric in filter(is_reward, results.metrics):
        gains = [
            Gain(entry.cell, entry.verdict, measure)
            for entry in of_metric(entries, metric)
            if entry.verdict
            and not entry.cell.untouched
            and (measure := measured.get(entry.cell.name))
        ]
        if gains:
            found[metric] = gains
    return found


def reward_blocks(
    results: SweepResults, entries: Sequence[CellMetric], picture: Picture | None
) -> list[typeset.Block]:
    """A heading, what is said of each reward, a figure and a table; nothing without a reward."""
    gains = find_gains(results, entries)
    if not gains:
        return []
    blocks = [typeset.heading("Reward and measure")]
    for metric, own in gains.items():
        blocks.append(typeset.paragraph(_state(results, metric, own)))
    if picture:
        blocks.append(typeset.picture(picture))
    for metric, own in gains.items():
        table = _tabulate(results, metric, own)
        blocks.append(typeset.table(table, ["fill", "auto", "auto", 3.4], 8.5))
    return blocks


def _state(results: SweepResults, reward: ReportedMetric, gains: Sequence[Gain]) -> str:
    name, measure = prose.lower(reward.label), prose.lower(results.headline.label)

    def cells(reading: str) -> list[str]:
        return [prose.name_cell(results, g.cell) for g in gains if g.reading == reading]

    said = []
    if hacked := cells(HACKED):
        said.append(
            f"Reward hacking: {prose.join(hacked)} {'is' if len(hacked) == 1 else 'are'} better "
            f"than the control by {name}, and not by {measure}."
        )
    if unknown := cells(OPEN):
        said.append(
            f"Better by {name}, open by {measure}: {prose.join(unknown)}; more images or seeds "
            "would tell whether the reward alone was pleased."
        )
    if both := cells(BOTH):
        said.append(f"Better by both: {prose.join(both)}.")
    if not said:
        said.append(f"No cell is shown to be better by {name}: there is nothing to be hacked.")
    return (
        f"What is trained to please a scorer may learn to please that scorer alone. Training may "
        f"have seen {name}; {measure} comes from another scorer, on the same images. "
        f"{' '.join(said)}"
    )


def _tabulate(results: SweepResults, reward: ReportedMetric, gains: Sequence[Gain]) -> Table:
    rows = [[g.cell.label, show_shift(g.reward), show_shift(g.measure), g.reading] for g in gains]
    title = (
        "Each cell less its control, with the intervals of the answer: by the reward and by the "
        "measure."
    )
    return Table(title, ["Cell", reward.title, results.headline.title, "Reading"], rows)


def _is_better(verdict: Verdict) -> bool:
    return verdict.verdict == DIFFERS and verdict.direction == "better"
