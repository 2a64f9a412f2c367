"""Comparisons of cells by their images, with the scatter of trainings pooled over cells.

With three seeds an interval of each difference's own spread has two degrees of freedom: its width
is the t quantile, not noise. All cells of a sweep together say far better by which factor
trainings scatter more than their images alone would (the *design effect* F), and this factor
widens the image noise E of each comparison.

A comparison has differences d[s, p] of S seeds and P prompts; A, B, E are its mean squares
(``pair_components``), MS those of the whole table (``components``), C its cells, ν = (C − 1)(S − 1)
and q Dunnett's two-sided quantile of k comparisons.

1. F = max(MS_cs / MS_csp, mean_i A_i / mean_i E_i); the second sees a control that is unstable.
2. F*_i = max(F, (4F + (S−1) F_i) / (4 + S−1)) with F_i = A_i / E_i: wider than the pool, never
   narrower.
3. Outcomes of 0 and 1: E_i with two pseudo-images (``residual_with_floor``).
4. These prompts: half = √(E_i/SP) · max(q(k, ν) √F*_i, q(k, (S−1)(P−1))).
5. Prompts like these, with prompts as a random effect (Clark 1973) and Satterthwaite's (1946)
   degrees of freedom: v = max(0, B_i − E_i), V = F*_i E_i + v,
   df = max(ν, V² / ((F*_i E_i)²/ν + [v > 0] (B_i²/(P−1) + E_i²/((S−1)(P−1))))),
   half = max(q(k, df) √(V/SP), q(k, (S−1)(P−1)) √((E_i + v)/SP)).

Where no cell of a comparison was trained its seeds are further noises of the same prompts: it stays
outside of the pool, and prompts are clusters with their noises within,

6. half = q(k, P−1) √(B_i/SP), B_i of outcomes of 0 and 1 with two pseudo-images as E_i is; of these
   prompts alone q(k, P(S−1)) √(W_i/SP) with W_i = (A_i + (P−1) E_i) / P, the mean square within.

It is assumed that a cell's trainings scatter relative to its images as the pool's do or more, and
that means over S·P images are near normal. Over 500 simulated sweeps a scenario (k 4, S 3, P 112
unless said) the share of sweeps with an interval that misses its true value, nominal .05, is .01 to
.05: images alone, trainings or prompts that scatter, few flips, k 1 and 26, S 2 and 10, P 20. It is
.08 to .11 where a level or the control is wild (its trainings scatter eight to ten times as far as
others'), and .14 to .43 where trainings of a level collapse in 15 % of seeds; ``unstable`` and
``unstable_control`` mark what is near that limit.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from reports.statistics.cell_table import (
    CellContrast,
    CellTable,
    Sample,
    draw_sample,
    find_cell,
    pair_contrast,
    read_table,
)
from reports.statistics.comparisons import CellComparisons, Comparison
from reports.statistics.components import Components, components, residual_with_floor
from reports.statistics.dunnett import dunnett_quantile
from reports.statistics.widths import widths_for_prompts_like_these

__all__ = ["compare_cells", "compare_contrasts"]

UNSTABLE = 3  # A cell whose design effect is so many times the pool's scatters in its own way


@dataclass(frozen=True)
class _Pool:
    """F with its degrees of freedom ν = ``degrees_a_seed`` (S − 1); NaN where nothing tells."""

    f_all: float = math.nan
    f_base: float = math.nan
    nu: float = math.nan
    degrees_a_seed: float = 1.0
    table: Components | None = None
    cells: tuple[Hashable, ...] = ()
    seeds: tuple[Any, ...] = ()

    @property
    def f(self) -> float:
        return float(np.fmax(self.f_all, self.f_base))


@dataclass(frozen=True)
class _Family:
    """What the comparisons of a family share."""

    size: int
    level: float
    rho: float
    binary: bool


def compare_cells(
    y: Any,
    baseline: Hashable = 0,
    level: float = 0.95,
    binary: bool = False,
    rho: float = 0.5,
    *,
    pairs: Sequence[tuple[Hashable, Hashable]] | None = None,
    untouched: Hashable | None = None,
    family: int | None = None,
    primary: Hashable | None = None,
    untrained: Collection[Hashable] = (),
) -> CellComparisons:
    """Compare every cell with the cell ``baseline``; see the head of this file for the rule.

    ``y`` is [cells, seeds, prompts], where the row of a seed that a cell lacks is NaN, or a mapping
    cell -> seed -> values of the prompts, the same prompts in the same order everywhere. With a
    mapping, ``baseline`` and ``untouched`` are names of cells (the default baseline is the first),
    else indexes. ``binary``: the images' outcomes are 0 and 1 or means of such. With ``pairs`` of
    (cell, control) these are compared instead; more than one control makes one family of
    independent comparisons (``rho`` 0). ``untouched`` has no training scatter: it stays outside of
    the pool, and each control less the untouched cell is in the family ``untouched``. ``family``:
    for how many comparisons the intervals hold, where cells that were settled at an earlier look
    are no longer in ``y`` (default: those made here). The comparison of the cell ``primary``, which
    was fixed before, stands alone: its interval is that of one comparison. ``untrained``: cells for
    which nothing was trained.

    Cells without the seeds of others are compared on the seeds common with their control, while F
    is from seeds that all have. With one seed the interval is of images alone. Raises ValueError on
    unknown cells, fewer than two prompts, rows with some values missing, values not finite.
    """
    table = read_table(y)
    outside = [] if untouched is None else [find_cell(table, untouched)]
    if pairs is None:
        control = find_cell(table, baseline)
        others = [i for i in range(len(table.cells)) if i != control and i not in outside]
        compared = [(i, control) for i in others]
        controls = [control]
    else:
        compared = [(find_cell(table, cell), find_cell(table, control)) for cell, control in pairs]
        controls = list(dict.fromkeys(control for _, control in compared))
        if wrong := [table.cells[i] for i, j in compared if i == j or {i, j} & set(outside)]:
            raise ValueError(f"pairs: {wrong[0]!r} is compared with itself or is the untouched")
    if len(controls) > 1:
        rho = 0.0
    contrasts = [pair_contrast(table, cell, control) for cell, control in compared]
    against = [pair_contrast(table, control, outside[0]) for control in controls if outside]
    if not contrasts and not against:
        raise ValueError(f"expected two or more cells, got {list(table.cells)}")
    if family is not None and family < len(contrasts):
        raise ValueError(f"family={family}: expected at least the {len(contrasts)} compared here")
    size = family or len(contrasts)
    return _compare(table, contrasts, against, size, level, binary, rho, primary, untrained)


def compare_contrasts(
    y: Any,
    contrasts: Mapping[Any, Sequence[float] | np.ndarray | Mapping[Hashable, float]],
    level: float = 0.95,
    binary: bool = False,
    rho: float = 0.0,
    *,
    family: int | None = None,
    untrained: Collection[Hashable] = (),
) -> CellComparisons:
    """Contrasts of cells by the rule of ``compare_cells``, as one family (with more of them where
    ``family`` is larger).

    A contrast is a weight for each cell, or a mapping cell -> weight, that sum to 0: of a factor of
    two levels, +1/n over the n cells of one level and −1/n over those of the other. Raises
    ValueError on weights that do not sum to 0, and as ``compare_cells`` does.
    """
    table = read_table(y)
    found = []
    for name, given in contrasts.items():
        weights = np.zeros(len(table.cells))
        if isinstance(given, Mapping):
            for cell, weight in given.items():
                weights[find_cell(table, cell)] = weight
        else:
            weights = np.asarray(given, dtype=np.float64)
        if weights.shape != (len(table.cells),) or not weights.any() or abs(weights.sum()) > 1e-9:
            raise ValueError(
                f"contrast {name!r}: expected a weight for each of {len(table.cells)} cells with "
                f"the sum 0, got {given}"
            )
        found.append(CellContrast(name, None, weights))
    if not found:
        raise ValueError("expected one or more contrasts, got none")
    if family is not None and family < len(found):
        raise ValueError(f"family={family}: expected at least the {len(found)} compared here")
    size = family or len(found)
    return _compare(table, found, [], size, level, binary, rho, untrained=untrained)


def _compare(
    table: CellTable,
    contrasts: Sequence[CellContrast],
    against: Sequence[CellContrast],
    size: int,
    level: float,
    binary: bool,
    rho: float,
    primary: Hashable | None = None,
    untrained: Collection[Hashable] = (),
) -> CellComparisons:
    plain = np.array([cell in untrained for cell in table.cells])

    def is_untrained(sample: Sample) -> bool:
        return bool(plain[sample.contrast.weights != 0].all())

    samples = [draw_sample(table, contrast) for contrast in contrasts]
    apart = [draw_sample(table, contrast) for contrast in against]
    pool = _pool(table, *([s for s in own if not is_untrained(s)] for own in (samples, apart)))
    family = _Family(size, level, rho, binary)
    alone = _Family(1, level, rho, binary)
    # Controls share the untouched cell, which scatters less than they do: as if they shared none
    second = _Family(len(apart), level, 0.0, binary)
    of = pool.table
    return CellComparisons(
        of.ms_cell_seed if of else math.nan,
        of.ms_cell_prompt if of else math.nan,
        of.ms_residual if of else math.nan,
        of.df if of else (0, 0, 0),
        pool.f_all,
        pool.f_base,
        tuple(
            _judge(
                table,
                sample,
                pool,
                alone if sample.contrast.cell == primary else family,
                is_untrained(sample),
            )
            for sample in samples
        ),
        tuple(_judge(table, sample, pool, second, is_untrained(sample)) for sample in apart),
        pool.cells,
        pool.seeds,
    )


def _pool(table: CellTable, samples: Sequence[Sample], apart: Sequence[Sample]) -> _Pool:
    """F and ν of the cells that differ from their control and have two seeds or more."""
    differing = [sample for sample in samples if sample.differs]
    used = np.array(
        [
            i
            for i in range(len(table.cells))
            if table.there[i].sum() > 1 and any(s.contrast.weights[i] for s in differing)
        ],
        dtype=int,
    )
    common = np.flatnonzero(table.there[used].all(axis=0))
    if len(used) > 1 and common.size > 1:
        parts = components(table.y[np.ix_(used, common)])
        left_out = [i for i in range(len(table.cells)) if i not in used]
        shared = [
            draw_sample(table, sample.contrast, common)
            for sample in differing
            if not np.any(sample.contrast.weights[left_out])
        ]
        return _Pool(
            parts.ms_cell_seed / parts.ms_residual if parts.ms_residual else 0.0,
            _base_effect(shared),
            (len(used) - 1) * (common.size - 1),
            len(used) - 1,
            parts,
            tuple(table.cells[i] for i in used),
            tuple(table.seeds[j] for j in common),
        )
    # No two seeds that all cells have: each comparison has its own, and the fewest count
    own = [sample for sample in differing or apart if len(sample.seeds) > 1]
    if not own:
        known = [len(sample.seeds) - 1 for sample in samples if len(sample.seeds) > 1]
        # No image differs anywhere: trainings do not scatter
        return _Pool(0.0, 0.0, len(known) * min(known), len(known)) if known else _Pool()
    return _Pool(f_base=_base_effect(own), nu=min(len(sample.seeds) for sample in own) - 1)


def _base_effect(samples: Sequence[Sample]) -> float:
    """mean A / mean E over comparisons; 0 without image noise, NaN without comparisons."""
    if not samples:
        return math.nan
    noise = sum(sample.ms_residual / sample.contrast.size for sample in samples)
    trainings = sum(sample.ms_seed / sample.contrast.size for sample in samples)
    return trainings / noise if noise else 0.0


def _judge(
    table: CellTable, sample: Sample, pool: _Pool, family: _Family, untrained: bool
) -> Comparison:
    seeds, prompts = len(sample.seeds), table.y.shape[2]
    f = pool.f if math.isfinite(pool.f) else 1.0
    noise, own, inflation, df = sample.ms_residual, math.nan, math.nan, math.nan
    these = like = older = math.nan
    if family.binary and seeds:
        part = sample.contrast.size / 2  # Averages over more cells than a pair flip by less
        noise = part * residual_with_floor(noise / part, seeds * prompts)
    if untrained and seeds:
        inflation, df = 1.0, float(prompts - 1)
        like, these = _widths_of_images(sample, family, seeds, prompts)
    elif seeds == 1:
        inflation, df = max(1.0, f), float(prompts - 1)
        quantile = _quantile(family, df)
        if pool.nu > 0:  # Other cells tell how far trainings scatter
            quantile = max(quantile, _quantile(family, pool.nu) * math.sqrt(inflation))
        these = like = quantile * math.sqrt(noise / prompts)
    elif seeds:
        own = sample.ms_seed / sample.ms_residual if sample.ms_residual else 0.0
        inflation = max(f, (4 * f + (seeds - 1) * own) / (4 + seeds - 1))
        nu = pool.nu if pool.nu > 0 else seeds - 1
        error = math.sqrt(noise / (seeds * prompts))
        freedom = (seeds - 1) * (prompts - 1)
        these = error * max(
            _quantile(family, nu) * math.sqrt(inflation), _quantile(family, freedom)
        )
        widths = widths_for_prompts_like_these(
            inflation * noise,
            noise,
            sample.ms_prompt,
            sample.ms_residual,
            nu,
            seeds,
            prompts,
            family.size,
            family.level,
            family.rho,
        )
        df, like = widths[0].df, max(width.half for width in widths)
        each = 1 - (1 - family.level) / (2 * family.size)
        older = float(special.stdtrit(seeds - 1, each))
        older *= math.sqrt(sample.ms_seed / (seeds * prompts))
        if noise == 0:  # All images of a seed differ alike: seeds are all there is
            these, like = max(these, older), max(like, older)
    there = [bool(column.any()) for column in table.there.T]
    return Comparison(
        cell=sample.contrast.cell,
        control=sample.contrast.control,
        mean=sample.mean,
        ms_seed=sample.ms_seed,
        ms_prompt=sample.ms_prompt,
        ms_residual=sample.ms_residual,
        design_effect=inflation,
        half_these_prompts=these,
        df=df,
        half_prompts_like_these=like,
        half_paired_t_bonferroni=older,
        own_design_effect=own,
        residual=noise,
        seeds=tuple(table.seeds[j] for j in sample.seeds),
        missing_seeds=tuple(
            seed for j, seed in enumerate(table.seeds) if there[j] and j not in sample.seeds
        ),
        prompts=prompts,
        identical=seeds > 0 and not sample.differs,
        unstable=own > _unstable_from(len(pool.cells)) * f,
        images_alone=seeds == 1 and not untrained,
        scale=sample.scale,
        family=family.size,
        level=family.level,
        rho=family.rho,
        degrees_a_seed=pool.degrees_a_seed,
        untrained=untrained,
    )


def _widths_of_images(
    sample: Sample, family: _Family, seeds: int, prompts: int
) -> tuple[float, float]:
    """Half-widths for prompts like these, and for these prompts alone, where nothing is trained;
    with one noise a prompt the two cannot be known apart."""
    images, part = seeds * prompts, sample.contrast.size / 2

    def widen(square: float) -> float:
        return part * residual_with_floor(square / part, images) if family.binary else square

    like = _quantile(family, prompts - 1) * math.sqrt(widen(sample.ms_prompt) / images)
    if seeds == 1:
        return like, like
    within = (sample.ms_seed + (prompts - 1) * sample.ms_residual) / prompts
    these = _quantile(family, prompts * (seeds - 1)) * math.sqrt(widen(within) / images)
    return like, these


def _quantile(family: _Family, df: float) -> float:
    return dunnett_quantile(family.size, df, family.level, family.rho)


def _unstable_from(cells: int) -> float:
    """The multiple of F above which a cell is unstable; a wild one of C cells nears C / 2 times F.

    Simulated with 40 prompts: of sweeps whose cells scatter alike, some cell passes it in 13 % (5
    cells, 3 seeds), 7 % (6), 8 % (8) and 13 % (11); with 5 cells in 3 % at 5 seeds. One cell whose
    trainings scatter four times as far does in 24 to 44 %. With 4 cells it would be 27 % of chance
    against 37 %: there, as with fewer, nothing passes.
    """
    return min(UNSTABLE, cells / 2.2) if cells > 4 else UNSTABLE
