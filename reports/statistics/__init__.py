"""Statistics as pure functions of numbers; what knows of MLflow, cells or files stays outside.

Seeds are the unit of replication: a mean is a mean over seeds, and two cells are compared by
their differences seed by seed.
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
from reports.statistics.intervals import Interval, mean_interval, welch, wilson
from reports.statistics.paired import (
    Effect,
    Paired,
    detectable_effect,
    holm,
    paired,
    sign_flip_p,
    smallest_sign_flip_p,
    standardised,
)

__all__ = [
    "ClusteredMean",
    "ClusteredShare",
    "Effect",
    "Interval",
    "Paired",
    "clustered_difference",
    "clustered_mean",
    "clustered_share",
    "detectable_effect",
    "holm",
    "krippendorff_alpha",
    "mean_interval",
    "paired",
    "sign_flip_p",
    "smallest_sign_flip_p",
    "standardised",
    "two_way_bootstrap",
    "welch",
    "wilson",
]
