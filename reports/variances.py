"""Where the variance of a metric comes from, and what narrows intervals at the least cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from reports import prose, typeset
from reports.judging import read_costs
from reports.per_image import metric_values
from reports.results import CellResults, ReportedMetric, SweepResults, SweptFactor
from reports.statistics import (
    CellComparisons,
    Variances,
    VarianceSource,
    predict_half_width,
    variance_table,
)
from reports.tables import Table
from reports.typeset import Picture
from reports.verdicts import MetricVerdicts

__all__ = [
    "Grid",
    "Parts",
    "Source",
    "Spending",
    "Variance",
    "advise",
    "arrange_grid",
    "explain_variance",
    "list_sources",
    "name_image",
    "show_share",
    "split_difference",
    "state_spending",
    "tabulate_sources",
    "variance_blocks",
    "variance_tables",
]

ALIKE = 0.1  # Seeds and prompts whose use differs by less are worth the same
# Source of ``variance_table`` -> its name, and what it is
NAMES = {
    "seed": ("seed", "trainings, prompts' noise and order of a seed, alike in all cells"),
    "prompt": ("prompt", "how hard a prompt is, alike in all cells"),
    "seed × prompt": ("noise", "what the noise of an image makes of its prompt in all cells"),
    "cell × seed": ("cell × seed", "a training's own luck"),
    "cell × prompt": ("cell × prompt", "what suits a prompt"),
    "image": ("image", "all the rest: what a training makes of one image"),
}
OWN = "prompt and noise (each seed has prompts of its own), alike in all cells"
CANCEL = ("seed", "prompt", "noise")  # Cells share these, so that they leave a difference alone
ORDER = ("cell × seed", "cell × prompt", "image", *CANCEL)


@dataclass(frozen=True)
class Source:
    """A source of variance and its share of all; ``factors`` of a term that is no chance."""

    name: str
    what: str
    factors: tuple[str, ...]
    variance: float
    share: float
    df: int


@dataclass(frozen=True)
class Grid:
    """``order``: where each combination of ``levels``, one list for each of ``factors``, is in a
    list of cells, the last factor's levels next to each other."""

    factors: list[SweptFactor]
    levels: list[list[str]]
    order: list[int]

    @property
    def shape(self) -> list[int]:
        return [len(own) for own in self.levels]


@dataclass(frozen=True)
class Parts:
    """Shares of the variance of a difference between two cells, of means over ``seeds`` trainings
    (seeds of noise, where nothing is ``trained``) and ``prompts`` prompts."""

    variances: Variances
    seeds: int
    prompts: int
    trained: bool = True

    @property
    def unit(self) -> str:
        """What a seed is."""
        return "training" if self.trained else "seed"

    @property
    def total(self) -> float:
        return self.variances.of_mean(self.seeds, self.prompts)

    @property
    def shares(self) -> dict[str, float]:
        """Of trainings (or seeds), prompts and images; empty where cells do not differ at all."""
        v, total = self.variances, self.total
        parts = {
            f"{self.unit}s": v.seed / self.seeds,
            "prompts": v.prompt / self.prompts,
            "images": v.image / (self.seeds * self.prompts),
        }
        return {name: part / total for name, part in parts.items()} if total else {}


@dataclass(frozen=True)
class Variance:
    """What is known of the headline's variance: ``sources`` of an image's (of the mean of a
    prompt's ``images``), ``parts`` of a difference's, what to spend on (``advice``)."""

    label: str
    sources: tuple[Source, ...]
    parts: Parts | None
    advice: str
    images: int = 1


@dataclass(frozen=True)
class Spending:
    """What twice the seeds and twice the prompts do: ``width`` of the intervals and ``cost`` of all
    trials, as factors; ``cost`` is NaN where times are not known."""

    seeds_width: float
    seeds_cost: float
    prompts_width: float
    prompts_cost: float

    @property
    def first(self) -> str:
        """ "seeds", "prompts" or "either": what narrows more at the same cost; "" where that is not
        known."""
        if not math.isfinite(self.prompts_cost):
            return ""
        seeds, prompts = (
            -math.log(width) / math.log(cost) if cost > 1 else math.inf * -math.log(width)
            for width, cost in (
                (self.seeds_width, self.seeds_cost),
                (self.prompts_width, self.prompts_cost),
            )
        )
        if min(seeds, prompts) >= (1 - ALIKE) * max(seeds, prompts):
            return "either"
        return "seeds" if seeds > prompts else "prompts"


