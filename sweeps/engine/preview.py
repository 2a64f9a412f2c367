"""What a command would do: its cells, what is done of them, what they share, and how long the rest will take. Runs and writes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from conf import schema
from sweeps.engine.estimate import Progress, look
from sweeps.engine.resolve import seeds_of
from sweeps.engine.study import Key
from sweeps.sweep import Cell, Sweep

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["preview"]


def preview(sweep: Sweep, config: schema.Sweep, cells: Sequence[Cell]) -> None:
    """Prints it."""
    from sweeps.engine.display import say, terminal

    console = terminal()
    seeds, seen = seeds_of(config), look(sweep, config, cells)
    found, total = seen.found, len(seen.found.wanted)
    say(console, f"{sweep.name}: {len(cells)} cells × {len(seeds)} seeds = {total} trials; {found.text()}; {seen.folder}")
    if config.mode == "search":
        said = f"search: {config.candidates} candidates in all, proposed by {config.sampler}, each × {len(seeds)} seeds"
        say(console, f"{said}; the cells below come first, and are all that the estimate knows")
    say(console, _table(cells, seeds, found, seen.groups))
    for line in _sharing(cells, seeds, seen.groups):
        say(console, line)
    say(console, seen.text())


def _table(cells: Sequence[Cell], seeds: Sequence[int], found: Progress, groups: Mapping[Key, str]) -> Table:
    from rich.table import Table

    table = Table()
    table.add_column("cell")
    for name in ("done", "running", "failed"):
        table.add_column(name, justify="right")
    table.add_column("")
    for cell in cells:
        keys = {(cell.text, seed) for seed in seeds}
        counts = [len(keys & part) for part in (found.done, found.running, found.failed)]
        role = "baseline: the others are compared with it" if cell.baseline else "trains nothing" if not groups[cell.text, seeds[0]] else ""
        table.add_row(cell.text, f"{counts[0]}/{len(seeds)}", *(str(count or "") for count in counts[1:]), role)
    return table


def _sharing(cells: Sequence[Cell], seeds: Sequence[int], groups: Mapping[Key, str]) -> list[str]:
    trained = [group for group in groups.values() if group]
    adapters = Counter(trained)
    if not trained:
        return ["nothing is trained"]
    lines = [f"{len(trained)} trials with a method, {len(adapters)} adapters to train for them"]
    if len(adapters) < len(trained):
        together: dict[str, list[str]] = {}
        for cell in cells:
            if group := groups[cell.text, seeds[0]]:
                together.setdefault(group, []).append(cell.text)
        lines += [f"  one adapter a seed serves {'; '.join(names)}" for names in together.values() if len(names) > 1]
    return lines
