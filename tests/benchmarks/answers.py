"""How wide answers are, and how many are conclusive, by the rule of today and by the older one (the
t-interval of differences of per-seed means, Bonferroni), read from the same finished trials; and
what the width that the older rule has takes by the newer one.

    python tests/benchmarks/answers.py OUTPUT SWEEP [SWEEP …]      # half-widths, conclusive cells
    python tests/benchmarks/answers.py OUTPUT SWEEP … --cost 3 5 8 # seconds to that width
    python tests/benchmarks/answers.py OUTPUT SWEEP … --until 3 5 8 # the same, as until= gets there

Of an interval without width the older rule claimed certainty: such comparisons are counted, and the
ratio of means stands with and without them. The cost of S trainings at P prompts is
S · cells · (training + P · an image), the times of these trials; prompts are taken in their order,
as many of each split. With ``--until`` the engine's decisions are replayed on these trials (see
``until.py``), from the first look that it takes by itself; the older rule's widest interval, which
is what ``until=`` asks of all, and its mean one.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from reports.collect import collect
from reports.image_tables import build_table
from reports.judging import judge
from reports.results import SweepResults
from reports.statistics import (
    DIFFERS,
    NO_DIFFERENCE,
    compare_cells,
    decision,
    mean_interval,
    paired,
)
from reports.verdicts import Verdict
from sweeps.engine.designs import Design
from sweeps.engine.looks import begin_small

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.until import (  # noqa: E402
    count_prompts,
    count_seeds,
    read_costs,
    replay_sweep,
)

CONCLUSIVE = (DIFFERS, NO_DIFFERENCE)
DELTA = 0.05
MANY = 512  # Prompts that a split of the embedded world has


def read(output: str, sweep: str) -> SweepResults:
    return collect(f"sqlite:///{Path(output).resolve()}/mlflow.db", sweep)


def older_halves(
    means: dict[str, dict[int, float]], pairs: list[tuple[str, str]]
) -> list[tuple[float, float, float]]:
    """Mean, and half the width of the older rule's interval of each pair, and whether it is
    conclusive."""
    rows = []
    for cell, control in pairs:
        differences = paired(means[cell], means[control]).differences
        interval = mean_interval(differences, 1 - 0.05 / len(pairs))
        word = decision(interval.low, interval.high, DELTA, mean=interval.mean, scale=1.0)
        rows.append((interval.mean, interval.half, float(word in CONCLUSIVE)))
    return rows


def compare_rules(results: SweepResults) -> list[tuple[Verdict, float, bool]]:
    """Of each level: its verdict, and by the older rule half the width and whether it is
    conclusive."""
    found = judge(results, results.headline)
    values = {cell.name: cell.per_seed(results.headline.key) for cell in results.cells}
    pairs = [(verdict.cell, verdict.control) for verdict in found.levels]
    older = older_halves(values, pairs)
    rows = zip(found.levels, older, strict=True)
    return [(verdict, half, bool(word)) for verdict, (_, half, word) in rows]


def show_widths(output: str, sweeps: list[str]) -> None:
    print(f"{'sweep':18s} {'k':>3s} {'S':>2s} {'P':>4s} {'newer':>7s} {'older':>7s} {'ratio':>6s}"
          f" {'without width':>13s} {'ratio of the rest':>17s} {'conclusive: newer':>17s}"
          f" {'older':>6s} {'of':>3s} {'turned open':>11s}")  # fmt: skip
    totals = []
    for sweep in sweeps:
        results = read(output, sweep)
        rows = compare_rules(results)
        new = np.array([verdict.half for verdict, _, _ in rows])
        old = np.array([half for _, half, _ in rows])
        flat = old == 0
        totals.append((new.mean(), old.mean()))
        rest = new[~flat].mean() / old[~flat].mean() if (~flat).any() else np.nan
        turned = sum(was and not v.conclusive for v, half, was in rows if half > 0)
        first = rows[0][0]
        print(
            f"{sweep:18s} {len(rows):3d} {len(first.seeds):2d} {first.prompts:4d} {new.mean():7.4f}"
            f" {old.mean():7.4f} {new.mean() / old.mean():6.3f} {int(flat.sum()):13d} {rest:17.3f}"
            f" {sum(v.conclusive for v, _, _ in rows):17d} {sum(was for _, _, was in rows):6d}"
            f" {len(rows):3d} {turned:11d}"
        )
    new_mean, old_mean = np.mean(totals, axis=0)
    print(
        f"mean of these sweeps: {new_mean:.4f} and {old_mean:.4f}, ratio {new_mean / old_mean:.3f}"
    )


def show_costs(output: str, sweep: str, counts: list[int]) -> None:
    results = read(output, sweep)
    table = build_table(results, results.headline)
    control = results.control.name
    names = [control, *(c.name for c in results.levels if c.name != control)]
    seconds = [t.seconds for c in results.levels for t in c.trials.values()]
    training = float(np.mean([s.get("train", 0.0) for s in seconds]))
    image = float(np.mean([s["sample"] + s["score"] for s in seconds])) / len(table.prompts)
    splits: dict[str, list[int]] = {}
    for i, prompt in enumerate(table.prompts):
        splits.setdefault(prompt.partition("/")[0], []).append(i)
    most = min(map(len, splits.values()))
    print(f"{sweep}: a training {training:.1f} s, an image {image:.3f} s, {len(names)} cells")

    def width(seeds: list[int], of_each: int) -> float:
        rows = [i for own in splits.values() for i in own[:of_each]]
        y = np.array([[table.y[name][seed][rows] for seed in seeds] for name in names])
        found = compare_cells(y, binary=table.binary)
        return float(np.mean([c.half_prompts_like_these for c in found.comparisons]))

    def cost(seeds: int, of_each: int) -> float:
        return seeds * len(names) * (training + of_each * len(splits) * image)

    known = sorted(set.intersection(*(set(table.y[name]) for name in names)))
    for count in counts:
        seeds = known[:count]
        if len(seeds) < count:
            print(f"  {count} seeds: only {len(known)} are finished")
            continue
        means = {n: {s: float(table.y[n][s].mean()) for s in seeds} for n in names}
        older = float(
            np.mean([h for _, h, _ in older_halves(means, [(n, control) for n in names[1:]])])
        )
        grid = [(cost(s, p), s, p) for s in range(2, count + 1) for p in range(4, most + 1, 4)]
        for price, s, p in sorted(grid):
            reached = width(known[:s], p)
            if reached <= older:
                print(
                    f"  {count} seeds: older half-width {older:.4f}; newer {reached:.4f} with {s} "
                    f"seeds of {p * len(splits)} prompts: {price:.0f} of {cost(count, most):.0f} "
                    f"s, {price / cost(count, most):.2f}"
                )
                break
        else:
            print(f"  {count} seeds: older half-width {older:.4f} is not reached with all of these")


def show_replays(output: str, sweep: str, counts: list[int]) -> None:
    """What until= takes to the older rule's intervals of so many seeds, of all that these trials
    have: seconds against those of all of these seeds and prompts."""
    results = read(output, sweep)
    costs, finished = read_costs(results), count_seeds(results)
    prompts, splits = count_prompts(results)
    first, few = begin_small("", 3, prompts, splits, ())
    print(
        f"{sweep}: a training {costs.training:.1f} s, an image {costs.image:.3f} s, "
        f"{len(results.cells)} cells; {finished} seeds of {prompts} prompts of {splits} splits; "
        f"first look at {first} seeds of {few}"
    )
    for count in counts:
        if count > finished:
            print(f"  {count} seeds: only {finished} are finished")
            continue
        whole = Design({cell.name: count for cell in results.cells}, prompts)
        price = costs.between(Design({}, 0), whole)
        halves = np.array(widths_by_seeds(results, count))
        for name, goal in (("widest", halves.max()), ("mean", halves.mean())):
            found = replay_sweep(results, f"{goal:.4f}", first, few)
            looks = ", ".join(
                f"{min(d.seeds.values())} to {d.most_seeds} × {d.prompts}"
                if min(d.seeds.values()) < d.most_seeds
                else f"{d.most_seeds} × {d.prompts}"
                for d in (look.design for look in found.round.taken)
            )
            end = f"; NOT reached, it {found.beyond}" if found.beyond else ""
            free = replay_sweep(results, f"{goal:.4f}", first, few, most_prompts=MANY)
            if (after := free.round.taken[-1].after) and after.prompts > prompts:
                more = free.seconds + costs.between(free.design, after)
                end += (
                    f"; with as many prompts as it likes it asks for {after.most_seeds} × "
                    f"{after.prompts}, {more / price:.2f}"
                )
            print(
                f"  {count} seeds, {name} {goal:.4f}: {found.seconds:.0f} of {price:.0f} s, "
                f"{found.seconds / price:.2f}; widest then {found.widest:.4f}; looks: {looks}{end}"
            )


def widths_by_seeds(results: SweepResults, count: int) -> list[float]:
    """The older rule's half-widths of the first seeds, the untouched backbone's in a family of its
    own."""
    first = results.seeds[:count]
    values = {c.name: c.per_seed(results.headline.key) for c in results.cells}
    means = {name: {s: own[s] for s in first if s in own} for name, own in values.items()}
    found = judge(results, results.headline)
    families = [[(v.cell, v.control) for v in part] for part in (found.levels, found.untouched)]
    return [half for pairs in families for _, half, _ in older_halves(means, pairs)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("output", help="folder with mlflow.db")
    parser.add_argument("sweeps", nargs="+")
    parser.add_argument("--cost", nargs="+", type=int, help="numbers of seeds of the older rule")
    parser.add_argument("--until", nargs="+", type=int, help="the same, replayed with until=")
    options = parser.parse_args()
    if options.until:
        for sweep in options.sweeps:
            show_replays(options.output, sweep, options.until)
    elif options.cost:
        for sweep in options.sweeps:
            show_costs(options.output, sweep, options.cost)
    else:
        show_widths(options.output, options.sweeps)


if __name__ == "__main__":
    main()
