"""The share of images that are right, from the share that a detector calls right and its errors."""

from __future__ import annotations

import math
from typing import NamedTuple

from scipy import special

__all__ = ["CorrectedShare", "ErrorRates", "correct_counts"]

Counted = tuple[int, int]  # So many of so many


class CorrectedShare(NamedTuple):
    """A share with its interval."""

    share: float
    low: float
    high: float


class ErrorRates(NamedTuple):
    """What a detector said of images that were labelled by looking."""

    sensitivity: Counted  # Called right, of those that are right
    specificity: Counted  # Called wrong, of those that are wrong

    @property
    def informative(self) -> float:
        """Sensitivity + specificity - 1: what a true difference of shares is multiplied by; 0 or
        less where the verdicts say nothing."""
        return self.sensitivity[0] / self.sensitivity[1] + self._specific - 1

    @property
    def _specific(self) -> float:
        return self.specificity[0] / self.specificity[1]

    def correct(self, called: float) -> float:
        """The share that is right where a share ``called`` is called right (Rogan and Gladen 1978,
        Am. J. Epidemiol. 107:71)."""
        return _clip((called + self._specific - 1) / self.informative)


def correct_counts(right: int, images: int, errors: ErrorRates, level: float) -> CorrectedShare:
    """`ErrorRates.correct` of ``right`` of ``images``, with the interval of Lang and Reiczigel
    (2014, Prev. Vet. Med. 113:13): the scatter of the images and that of the looked-at ones, all
    taken as independent. ``errors`` must be informative."""
    z = float(special.ndtri((1 + level) / 2))
    # Their pseudo-counts, those of Agresti and Coull for the images
    p, noise = _estimate(right, images, z**2)
    sensitivity, of_right = _estimate(*errors.sensitivity, 2)
    specificity, of_wrong = _estimate(*errors.specificity, 2)
    own = errors.correct(right / images)
    scale = sensitivity + specificity - 1
    if scale <= 0:
        return CorrectedShare(own, 0.0, 1.0)
    raw = (p + specificity - 1) / scale
    of_right, of_wrong = raw * of_right, (1 - raw) * of_wrong
    half = z * math.sqrt(noise + raw * of_right + (1 - raw) * of_wrong) / scale
    middle = raw + 2 * z**2 * (of_right - of_wrong)
    # Without pseudo-counts the share itself may lie outside, close to 0 or 1
    return CorrectedShare(own, min(own, _clip(middle - half)), max(own, _clip(middle + half)))


def _estimate(count: int, total: int, pseudo: float) -> tuple[float, float]:
    share = (count + pseudo / 2) / (total + pseudo)
    return share, share * (1 - share) / (total + pseudo)


def _clip(share: float) -> float:
    return min(1.0, max(0.0, share))
