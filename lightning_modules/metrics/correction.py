"""A judge's share of successes, corrected for how often the judge is wrong."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

Counted = tuple[int, int]  # So many of so many


class ErrorRates(NamedTuple):
    """What a judge said of images that were labelled by looking."""

    sensitivity: Counted  # Called right, of those that are right
    specificity: Counted  # Called wrong, of those that are wrong


class CorrectedShare(NamedTuple):
    share: float
    low: float
    high: float


def correct_share(called: Counted, errors: ErrorRates, level: float = 0.95) -> CorrectedShare:
    """The share of images that are right, from those ``called`` right: (so many, of so many).

    The share is that of Rogan and Gladen (1978, Am. J. Epidemiol. 107:71), (called + specificity
    - 1) / (sensitivity + specificity - 1). Its interval is that of Lang and Reiczigel (2014, Prev.
    Vet. Med. 113:13), which adds to the scatter of the images that of the labels from which both
    error rates are known; images and labels count as independent. All are cut to [0, 1].

    Raises ValueError on counts that are none, and on a judge no better than chance, whose verdicts
    say nothing.
    """
    for name, (count, total) in {"called": called, **errors._asdict()}.items():
        if not 0 <= count <= total or total < 1:
            raise ValueError(
                f"{name}: {count} of {total}; expected 0 <= count <= total, of 1 or more"
            )
    if not 0 < level < 1:
        raise ValueError(f"level={level}; expected a share between 0 and 1, such as 0.95")
    sensitivity, specificity = (count / total for count, total in errors)
    if sensitivity + specificity <= 1:
        raise ValueError(
            f"sensitivity {sensitivity:.3f} + specificity {specificity:.3f} <= 1: such a judge "
            "calls right what is wrong as often; label more images, or use another judge"
        )
    share = (called[0] / called[1] + specificity - 1) / (sensitivity + specificity - 1)
    # Lang and Reiczigel add pseudo-counts first, as Agresti and Coull do for a single share
    z = NormalDist().inv_cdf((1 + level) / 2)
    p, var_p = _shrink(called, z**2)
    sensitivity, var_sensitivity = _shrink(errors.sensitivity, 2)
    specificity, var_specificity = _shrink(errors.specificity, 2)
    informative = sensitivity + specificity - 1
    if informative <= 0:
        return CorrectedShare(_cut(share), 0.0, 1.0)
    middle = (p + specificity - 1) / informative
    variance = (
        var_p + middle**2 * var_sensitivity + (1 - middle) ** 2 * var_specificity
    ) / informative**2
    shift = 2 * z**2 * (middle * var_sensitivity - (1 - middle) * var_specificity)
    half = z * math.sqrt(variance)
    low, high = _cut(middle + shift - half), _cut(middle + shift + half)
    # Close to a border the share itself, without pseudo-counts, may lie outside of these
    return CorrectedShare(_cut(share), min(low, _cut(share)), max(high, _cut(share)))


def _shrink(counted: Counted, more: float) -> tuple[float, float]:
    """A share with ``more`` images added, half of them counted, and the variance of that share."""
    count, total = counted
    share = (count + more / 2) / (total + more)
    return share, share * (1 - share) / (total + more)


def _cut(share: float) -> float:
    return min(max(share, 0.0), 1.0)