def explain_variance(results: SweepResults, verdicts: MetricVerdicts) -> Variance | None:
    """Of the metric of ``verdicts``; None where it has no table of images."""
    table, pooled = verdicts.table, verdicts.pooled
    if table is None or pooled is None:
        return None
    trained = any(not cell.untrained for cell in results.cells)
    parts = split_difference(pooled, len(table.prompts), trained)
    spending = None
    if parts is not None:
        costs = read_costs(results, len(table.prompts))
        rho = 0.5 if len(results.controls) == 1 else 0.0
        spending = advise(parts, max(1, len(verdicts.levels)), rho, costs)
    sources = list_sources(results, table.y, table.own_prompts)
    advice = state_spending(parts, spending)
    if parts is not None and spending is not None and _is_more_than(sources, parts):
        advice += (
            f" Of {parts.unit}s it has what intervals reckon with, by the design effect, which is "
            "the larger of two estimates; the table of sources has that of all cells."
        )
    images = _count_noises(results, verdicts.metric)
    return Variance(verdicts.metric.label, tuple(sources), parts, advice, images)


def _is_more_than(sources: Sequence[Source], parts: Parts) -> bool:
    """Whether a difference has more of trainings than the table of sources says."""
    own = next((s.variance for s in sources if s.name == "cell × seed"), math.inf)
    return parts.variances.seed > 2 * max(0.0, own) * (1 + ALIKE)


def _count_noises(results: SweepResults, metric: ReportedMetric) -> int:
    """The most images that a prompt has a mean of."""
    for _, trial in results.trials():
        if trial.samples is not None and (values := metric_values(trial.samples, metric)):
            return max(Counter(name.rpartition("#")[0] for name in values).values())
    return 1


def name_image(images: int) -> str:
    """What a value of the table is."""
    return "an image" if images == 1 else f"the mean of a prompt's {images} images"


def variance_blocks(variance: Variance | None, drawn: Picture | None) -> list[typeset.Block]:
    """What to spend on, and the figure and table that say why."""
    if variance is None:
        return []
    blocks = [typeset.heading("What to spend on"), typeset.paragraph(variance.advice)]
    blocks += [typeset.picture(drawn)] if drawn else []
    if variance.sources:
        table = tabulate_sources(variance.sources, variance.label, variance.images)
        blocks.append(typeset.table(table, ["auto", 1.9, 1.7, 1.2, "fill"], 8.8, left=(0, 4)))
    return blocks


def variance_tables(results: SweepResults, verdicts: MetricVerdicts) -> list[Table]:
    """The table of sources, where there is one."""
    variance = explain_variance(results, verdicts)
    if variance is None or not variance.sources:
        return []
    return [tabulate_sources(variance.sources, verdicts.metric.label, variance.images)]


def list_sources(
    results: SweepResults,
    y: Mapping[str, Mapping[int, np.ndarray]],
    own_prompts: bool = False,
) -> list[Source]:
    """Sources of variance of the images ``y``, cell -> seed -> values [prompts], without the
    untouched backbone, over the seeds that all cells have that have two.

    A factor and an interaction each where cells are a full grid of the factors, else one source
    for all cells. Empty with fewer than two cells or seeds.
    """
    cells = [cell for cell in results.levels if len(y.get(cell.name, {})) > 1]
    if len(cells) < 2:
        return []
    seeds = sorted(set.intersection(*(set(y[cell.name]) for cell in cells)))
    if len(seeds) < 2:
        return []
    table = np.array([[y[cell.name][seed] for seed in seeds] for cell in cells])
    grid = arrange_grid(results, cells)
    if grid is None:
        found = variance_table(table, [f"cell ({prose.name_factors(results)})"])
    else:
        names = [prose.lower(factor.label) for factor in grid.factors]
        found = variance_table(table[grid.order].reshape(*grid.shape, *table.shape[1:]), names)
    return _name_sources(found, own_prompts)


def arrange_grid(results: SweepResults, cells: Sequence[CellResults]) -> Grid | None:
    """The cells as a full grid of the factors in which they differ; None where it has gaps."""
    factors = [f for f in results.factors if len({c.values.get(f.key) for c in cells}) > 1]
    levels = [
        [text for text in factor.texts if any(c.values.get(factor.key) == text for c in cells)]
        for factor in factors
    ]
    place = {tuple(c.values.get(f.key) for f in factors): i for i, c in enumerate(cells)}
    combinations = list(product(*levels))
    if not factors or len(place) != len(cells) or set(place) != set(combinations):
        return None
    return Grid(factors, levels, [place[key] for key in combinations])


