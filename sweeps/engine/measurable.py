"""Which of a sweep's metrics its evaluation can measure, and which it measures besides: data of one's own have no judge."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from conf.schema import Evaluation
from sweeps.sweep import Metric, Sweep

JUDGED = ("score", "object_rate", "color_rate", "shape_rate", "relation_rate", "extra_objects")
FOLLOWED = ("mask_iou", "centre_error", "turn_error", "identity", "found")
COSTS = ("trained_parameters", "train_seconds", "train_memory", "sampling_time")
DISTANCES = (
    Metric("fid", "FID", "lower"),
    Metric("kid", "KID", "lower"),
    Metric("precision", "Precision", "higher", "share"),
    Metric("recall", "Recall", "higher", "share"),
)
COMPOSED = (
    Metric("success", "Success", "higher", "share"),
    Metric("overall", "GenEval, mean of tasks", "higher", "share"),
    Metric("spatial", "T2I-CompBench spatial", "higher"),
)
ALIGNED = (
    Metric("clip_score", "CLIP score", "higher"),
    Metric("clip_score_weakest_part", "CLIP score, weakest part", "higher"),
    Metric("caption_similarity", "Caption similarity", "higher"),
    Metric("blip_itc", "BLIP image–text", "higher"),
    Metric("blip_itc_weakest_part", "BLIP image–text, weakest part", "higher"),
    Metric("blip_itm", "BLIP match", "higher"),
)


def measurable(sweep: Sweep, evaluation: Evaluation, headline: str | None = None) -> Sweep:
    """The sweep with the metrics that ``evaluation`` gives: without those of a judge, of real images or of masks where there are none, with
    those of the models that it names. ``headline`` is the metric of the answer, in the place of the sweep's own.

    Raises ValueError when the answer's metric is not among them.
    """
    absent: list[Callable[[str], bool]] = []
    if evaluation.detector != "judge":
        absent.append(lambda key: key in JUDGED)
        success = {f"success_{split}" for split in evaluation.splits} | {"success"}
        absent.append(lambda key: key.startswith("success") and (evaluation.detector == "none" or key not in success))
    if evaluation.extractor == "none":
        absent.append(lambda key: key in {metric.key for metric in DISTANCES})
    if not evaluation.follow_masks:
        absent.append(lambda key: key in FOLLOWED or key.startswith("mask_iou"))
    if not evaluation.costs:
        absent.append(lambda key: key in COSTS)
    kept = [metric for metric in sweep.metrics if not any(lacks(metric.key) for lacks in absent)]
    more = [*(DISTANCES if evaluation.extractor not in ("none", "judge") else ()), *(ALIGNED if evaluation.aligners else ())]
    more += COMPOSED if evaluation.detector not in ("none", "judge") else ()
    kept += [metric for metric in more if metric.key not in {known.key for known in kept}]
    chosen = headline or sweep.headline
    if chosen not in {metric.key for metric in kept}:
        told = ", ".join(metric.key for metric in kept if metric.better != "none") or "nothing: name a detector, an extractor or aligners"
        raise ValueError(f"headline={chosen}: this evaluation does not measure it; what it measures: {told}")
    if chosen in {metric.key for metric in ALIGNED} and chosen not in (given := _given_by(evaluation.aligners)):
        raise ValueError(f"headline={chosen}: none of evaluation.aligners gives it; what they give: {', '.join(given) or 'nothing'}")
    return dataclasses.replace(sweep, metrics=tuple(kept), headline=chosen)


def _given_by(aligners: Sequence[str]) -> list[str]:
    """The keys of what models give, by the kinds that their config.json names; asked only when the answer depends on it."""
    from lightning_modules.metrics.vision_language import architecture_of

    kinds = {architecture_of(name) for name in aligners}
    found = ["clip_score", "clip_score_weakest_part"] if "CLIPModel" in kinds else []
    found += ["blip_itc", "blip_itc_weakest_part", "blip_itm"] if "BlipForImageTextRetrieval" in kinds else []
    return found + (["caption_similarity"] if "BlipForConditionalGeneration" in kinds else [])


def described(evaluation: Evaluation) -> str:
    """What is drawn and who looks at it, in words; models by their names, not by where they are kept."""
    e, per_noise = evaluation, len(evaluation.splits) * evaluation.prompts

    def named(model: str) -> str:
        return Path(model).name if Path(model).exists() else model

    drawn = f"{e.noise_seeds} noise each, {e.steps} sampler steps, guidance {e.guidance:g}"
    parts = [f"{e.prompts} prompts of each split ({', '.join(e.splits)}), {drawn}"]
    if e.detector != "none":
        parts.append(f"success by {named(e.detector)}")
    if e.extractor != "none":
        sizes = f"N = {per_noise * e.noise_seeds} generated against {per_noise} real images"
        parts.append(f"FID, precision and recall (k = {e.precision_recall_k}, ≤) on features of {named(e.extractor)}, {sizes}")
    parts += [f"images against prompts by {', '.join(map(named, e.aligners))}"] if e.aligners else []
    return "; ".join([*parts, "noise and prompts the same for every cell of a seed"])
