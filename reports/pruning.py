"""What pruning would have saved, as ``--replay-pruning`` found it on the finished trials."""

from __future__ import annotations

import json

from reports import prose, typeset
from reports.results import SweepResults
from reports.tables import Table

__all__ = ["pruning_blocks"]

WAYS = {
    "none": "none",
    "seeds": "seeds: values after each seed (Wilcoxon, p < .1)",
    "training": "training: losses of the first seed (median)",
}
LIMITS = (
    "The finished trials are taken as they are: a sampler would have proposed other candidates "
    "after a drop, and several workers would have asked later. Each candidate is compared with "
    "the control and those before it, so that the order counts. A loss in training says nothing "
    "of images by itself. What is saved is what these trials took; adapters that other cells "
    "need are not counted. That the winner was kept or dropped here is one case and no rate, and "
    "where it leads by less than the intervals of this report it leads by chance, so that "
    "nothing known was lost."
)


def pruning_blocks(results: SweepResults) -> list[typeset.Block]:
    """A heading, a table and its limits; nothing where pruning was not replayed."""
    known = json.loads(results.tags.get("pruning", "null"))
    if not known:
        return []
    rows = []
    for one in known["outcomes"]:
        kept = "kept"
        if one["loss"] > 0:
            kept = f"dropped; {one['best']} is left, worse by {one['loss']:.3g}"
        others = f"{one['orders_lost']} of {known['orders']}"
        rows.append(
            [
                WAYS.get(one["prune"], one["prune"]),
                str(one["dropped"]),
                f"{one['trials']} of {known['trials']}",
                f"{one['seconds'] / 60:.1f} of {known['seconds'] / 60:.1f}",
                kept,
                prose.DASH if one["prune"] == "none" else others,
            ]
        )
    labels = {metric.key: metric.label for metric in results.metrics}
    notes = [
        f"The winner by {labels.get(known['metric'], known['metric'])} is {known['winner']}"
        f"{', the control, which is never dropped' * (known['winner'] == known['control'])}."
    ]
    if known["left_out"]:
        notes.append(f"{prose.count(known['left_out'], 'cell')} without all seeds left out.")
    if known["fewest_seeds"]:
        fewest = prose.count(known["fewest_seeds"], "seed")
        notes.append(f"Values drop nothing with fewer than {fewest}.")
    if silent := known["candidates"] - known["with_losses"]:
        notes.append(
            f"{prose.count(silent, 'cell')} without enough logged losses, which cannot be dropped "
            "by them."
        )
    title = (
        f"Pruning (prune=) replayed on {prose.count(known['candidates'], 'finished cell')} beside "
        "the control, in the order in which they were begun. Last: in how many other orders "
        "(drawn from seed 0) the winner is dropped."
    )
    columns = ["Pruned by", "Dropped", "Trials saved", "Minutes saved", "Winner", "Other orders"]
    table = Table(title, columns, rows, " ".join(notes))
    widths = [4.6, "auto", "auto", "auto", "fill", "auto"]
    return [
        typeset.heading("Pruning, replayed"),
        typeset.table(table, widths, 8.5, left=(0, 4)),
        typeset.paragraph(LIMITS),
    ]
