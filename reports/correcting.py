"""Shares of right images beside what they would be without the detector's errors.

Where a metric says in its facts how often what measured it is wrong (``errors``: of images that
were labelled by looking, [called right, right] as ``sensitivity`` and [called wrong, wrong] as
``specificity``), each of its levels has a corrected share. Verdicts go by the raw ones.
"""

from __future__ import annotations

import math

from reports import prose
from reports.per_image import metric_values
from reports.results import ReportedMetric, SweepResults
from reports.statistics import CorrectedShare, ErrorRates, correct_counts

__all__ = [
    "ERRORS",
    "correct_cells",
    "explain_correction",
    "read_errors",
    "show_corrected",
    "show_mean",
]

ERRORS = "errors"  # Of a metric's facts


def read_errors(results: SweepResults, metric: ReportedMetric) -> ErrorRates | None:
    """Those that the trial measured last knows; None where it knows none, and of what is no plain
    share."""
    trials = [trial for _, trial in results.trials() if metric.key in trial.metrics]
    if metric.unit != "share" or metric.weight or not trials:
        return None
    last = max(trials, key=lambda trial: trial.measuring.of_value(metric.key)[1])
    try:
        errors = last.facts[metric.key][ERRORS]
        rates = ErrorRates(tuple(errors["sensitivity"]), tuple(errors["specificity"]))
        return rates if all(0 <= count <= total > 0 for count, total in rates) else None
    except (KeyError, TypeError, ValueError):
        return None


def correct_cells(results: SweepResults, metric: ReportedMetric) -> dict[str, CorrectedShare]:
    """Cell -> its corrected share over all images, with a 95 % interval. Without cells of
    whose value the images are not known, and empty without error rates that say something."""
    errors = read_errors(results, metric)
    found: dict[str, CorrectedShare] = {}
    if errors is None or errors.informative <= 0:
        return found
    for cell in results.cells:
        values: list[float] = []
        for seed, logged in cell.per_seed(metric.key).items():
            samples = cell.trials[seed].samples
            own = [*metric_values(samples, metric).values()] if samples else []
            if not own or not math.isclose(math.fsum(own) / len(own), logged, abs_tol=1e-6):
                break  # The metric is not of these images
            values += own
        else:
            if values:
                right = round(math.fsum(values))
                found[cell.name] = correct_counts(right, len(values), errors, 0.95)
    return found


def show_corrected(corrected: CorrectedShare | None, digits: int, between: str = " ") -> str:
    """0.412 [0.350, 0.470]."""
    if corrected is None:
        return prose.DASH
    interval = prose.show_interval(corrected, digits, prose.show)
    return f"{prose.show(corrected.share, digits)}{between}{interval}"


def show_mean(mean: float, digits: int, errors: ErrorRates | None) -> str:
    """A mean, and below it what it corrects to."""
    text = prose.show(mean, digits)
    if errors is None or errors.informative <= 0:
        return text
    return f"{text}\ncorrected {prose.show(errors.correct(mean), digits)}"


def explain_correction(results: SweepResults) -> str:
    """What corrected shares are, and how a difference scales; empty where there are none."""
    metric = next((m for m in results.metrics if read_errors(results, m)), None)
    errors = metric and read_errors(results, metric)
    if not errors:
        return ""
    (called, right), (refused, wrong) = errors
    looked = (
        f"{prose.count(right + wrong, 'image')} were labelled by looking: of {right} that are "
        f"right the detector calls {called} right (sensitivity {called / right:.3f}), of {wrong} "
        f"that are wrong {refused} wrong (specificity {refused / wrong:.3f})"
    )
    scale = f"{errors.informative:.3f}"
    if errors.informative <= 0:
        return f"No share is corrected: {looked}, which says nothing."
    return (
        f"Corrected shares: {looked}. A share p that it calls right corrects to (p + specificity − "
        f"1) / (sensitivity + specificity − 1) (Rogan and Gladen), with Lang and Reiczigel's 95 % "
        "interval of images and labels, all taken as independent, so that over seeds and prompts "
        "it is too narrow. This supposes that the detector errs as often in every cell. Verdicts "
        "go by raw differences, which errors make smaller: corrected difference = raw difference / "
        f"{scale}, its interval likewise (apart from the scatter of the labels)."
    )
