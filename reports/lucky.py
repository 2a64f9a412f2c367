"""Noise seeds that are lucky for every cell of a sweep, from its images."""

from __future__ import annotations

from dataclasses import dataclass

from reports import prose, typeset
from reports.per_image import metric_values
from reports.results import ReportedMetric, SweepResults, Trial
from reports.statistics import LuckyNoises, find_lucky_noises
from reports.tables import Table

__all__ = ["Luck", "find_luck", "luck_blocks", "state_luck", "tabulate_luck"]

LISTED = 12  # Noises of the table
RATE = 0.05  # Of those listed that may be chance
TEXT = 60  # Signs of a prompt


@dataclass(frozen=True)
class Luck:
    """``names`` and ``texts`` of the prompts that ``found`` counts."""

    found: LuckyNoises
    names: tuple[str, ...]
    texts: tuple[str, ...]


def find_luck(results: SweepResults) -> Luck | None:
    """Of the headline, over the images that all cells have on the same noise. None where images
    have no values or no noise is known, where prompts have one noise each, and with
    one cell, or one and its copies."""
    metric = results.headline
    rows = [
        {(s, name): own for s, t in cell.trials.items() for name, own in _read(t, metric).items()}
        for cell in results.cells
        if cell.trials
    ]
    if metric.better == "none" or len(rows) < 2:
        return None
    shared = {
        image: noise
        for image, (_, noise) in rows[0].items()
        if noise is not None and all(image in row and row[image][1] == noise for row in rows)
    }
    texts: dict[str, str] = {}
    for _, trial in results.trials():
        samples = trial.samples
        for name, text in zip(samples.ids, samples.prompts, strict=True) if samples else ():
            texts.setdefault(name.rpartition("#")[0], text)
    names = list(dict.fromkeys(name.rpartition("#")[0] for _, name in shared))
    place = {name: i for i, name in enumerate(names)}
    found = find_lucky_noises(
        [[row[image][0] for image in shared] for row in rows],
        [place[name.rpartition("#")[0]] for _, name in shared],
        list(shared.values()),
        RATE,
        metric.better,
    )
    if not found.tested or found.cells < 2:
        return None
    return Luck(found, tuple(names), tuple(texts[name] for name in names))


def _read(trial: Trial, metric: ReportedMetric) -> dict[str, tuple[float, int | None]]:
    """Image -> its value and the seed of its noise."""
    if trial.samples is None:
        return {}
    noises = dict(zip(trial.samples.ids, trial.samples.noise, strict=True))
    return {
        name: (value, noises[name]) for name, value in metric_values(trial.samples, metric).items()
    }


def luck_blocks(results: SweepResults) -> list[typeset.Block]:
    """How many noises are lucky for every cell, and a table of them."""
    luck = find_luck(results)
    if luck is None:
        return []
    blocks = [typeset.paragraph(state_luck(results, luck))]
    if table := tabulate_luck(results, luck):
        blocks.append(typeset.table(table, [2.4, "fill", "auto"], 8.8, left=(0, 1)))
    return blocks


def state_luck(results: SweepResults, luck: Luck) -> str:
    """How many, by which rule."""
    found = luck.found
    rule = (
        f"A noise counts as lucky for every cell where none of {found.cells} cells ranks its image "
        "below the middle of the same prompt's noises, and the sum of their ranks is higher than "
        "chance gives if each cell drew its own luck (exact tail of that sum; step-up rule for "
        f"discrete p values, of those found at most {100 * RATE:.0f} % expected by chance)."
    )
    if found.cells < len([cell for cell in results.cells if cell.trials]):
        rule += " Cells of the same values in every image count once."
    name = prose.lower(results.headline.label)
    tested = prose.count(found.tested, "noise")
    if not found.lucky:
        return f"By {name}, none of {tested} is lucky for every cell. {rule}"
    few = f"; the {LISTED} least likely are listed" if len(found.lucky) > LISTED else ""
    chance = f"at most {found.by_chance:.1f}" if found.by_chance >= 0.05 else "fewer than 0.1"
    verb = "are" if len(found.lucky) > 1 else "is"
    return (
        f"By {name}, {len(found.lucky)} of {tested} {verb} lucky for every cell, where chance "
        f"alone would give {chance}{few}. {rule}"
    )


def tabulate_luck(results: SweepResults, luck: Luck) -> Table | None:
    """The least likely of them; None where there is none."""
    if not luck.found.lucky:
        return None
    rows = []
    for noise in luck.found.lucky[:LISTED]:
        first = luck.texts[noise.prompts[0]]
        text = first if len(first) <= TEXT else f"{first[: TEXT - 1].rstrip()}…"
        more = len(noise.prompts) - 1
        text += f" and {more} more" * (more > 0)
        split = luck.names[noise.prompts[0]].partition("/")[0]
        shares = [prose.show(noise.mean, 3), prose.show(noise.others, 3)]
        rows.append([str(noise.noise), f"{text} ({split})", *shares, f"{noise.p:.1g}"])
    metric = results.headline
    title = (
        "Noise seeds that are lucky for every cell: the mean of "
        f"{prose.lower(metric.label)} over all cells on this noise, and on the same prompt's "
        "other noises. p: of this noise alone, not adjusted for the others."
    )
    columns = ["Noise", "Prompt", f"{metric.title} here", "On others", "p"]
    return Table(title, columns, rows)
