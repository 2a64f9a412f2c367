"""Which of a sweep's metrics its evaluation measures, and which more: a data set of one's own
has no judge."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from conf import spec
from conf.describe import nearest, show_count
from conf.guiders import is_own
from conf.schema import Evaluation
from sweeps.sweep import Metric, Sweep

__all__ = ["describe_evaluation", "measurable"]


def measurable(
    sweep: Sweep,
    evaluation: Evaluation,
    headline: str | None = None,
    delta: float | None = None,
) -> Sweep:
    """The sweep with the metrics that ``evaluation`` gives: without declared ones that it does not
    measure, with those of the models and the further metrics that it names. ``headline`` replaces
    the sweep's own, ``delta`` the difference in it that matters.

    Raises ValueError if the headline is not among them.
    """
    declared = _values(spec.metrics().values(), evaluation)
    families = {key for known in spec.metrics().values() for key in known.by_split}
    measured = _values(spec.measured_metrics(evaluation).values(), evaluation)

    def is_measured(key: str) -> bool:
        known = key in declared or any(key.startswith(f"{family}_") for family in families)
        return key in measured or not known

    kept = [metric for metric in sweep.metrics if is_measured(metric.key)]
    keys = {metric.key for metric in kept}
    kept += [metric for key, metric in _added(evaluation).items() if key not in keys]
    headline = headline or sweep.headline
    if headline not in {metric.key for metric in kept}:
        comparable = [metric.key for metric in kept if metric.better != "none"]
        near = "" if headline in declared else nearest(headline, comparable)
        nothing = "nothing: name a detector, an extractor or aligners"
        raise ValueError(
            f"headline={headline}: this evaluation does not measure it; "
            f"what it measures: {', '.join(comparable) or nothing}{near}"
        )
    if headline in {metric.key for metric in spec.metrics()["alignment"].outputs}:
        given = _given_by(evaluation.aligners)
        if headline not in given:
            raise ValueError(
                f"headline={headline}: none of evaluation.aligners gives it; "
                f"what they give: {', '.join(given) or 'nothing'}"
            )
    if delta is not None:
        kept = [dataclasses.replace(m, delta=delta) if m.key == headline else m for m in kept]
    return dataclasses.replace(sweep, metrics=kept, headline=headline)


def _added(evaluation: Evaluation) -> dict[str, Metric]:
    """What other models than the judge measure, and what ``evaluation.metrics`` names."""
    judges: dict[str, Any] = {
        key: "none" for key in ("detector", "extractor") if getattr(evaluation, key) == "judge"
    }
    by_models = spec.measured_metrics(dataclasses.replace(evaluation, **judges))
    no_models = dataclasses.replace(
        evaluation, detector="none", extractor="none", vqa="none", aligners=[]
    )
    return {
        metric.key: metric
        for name, known in by_models.items()
        if name in evaluation.metrics or not known.measured(no_models)
        for metric in known.outputs
    }


def _values(specs: Iterable[spec.MetricSpec], evaluation: Evaluation) -> set[str]:
    """Keys of all values that some metrics give."""
    keys = set()
    for known in specs:
        keys |= {metric.key for metric in known.outputs}
        keys |= {f"{key}_{split}" for key in known.by_split for split in evaluation.splits}
    return keys


def _given_by(aligners: Sequence[str]) -> list[str]:
    """The keys of what models give, by the kinds that their config.json names."""
    from lightning_modules.metrics.vision_language import architecture_of

    kinds = {architecture_of(name) for name in aligners}
    keys = []
    if "CLIPModel" in kinds:
        keys += ["clip_score", "clip_score_weakest_part"]
    if "SiglipModel" in kinds:
        keys += ["siglip_score", "siglip_score_weakest_part"]
    if "BlipForImageTextRetrieval" in kinds:
        keys += ["blip_itc", "blip_itc_weakest_part", "blip_itm"]
    if "BlipForConditionalGeneration" in kinds:
        keys += ["caption_similarity"]
    return keys


def describe_evaluation(evaluation: Evaluation, varied: Collection[str] = ()) -> str:
    """What is drawn and who looks at it, in words; models by their names, not by their folders.
    ``varied``: the settings in which cells differ."""

    def name(model: str) -> str:
        return Path(model).name if Path(model).exists() else model

    e = evaluation
    splits = f"each split ({', '.join(e.splits)})" if e.splits else "every set"
    noises = f"{e.noise_seeds} noise each" if e.noise_seeds else "as many noises as are published"
    parts = [
        f"{'all prompts' if e.prompts is None else show_count(e.prompts, 'prompt')} of {splits}, "
        f"{noises}, "
        f"{show_count(e.steps, 'sampler step')}, guidance {e.guidance:g}"
        f"{f' by {e.guider}' if is_own(e) else ''}"
        f"{'' if e.precision == '32-true' else f', precision {e.precision}'}"
    ]
    if e.detector != "none":
        parts.append(f"success by {name(e.detector)}")
    if e.extractor != "none":
        counts = "generated images against the real ones of the same prompts"
        if e.prompts is not None and e.splits:
            real = len(e.splits) * e.prompts
            images = show_count(real, "real image")
            counts = f"N = {real * (e.noise_seeds or 1)} generated against {images}"
        parts.append(
            f"FID, precision and recall (k = {e.precision_recall_k}, ≤) on features of "
            f"{name(e.extractor)}, {counts}"
        )
    if e.aligners:
        parts.append(f"images against prompts by {', '.join(map(name, e.aligners))}")
    pairs = {"sampling_seed": "noise", "prompt_seed": "prompts"}
    if same := [name for key, name in pairs.items() if key not in varied]:
        parts.append(f"{' and '.join(same)} the same for every cell of a seed")
    return "; ".join(parts)
