"""What a command would do: its cells, what is done of them, what they share, and how long the rest
will take. Runs nothing, and writes nothing but what SLURM would get."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from conf.describe import show_count
from sweeps.engine.display import make_console, show
from sweeps.engine.drawn import describe_drawing
from sweeps.engine.executors.slurm import write_script
from sweeps.engine.looks import History
from sweeps.engine.places import check_places
from sweeps.engine.power import describe_looks, describe_power
from sweeps.engine.prompts import describe_lacking
from sweeps.engine.reading import count_most_prompts
from sweeps.engine.remeasure import list_other_code
from sweeps.engine.request import Request
from sweeps.engine.slots import describe_launcher
from sweeps.engine.status import read_status
from sweeps.engine.stopping import read_until
from sweeps.engine.trials import read_trials
from sweeps.engine.until import describe_looking_again

if TYPE_CHECKING:
    from sweeps.engine.status import PlanStatus
    from sweeps.engine.trials import StoredTrial

__all__ = ["print_preview"]


def print_preview(request: Request) -> None:
    """Prints it. Raises PlanError where the data cannot give what is asked, and as
    `check_places`."""
    console, config = make_console(), request.config
    check_places(config)
    found = request.check_records()
    status, seeds, cells = read_status(request), request.seeds, request.cells
    counts, adapters = status.counts, {key: request.adapter(key) for key in request.keys}
    trials = read_trials(status.folder, status.name) if counts.done else []
    for note in [*found, *status.notes, *list_other_code(request, status.folder, trials)]:
        show(console, note)
    asked = {key: request.prompts(key) for key in counts.lacking}
    if line := describe_lacking(counts.lacking, asked):
        show(console, line)
    if config.evaluation.draw_only:
        show(console, describe_drawing(config, status.name))
    if line := describe_launcher(config.launch):
        show(console, line)
    if config.executor == "slurm":
        show(console, f"what sbatch gets: {write_script(config, status.name, len(status.waiting))}")
    size = f"{request.describe_size()}; {counts.text()}"
    show(console, f"{request.sweep.name}: {size}; {status.folder}")
    if config.mode == "search":
        show(
            console,
            f"search: {show_count(config.candidates, 'candidate')} in all, proposed by "
            f"{config.sampler}, each × {show_count(len(seeds), 'seed')}; the cells below come "
            "first, and are all that the estimate knows",
        )
    for line in request.screen.describe() if request.screen else []:
        show(console, line)
    if request.path:
        show(console, request.path.describe())
    table = Table("cell")
    for name in ("done", "running", "failed"):
        table.add_column(name, justify="right")
    table.add_column("")
    for cell in cells:
        keys = {(cell.text, seed) for seed in seeds}
        done, *others = (len(keys & part) for part in (counts.done, counts.running, counts.failed))
        role = ""
        if cell.control:
            role = "control: the others are compared with it"
        elif not adapters[cell.text, seeds[0]]:
            role = "trains nothing"
        table.add_row(cell.text, f"{done}/{len(seeds)}", *(str(n or "") for n in others), role)
    show(console, table)
    for line in _describe_sharing([cell.text for cell in cells], seeds[0], adapters):
        show(console, line)
    show(console, status.describe_rest())
    for line in _describe_answer(request, status, trials):
        show(console, line)


def _describe_answer(
    request: Request, status: PlanStatus, trials: Sequence[StoredTrial]
) -> list[str]:
    """The looks at the sweep, and what it can see."""
    history, until = status.history or History(), read_until(request.config)
    lines = describe_looks(history, until)
    if not until and (again := describe_looking_again(history, request)):
        lines.append(again)
    return [*lines, *describe_power(request, status, trials, count_most_prompts(request))]


def _describe_sharing(
    cells: Iterable[str], seed: int, adapters: dict[tuple[str, int], str]
) -> list[str]:
    """What is trained once for several cells."""
    trained = [adapter for adapter in adapters.values() if adapter]
    if not trained:
        return ["nothing is trained"]
    distinct = len(set(trained))
    lines = [
        f"{show_count(len(trained), 'trial')} with a method, "
        f"{show_count(distinct, 'adapter')} to train for {'it' if len(trained) == 1 else 'them'}"
    ]
    together: dict[str, list[str]] = {}
    for cell in cells:
        if adapter := adapters[cell, seed]:
            together.setdefault(adapter, []).append(cell)
    for names in together.values():
        if len(names) > 1:
            lines.append(f"  one adapter a seed serves {'; '.join(names)}")
    return lines
