"""How narrow an interval will be for so many seeds and prompts, and what would settle an answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from scipy import special

from reports.statistics.comparisons import Comparison
from reports.statistics.decisions import OPEN, decision
from reports.statistics.dunnett import dunnett_quantile
from reports.statistics.paired import detectable_shift
from reports.statistics.widths import Width, widths_for_prompts_like_these

__all__ = [
    "Needed",
    "Variances",
    "best_prompts",
    "half_at",
    "needed",
    "predict_half_width",
    "predict_smallest_difference",
    "variances_of",
]

MOST_SEEDS, MOST_PROMPTS = 200, 100_000  # Beyond these nothing is proposed


@dataclass(frozen=True)
class Variances:
    """Variances of the difference of two cells: of a seed's training, a prompt, an image.

    A mean over S seeds and P prompts has the variance seed/S + prompt/P + image/(SP): they are
    twice σ²_cs, σ²_cp and σ²_csp of ``components``.
    """

    seed: float
    prompt: float
    image: float

    def of_mean(self, seeds: int, prompts: int) -> float:
        return self.seed / seeds + self.prompt / prompts + self.image / (seeds * prompts)


@dataclass(frozen=True)
class Needed:
    """What would settle an open comparison; all but ``cost`` are to be added to what is there.

    ``seeds``: with as many prompts as now; ``prompts``: with as many seeds as now; None where no
    number would. ``best_seeds`` and ``best_prompts`` together cost least. ``cost_seeds``,
    ``cost_prompts`` and ``cost`` (of the best) are those of one cell. ``half``: the half-width to
    be reached.
    """

    seeds: int | None
    prompts: int | None
    best_seeds: int | None
    best_prompts: int | None
    cost_seeds: float
    cost_prompts: float
    cost: float
    half: float


def variances_of(comparison: Comparison) -> Variances:
    """What a comparison's mean squares say of each source, none below 0.

    E = image, F* E = image + P · seed, B − E = S · prompt.
    """
    c = comparison
    return Variances(
        max(0.0, c.design_effect - 1) * c.residual / c.prompts,
        max(0.0, c.ms_prompt - c.ms_residual) / len(c.seeds),
        c.residual,
    )


def half_at(comparison: Comparison, level: float) -> float:
    """The half-width that a comparison of two seeds or more would have at another level."""
    c = comparison

    def half(level: float) -> float:
        seeds = len(c.seeds)
        widths = widths_for_prompts_like_these(
            c.design_effect * c.residual,
            c.residual,
            c.ms_prompt,
            c.ms_residual,
            c.degrees_a_seed * (seeds - 1),
            seeds,
            c.prompts,
            c.family,
            level,
            c.rho,
        )
        return max(width.half for width in widths)

    if not c.residual > 0:  # Seeds are all there is
        nu = c.degrees_a_seed * (len(c.seeds) - 1)
        quantiles = [dunnett_quantile(c.family, nu, p, c.rho) for p in (level, c.level)]
        return c.half_prompts_like_these * quantiles[0] / quantiles[1]
    return c.half_prompts_like_these * half(level) / half(c.level)


def best_prompts(variances: Variances, T: float, t: float) -> float:
    """Prompts a training that give the narrowest interval at any cost: √((T/t) / ρ).

    ``T`` is the cost of a training and ``t`` that of an image (of all of a prompt's, where it has
    several); ρ = σ²_cs / σ²_csp is the variance of trainings over that of images. Infinite where
    trainings do not scatter: then prompts come before seeds as long as there are any.
    What suits prompts (``prompt``) is divided by no number of seeds and asks for still more
    prompts; ``needed`` reckons with it.
    """
    if not (T >= 0 and t > 0):
        raise ValueError(f"expected T >= 0 and t > 0, got {T}, {t}")
    if variances.seed <= 0:
        return math.inf
    return math.sqrt(T / t * variances.image / variances.seed)


def predict_half_width(
    variances: Variances,
    seeds: int,
    prompts: int,
    comparisons: int,
    level: float = 0.95,
    rho: float = 0.5,
    degrees_a_seed: float | None = None,
) -> float:
    """Half the width of an interval for prompts like these, were each mean square as expected.

    By the rule of ``compare_cells`` with F = 1 + P · seed / image. ``degrees_a_seed``: cells of the
    pool less one (default: as many as ``comparisons``). NaN with fewer than two seeds or prompts.
    """
    widths = _predict(variances, seeds, prompts, comparisons, level, rho, degrees_a_seed)
    return max((width.half for width in widths), default=math.nan)


def predict_smallest_difference(
    variances: Variances,
    seeds: int,
    prompts: int,
    comparisons: int,
    level: float = 0.95,
    rho: float = 0.5,
    degrees_a_seed: float | None = None,
    power: float = 0.8,
) -> float:
    """The smallest true difference of one cell that the plan would claim with ``power``."""
    widths = _predict(variances, seeds, prompts, comparisons, level, rho, degrees_a_seed)
    return max(
        (w.error * detectable_shift(w.quantile, w.df, power) for w in widths), default=math.nan
    )


def _predict(
    variances: Variances,
    seeds: int,
    prompts: int,
    comparisons: int,
    level: float,
    rho: float,
    degrees_a_seed: float | None,
) -> tuple[Width, ...]:
    """Widths with each mean square as expected; none with one seed or prompt."""
    if seeds < 2 or prompts < 2:
        return ()
    image = variances.image
    return widths_for_prompts_like_these(
        image + prompts * variances.seed,
        image,
        image + seeds * variances.prompt,
        image,
        (degrees_a_seed or comparisons) * (seeds - 1),
        seeds,
        prompts,
        comparisons,
        level,
        rho,
        digits=2,  # Near-equal plans then share a quantile that is in store
    )


def needed(
    rows: Iterable[Comparison],
    delta: float | None,
    T: float,
    t: float,
    *,
    power: float = 0.8,
) -> list[Needed | None]:
    """For each comparison what would settle it, None where it is settled.

    It is settled for certain once its half-width is delta / 2, wherever the mean then lies; and
    with ``power``, if the true difference is the mean seen, once

        half + z(power) · standard error <= max(|mean|, delta − |mean|).

    The easier of both counts; ``power=1`` asks for certainty, and without ``delta`` only a
    difference can be shown. ``T`` is what a training costs and ``t`` what a prompt's images do. The
    prediction is ``predict_half_width`` from the comparison's own mean and variances, a rough guess
    with few seeds: in simulated sweeps of 3 seeds and 60 prompts the variance of the mean was .8 to
    2.1 times the true one in eight of ten, and of open comparisons that got what they were said to
    need 54 to 81 % were settled.
    """
    if not (T >= 0 and t >= 0 and T + t > 0):
        raise ValueError(f"expected costs T >= 0 and t >= 0, not both 0, got {T}, {t}")
    return [_needed(row, delta, T, t, power) for row in rows]


def _needed(c: Comparison, delta: float | None, T: float, t: float, power: float) -> Needed | None:
    settled = decision(c.low, c.high, delta, mean=c.mean, scale=c.scale) != OPEN
    if c.identical or not c.seeds or (settled and not c.images_alone):
        return None
    variances, size = variances_of(c), abs(c.mean)
    margin = size if delta is None else max(size, delta - size)
    certain = 0.0 if delta is None else delta / 2
    z, now_seeds, now_prompts = float(special.ndtri(power)), len(c.seeds), c.prompts

    def settles(seeds: int, prompts: int) -> bool:
        widths = _predict(variances, seeds, prompts, c.family, c.level, c.rho, c.degrees_a_seed)
        if not widths:
            return False
        half, error = max(w.half for w in widths), max(w.error for w in widths)
        return half <= certain or half + z * error <= margin

    def cost(seeds: int, prompts: int) -> float:
        added = seeds * prompts - now_seeds * now_prompts
        return (seeds - now_seeds) * T + added * t

    def fewest_prompts(seeds: int, most: int = MOST_PROMPTS) -> int | None:
        return _first(lambda prompts: settles(seeds, prompts), now_prompts, most)

    least = max(now_seeds, 2)
    seeds = _first(lambda total: settles(total, now_prompts), least, MOST_SEEDS)
    prompts = fewest_prompts(now_seeds) if now_seeds > 1 else None
    best: tuple[float, int, int] | None = None
    total, most = least, MOST_PROMPTS
    while total <= MOST_SEEDS and not (best and cost(total, now_prompts) >= best[0]):
        count = fewest_prompts(total, most)
        if count is not None:
            most = count  # More seeds never need more prompts
            if best is None or cost(total, count) < best[0]:
                best = (cost(total, count), total, count)
        total += max(1, total // 10)
    return Needed(
        None if seeds is None else seeds - now_seeds,
        None if prompts is None else prompts - now_prompts,
        best[1] - now_seeds if best else None,
        best[2] - now_prompts if best else None,
        math.inf if seeds is None else cost(seeds, now_prompts),
        math.inf if prompts is None else cost(now_seeds, prompts),
        best[0] if best else math.inf,
        max(certain, margin / (1 + z / dunnett_quantile(c.family, math.inf, c.level, c.rho))),
    )


def _first(works: Callable[[int], bool], start: int, most: int) -> int | None:
    """The smallest number from ``start`` to ``most`` that works, by doubling and bisection."""
    if works(start):
        return start
    if not works(most):
        return None
    low, step = start, 1
    while low < most:
        high = min(most, start + step)
        if works(high):
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if works(middle) else (middle, high)
            return high
        low, step = high, step * 2
    return None
