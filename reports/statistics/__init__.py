"""Statistics as pure functions of numbers; what knows of MLflow, cells or files stays outside.

Seeds are the unit of replication. Where images are known, cells are compared by them, with the
scatter of trainings pooled over cells (``compare_cells``); else by their differences seed by seed.
"""

from reports.statistics.clustered import (
    ClusteredMean,
    ClusteredShare,
    clustered_difference,
    clustered_mean,
    clustered_share,
    krippendorff_alpha,
    two_way_bootstrap,
)
from reports.statistics.collapse import Collapse, find_collapsed_seeds
from reports.statistics.comparisons import CellComparisons, Comparison
from reports.statistics.components import (
    Components,
    PairComponents,
    components,
    mean_squares,
    pair_components,
    residual_with_floor,
)
from reports.statistics.correction import CorrectedShare, ErrorRates, correct_counts
from reports.statistics.decisions import (
    DIFFERS,
    NO_DIFFERENCE,
    OPEN,
    Equivalence,
    bound,
    decision,
    tost_paired,
)
from reports.statistics.dunnett import dunnett_quantile
from reports.statistics.factorial import Contrast, FactorialEffects, Term, factorial_effects
from reports.statistics.fractions import MOST_FACTORS, Fraction, two_level_fraction
from reports.statistics.improvement import Improvement, probability_of_improvement
from reports.statistics.intervals import Interval, clopper_pearson, mean_interval, welch, wilson
from reports.statistics.lucky_noise import (
    LuckyNoise,
    LuckyNoises,
    find_lucky_noises,
)
from reports.statistics.paired import (
    Effect,
    Paired,
    detectable_effect,
    fewest_seeds_for_holm,
    holm,
    paired,
    sign_flip_p,
    smallest_sign_flip_p,
    standardised,
)
from reports.statistics.planning import (
    Needed,
    Variances,
    best_prompts,
    half_at,
    needed,
    predict_half_width,
    predict_smallest_difference,
    variances_of,
)
from reports.statistics.pooled import compare_cells, compare_contrasts
from reports.statistics.separable import FactorEffect, SeparableEffects, separable_effects
from reports.statistics.sequential import (
    anytime_quantile,
    e_value,
    error_of_looks,
    stein_total_seeds,
)
from reports.statistics.term_tests import TermTest, term_test, value_term_test
from reports.statistics.variance_table import VarianceSource, variance_table
from reports.statistics.without_images import ValueComparisons, compare_cells_without_images

__all__ = [
    "correct_counts",
    "ErrorRates",
    "CorrectedShare",
    "value_term_test",
    "term_test",
    "TermTest",
    "MOST_FACTORS",
    "Fraction",
    "two_level_fraction",
    "FactorEffect",
    "SeparableEffects",
    "separable_effects",
    "DIFFERS",
    "NO_DIFFERENCE",
    "OPEN",
    "CellComparisons",
    "ClusteredMean",
    "ClusteredShare",
    "Collapse",
    "Comparison",
    "Components",
    "Contrast",
    "Effect",
    "Equivalence",
    "FactorialEffects",
    "Improvement",
    "Interval",
    "LuckyNoise",
    "LuckyNoises",
    "Needed",
    "PairComponents",
    "Paired",
    "Term",
    "ValueComparisons",
    "VarianceSource",
    "Variances",
    "anytime_quantile",
    "best_prompts",
    "bound",
    "clopper_pearson",
    "clustered_difference",
    "clustered_mean",
    "clustered_share",
    "compare_cells",
    "compare_cells_without_images",
    "compare_contrasts",
    "components",
    "decision",
    "detectable_effect",
    "dunnett_quantile",
    "e_value",
    "error_of_looks",
    "factorial_effects",
    "fewest_seeds_for_holm",
    "half_at",
    "find_collapsed_seeds",
    "find_lucky_noises",
    "holm",
    "krippendorff_alpha",
    "mean_interval",
    "mean_squares",
    "needed",
    "pair_components",
    "paired",
    "predict_half_width",
    "predict_smallest_difference",
    "probability_of_improvement",
    "residual_with_floor",
    "sign_flip_p",
    "smallest_sign_flip_p",
    "standardised",
    "stein_total_seeds",
    "tost_paired",
    "two_way_bootstrap",
    "variance_table",
    "variances_of",
    "welch",
    "wilson",
]
