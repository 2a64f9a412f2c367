"""A judge's share of successes, corrected for how often the judge is wrong."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from lightning_modules.evaluation.plan import Prompt
    from lightning_modules.metrics.registry import Columns, Scorer

# Shares of right images, by what gives them: a detector or judge, or answers
CORRECTED = ("success", "vqa_success")
RIGHT, WRONG = "right", "wrong"
FORM = (
    'expected {"sensitivity": [called right, right], "specificity": [called wrong, wrong]}, that '
    "for each of success and vqa_success, or a .csv with columns label and verdict of right and "
    "wrong"
)

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


# --- rates of a user's own judge ------------------------------------------------------------------


class CorrectedScorer:
    """A scorer whose shares of right images say how often they err: ``errors`` by the name of the
    share. Else as the scorer that it holds."""

    def __init__(self, scorer: Scorer, errors: dict[str, ErrorRates]) -> None:
        self.scorer, self.errors = scorer, errors
        self.facts: dict[str, dict[str, Any]] = {}
        self.columns: Columns = {}

    def add(self, prompts: Sequence[Prompt], images: Tensor, names: Sequence[str]) -> Columns:
        """As `Scorer`."""
        return self.scorer.add(prompts, images, names)

    def finish(self) -> dict[str, float]:
        """As `Scorer`."""
        numbers = self.scorer.finish()
        self.facts, self.columns = self.scorer.facts, getattr(self.scorer, "columns", {})
        for key, facts in self.facts.items():
            for name, errors in self.errors.items():
                if key == name or key.startswith(f"{name}_"):
                    facts["errors"] = {kind: list(of) for kind, of in errors._asdict().items()}
        return numbers


def read_rates(path: Path, measured: Sequence[str] = CORRECTED) -> dict[str, ErrorRates]:
    """The error rates in a file, for each of the shares ``measured`` that they are of: rates of one
    judge are of the only one that measures. Raises ValueError or FileNotFoundError that names the
    file."""
    if not path.is_file():
        raise FileNotFoundError(f"evaluation.judge_errors={path}: no such file; {FORM}")
    if path.suffix.lower() == ".csv":
        content: Any = _count_labels(path)
    else:
        try:
            content = json.loads(path.read_text(encoding="utf-8-sig"))
        except ValueError as error:
            raise ValueError(f"evaluation.judge_errors={path}: no JSON ({error}); {FORM}") from None
    if isinstance(content, dict) and "sensitivity" in content:
        shares = [key for key in CORRECTED if key in measured]
        if len(shares) > 1:
            raise ValueError(
                f"evaluation.judge_errors={path}: success is measured by evaluation.detector and "
                f"by evaluation.vqa, the rates are of one of them: {FORM}"
            )
        content = dict.fromkeys(shares, content)
    if not isinstance(content, dict) or (content.keys() - set(CORRECTED)):
        raise ValueError(f"evaluation.judge_errors={path}: {str(content)[:60]}; {FORM}")
    return {key: _check_rates(path, given) for key, given in content.items() if key in measured}


def _check_rates(path: Path, given: Any) -> ErrorRates:
    fields = ErrorRates._fields
    pairs: list[Any] = [given.get(key) for key in fields] if isinstance(given, dict) else []
    good = len(pairs) == 2 and all(
        isinstance(pair, list) and len(pair) == 2 and all(type(one) is int for one in pair)
        for pair in pairs
    )
    if not good or not all(0 <= pair[0] <= pair[1] and pair[1] > 0 for pair in pairs):
        raise ValueError(f"evaluation.judge_errors={path}: {str(given)[:80]}; {FORM}")
    errors = ErrorRates(*((pair[0], pair[1]) for pair in pairs))
    correct_share((1, 2), errors)  # Raises for one no better than chance
    return errors


def _count_labels(path: Path) -> dict[str, list[int]]:
    counts = {RIGHT: [0, 0], WRONG: [0, 0]}
    with open(path, encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), 2):
            label, verdict = ((row.get(key) or "").strip() for key in ("label", "verdict"))
            if label not in counts or verdict not in counts:
                raise ValueError(
                    f"evaluation.judge_errors={path}:{number}: label {label!r}, verdict "
                    f"{verdict!r}; {FORM}"
                )
            counts[label][0] += label == verdict
            counts[label][1] += 1
    return {"sensitivity": counts[RIGHT], "specificity": counts[WRONG]}