def _name_sources(found: Sequence[VarianceSource], own_prompts: bool) -> list[Source]:
    sources = []
    for s in found:
        if s.factors:
            kind = "what the setting does" if len(s.factors) == 1 else "what settings do together"
            sources.append(Source(s.source, kind, s.factors, s.variance, s.share, s.df))
        else:
            name, what = NAMES[s.source]
            sources.append(Source(name, what, (), s.variance, s.share, s.df))
    sources.sort(key=lambda s: ORDER.index(s.name) if s.name in ORDER else -1)
    if own_prompts:  # A prompt occurs in one seed, and with one noise
        prompt, noise = (next(s for s in sources if s.name == n) for n in ("prompt", "noise"))
        both = replace(
            prompt,
            what=OWN,
            variance=prompt.variance + noise.variance,
            share=prompt.share + noise.share,
            df=prompt.df + noise.df,
        )
        sources = [both if s is prompt else s for s in sources if s is not noise]
    return sources


def split_difference(pooled: CellComparisons, prompts: int, trained: bool = True) -> Parts | None:
    """What the variance of a difference is made of, from the cells of the pool; None without one.

    Of trainings there is what the design effect says, as in the intervals themselves.
    """
    if not math.isfinite(pooled.ms_residual) or len(pooled.seeds) < 2:
        return None
    seeds, image = len(pooled.seeds), pooled.ms_residual
    training = max(0.0, pooled.design_effect - 1) * image / prompts
    prompt = max(0.0, pooled.ms_cell_prompt - image) / seeds
    return Parts(Variances(2 * training, 2 * prompt, 2 * image), seeds, prompts, trained)


def advise(
    parts: Parts, comparisons: int, rho: float, costs: tuple[float, float] | None
) -> Spending | None:
    """What doubling does to the half-widths of ``comparisons`` (Dunnett's ``rho``); ``costs`` are
    those of a training and of a prompt's images. None where cells do not differ at all."""
    if not parts.total:
        return None

    def half(seeds: int, prompts: int) -> float:
        return predict_half_width(parts.variances, seeds, prompts, comparisons, rho=rho)

    now = half(parts.seeds, parts.prompts)
    widths = half(2 * parts.seeds, parts.prompts), half(parts.seeds, 2 * parts.prompts)
    more = math.nan
    if costs is not None:
        training, image = costs
        more = (training + 2 * parts.prompts * image) / (training + parts.prompts * image)
    return Spending(widths[0] / now, 2.0, widths[1] / now, more)


def state_spending(parts: Parts | None, spending: Spending | None) -> str:
    """What to spend on, in a sentence, and why."""
    if parts is None:
        return (
            "What to spend on is open: it takes two cells that differ and two seeds to tell the "
            "scatter of trainings from that of images."
        )
    if spending is None:
        return "Nothing is to be spent on: cells do not differ in any image."
    of = [f"{show_share(share)} from {name}" for name, share in parts.shares.items()]
    why = (
        f"Of the variance of a difference between two cells, {prose.join(of)}, as measured with "
        f"{prose.count(parts.seeds, 'seed')} and {prose.count(parts.prompts, 'prompt')}."
    )

    def effect(noun: str, width: float, cost: float) -> str:
        at = f" for {cost:.2f} times the compute" if math.isfinite(cost) else ""
        return f"twice as many {noun} would make intervals {width:.2f} times as wide{at}"

    both = {
        "prompts": effect("prompts", spending.prompts_width, spending.prompts_cost),
        "seeds": effect("seeds", spending.seeds_width, spending.seeds_cost),
    }
    heads = {
        "prompts": "Spend on prompts",
        "seeds": "Spend on seeds",
        "either": "Seeds and prompts are worth about the same",
        "": "What is cheaper is not known, since no times were recorded",
    }
    order = ["seeds", "prompts"] if spending.first == "seeds" else ["prompts", "seeds"]
    return f"{heads[spending.first]}: {both[order[0]]}, {both[order[1]]}. {why}"


def tabulate_sources(sources: Sequence[Source], label: str, images: int = 1) -> Table:
    """The table of variances, of the mean of a prompt's ``images``; a variance below 0 is chance
    and counts as none."""
    rows = [
        [s.name, _show_variance(s.variance), show_share(s.share), str(s.df), s.what]
        for s in sources
    ]
    title = (
        f"{label}: where the variance of {name_image(images)} comes from, as shares of all. A "
        "source's variance is estimated from mean squares and may be below 0 by chance, which "
        "counts as 0; "
        f"{prose.join([s.name for s in sources if s.name in CANCEL])} are the same in all cells "
        "and leave a difference between cells alone."
    )
    return Table(title, ["Source", "Variance", "Share", "df", "What it is"], rows)


def show_share(share: float) -> str:
    if not math.isfinite(share):
        return prose.DASH
    percent = 100 * share
    if 0 < percent < 0.05:
        return "< 0.1 %"
    return f"{percent:.1f} %" if 0 < percent < 9.95 else f"{percent:.0f} %"


def _show_variance(variance: float) -> str:
    return f"{variance:.2g}".replace("-", "−")
