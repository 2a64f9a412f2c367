"""Which factors of a search the best candidates differ in from the others: PED-ANOVA (Watanabe et
al. 2023, arXiv 2304.10255; with factors that not all candidates have, arXiv 2601.20800)."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial

__all__ = ["FEWEST", "measure_importance"]

FEWEST = 10  # Candidates; with fewer the best ones are too few to have a distribution
BEST, FEWEST_BEST = 0.1, 5  # Share of the candidates that count as the best, and how many at least
SHUFFLES = 199


def measure_importance(study: optuna.Study, objectives: Sequence[str]) -> dict[str, Any]:
    """What a report needs to know of the measured candidates of ``study``, the control among them:
    how many they are ("candidates"), and for each of its "objectives" the "metric", how many count
    as the "best" and, of each of "factors", its "key", "share" of all importance, the number of
    "candidates" that have it, and "p": how often values shuffled among the candidates give it as
    much, for all factors at once (Bonferroni). "why" it cannot be said, else empty.
    """
    trials = study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE])
    parts = []
    for number, metric in enumerate(objectives):
        lower = study.directions[number] == optuna.study.StudyDirection.MINIMIZE
        losses = [trial.values[number] * (1 if lower else -1) for trial in trials]
        parts.append({"metric": metric} | _measure(trials, losses))
    return {"candidates": len(trials), "objectives": parts}


def _measure(trials: Sequence[FrozenTrial], losses: Sequence[float]) -> dict[str, Any]:
    """Of one objective; small ``losses`` are good."""
    count, best = len(trials), max(math.ceil(BEST * len(trials)), FEWEST_BEST)
    found: dict[str, Any] = {"best": best, "factors": [], "why": ""}
    if count < FEWEST:
        return found | {"why": f"{count} measured, and it takes {FEWEST}"}
    # As good as the last of the best is as good as they are
    found["best"] = sum(loss <= sorted(losses)[best - 1] for loss in losses)
    if found["best"] > count / 2:
        return found | {"why": f"{found['best']} of {count} are the best alike"}
    copy = optuna.create_study()
    copy.add_trials(
        optuna.trial.create_trial(params=t.params, distributions=t.distributions, value=0.0)
        for t in trials
    )
    observed = _divergences(copy, losses, best / count)
    total = sum(observed.values())
    if not total:
        return found | {"why": "the best have the same levels as all"}
    draw, shuffled = random.Random(0), list(losses)
    reached = dict.fromkeys(observed, 0)
    for _ in range(SHUFFLES):
        draw.shuffle(shuffled)
        for key, value in _divergences(copy, shuffled, best / count).items():
            reached[key] += value >= observed[key]
    found["factors"] = [
        {
            "key": key,
            "share": round(value / total, 4),
            "p": round(min(len(observed) * (reached[key] + 1) / (SHUFFLES + 1), 1.0), 4),
            "candidates": sum(key in trial.params for trial in trials),
        }
        for key, value in sorted(observed.items(), key=lambda pair: (-pair[1], pair[0]))
    ]
    return found


def _divergences(study: optuna.Study, losses: Sequence[float], share: float) -> dict[str, float]:
    """PED-ANOVA of the trials of ``study`` as if these were their values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # That shares are not made to add up is experimental
        return get_param_importances(
            study,
            evaluator=PedAnovaImportanceEvaluator(target_quantile=share),
            target=lambda trial: losses[trial.number],
            normalize=False,
        )
