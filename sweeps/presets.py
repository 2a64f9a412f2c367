"""What several sweeps have in common: the settings that they start from, what they measure, and
what the papers published."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from conf.spec import metrics
from sweeps.sweep import Factor, Metric

_DECLARED = {metric.key: metric for spec in metrics().values() for metric in spec.outputs}


def declared(*keys: str) -> tuple[Metric, ...]:
    """Metrics by the keys that ``conf/metric`` gives them."""
    return tuple(_DECLARED[key] for key in keys)


def of_split(key: str, split: str, words: str) -> Metric:
    """The metric ``key`` of one split, which tables call ``words``."""
    metric = _DECLARED[key]
    return dataclasses.replace(metric, key=f"{key}_{split}", label=f"{metric.label}, {words}")


# Settings

# The paper's recipe: gates trained on the denoising loss alone
MASKATTN: dict[str, Any] = {"method": "maskattn"}
# In the embedded world that loss leaves gates open, or does damage: a setting of theirs could not
# matter. If a sweep asks about gates that know something, they learn from the objects' masks.
# `method.gate.supervision=none method.gate.denoising_weight=1` asks the same of MASKATTN.
MASK_SUPERVISED: dict[str, Any] = {
    **MASKATTN,
    "method.gate.supervision": "masks",
    "method.gate.denoising_weight": 0.0,
    "method.gate.sharing": "layer",
    "method.gate.stage": "all",
    "trainer.steps": 60,
}
# MCGM on captions and instance masks of the embedded world, from which its encoder learns masks
# that no single scene shows
MASK_TOKENS: dict[str, Any] = {
    "method": "mcgm",
    "trainer.steps": 100,
    "trainer.lr": 2e-3,
    "evaluation.follow_masks": True,
    "evaluation.prompts": 32,
}
# One rendered scene of two subjects, the first of a combination that the backbone has not seen;
# each seed has another scene
ONE_SCENE: dict[str, Any] = {
    "method": "break_a_scene",
    "method.weights.trainable": "attn2",
    "method.weights.text_encoder": False,
    "method.subjects.token_lr": 5e-2,
    "method.subjects.prior_images": 16,
    "method.subjects.prior_prompt": "a red circle and a blue square",
    "data": "scene",
    "data.root": "auto",
    "trainer.steps": 120,
    "trainer.batch": 4,
    "trainer.lr": 3e-4,
    "evaluation.splits": ["subjects"],
    "evaluation.prompts": 48,
    "evaluation.follow_masks": True,
}
# Separate-and-Enhance on the captions of the embedded world's training images, without the images
KEY_FINETUNING: dict[str, Any] = {
    "method": "separate_enhance",
    "trainer.steps": 60,
    "trainer.lr": 1.5e-3,
    "evaluation.splits": ["three", "heldout", "one"],
    "evaluation.prompts": 32,
    "evaluation.noise_seeds": 2,
    "evaluation.attention": True,
}
# The backbone's own images of training captions, by the verdicts of a judge that measures nothing
REWARD_FINETUNING: dict[str, Any] = {
    "method": "reward_finetune",
    "trainer.steps": 80,
    "trainer.lr": 1e-3,
}
PREFERENCE_FINETUNING: dict[str, Any] = {**REWARD_FINETUNING, "method": "preference_finetune"}
# The untouched backbone, or with what was trained
CHANGE = Factor(
    "change",
    ["none", "trained"],
    label="Trained change",
    settings={"none": {"method": "untouched"}, "trained": {}},
)


def training_settings(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What a recipe says of the method and its training, without its evaluation."""
    return {k: value for k, value in recipe.items() if k.startswith(("method", "trainer"))}


# Metrics

(SUCCESS,) = declared("success")
SUCCESS_HELDOUT = of_split("success", "heldout", "held-out")
(REWARD,) = declared("reward_judge")
(MASK_IOU,) = declared("mask_iou")
MASK_IOU_HELDOUT = of_split("mask_iou", "heldout", "held-out")
CENTRE, TURN, FOUND, IDENTITY = declared("centre_error", "turn_error", "found", "identity")
COSTS = declared("trained_parameters", "train_seconds", "train_memory", "sampling_time")
# Of gates; the untouched backbone has none of them
OVERHEAD, PARAMETERS = declared("overhead", "parameters")
GATES_REOPENED, GATES_SHUT, GATE_MASK_IOU = declared(
    "gates_reopened", "gates_shut", "gate_mask_iou"
)
# The sweeps of gates have HEADLINES, then what the sweep adds, then DETAILS
HEADLINES = (SUCCESS, SUCCESS_HELDOUT, *declared("precision", "recall", "fid", "gate_closed"))
DETAILS = declared("score", "object_rate", "color_rate", "relation_rate", "extra_objects")
IMAGE_QUALITY = declared("score", "object_rate", "color_rate", "extra_objects", "fid")
MASK_METRICS = (
    *(MASK_IOU, MASK_IOU_HELDOUT, CENTRE, IDENTITY),
    *(SUCCESS, SUCCESS_HELDOUT, FOUND),
    *IMAGE_QUALITY,
)
KEY_METRICS = (
    SUCCESS_HELDOUT,
    of_split("success", "three", "three objects"),
    of_split("success", "one", "single objects"),
    *declared("score", "map_overlap", "map_activation", "fid"),
    *declared("object_rate", "color_rate", "extra_objects"),
)

# Published numbers

Published = tuple[Mapping[str, str], ...]


def _published(
    data: str, backbone: str, n: str, source: str, *rows: tuple[str, str, str]
) -> Published:
    """Rows of (what, metric, value) that were measured alike."""
    common = {"data": data, "backbone": backbone, "n": n, "source": source}
    return tuple(
        {"what": what, "metric": metric, "value": value, **common} for what, metric, value in rows
    )


# With the paper's choices; no other row of its tables, and none of its ablations, could be read
PUBLISHED_MASKATTN = _published(
    "COCO val2014 (named by a secondary source)",
    "SDXL 1.0",
    "not stated",
    "arXiv 2509.15357v1",
    ("SDXL", "FID", "25.77"),
    ("MaskAttn-SDXL", "FID", "24.57"),
    ("SDXL", "CLIP score", "31.53"),
    ("MaskAttn-SDXL", "CLIP score", "31.75"),
    ("MaskAttn-SDXL", "Precision", "+4.0 % against SDXL"),
    ("MaskAttn-SDXL", "Recall", "+1.54 % against SDXL"),
)
# What the paper measures; it has no automatic metric
PUBLISHED_MCGM = _published(
    "images of its own, not described",
    "SD 2.1 (of Break-A-Scene)",
    "82 participants",
    "arXiv 2410.00483, user study",
    ("MCGM preferred over Break-A-Scene", "fits the mask's pose", "91.3 %"),
    ("MCGM, single and multi-concept", "mean Likert score, 1 to 5", "3.8"),
)
# Its automatic scores are points of a plot, which nobody can read as numbers
PUBLISHED_BREAK_A_SCENE = _published(
    "50 scenes of COCO",
    "SD 2.1",
    "1,215 ratings",
    "arXiv 2305.16311, table 4",
    ("Break-A-Scene", "identity, Likert 1 to 5", "3.56 ± 1.27"),
    ("Break-A-Scene", "prompt, Likert 1 to 5", "3.85 ± 1.21"),
    ("DreamBooth with masks", "identity, Likert 1 to 5", "3.97 ± 0.95"),
    ("DreamBooth with masks", "prompt, Likert 1 to 5", "2.37 ± 1.11"),
)
_SIMILARITY, _DETIC = "text similarity of BLIP captions", "success (Detic)"
PUBLISHED_SEPARATE_ENHANCE = _published(
    "276 prompts of Attend-and-Excite",
    "SD 1.4",
    "64 images a prompt",
    "arXiv 2312.06712",
    ("Stable Diffusion", "FID", "32.96"),
    ("Stable Diffusion", _SIMILARITY, "0.742"),
    ("Stable Diffusion", _DETIC, "0.209"),
    ("Separate-and-Enhance, k", "FID", "36.85"),
    ("Separate-and-Enhance, k", _SIMILARITY, "0.809"),
    ("Separate-and-Enhance, k", _DETIC, "0.410"),
    ("enhance alone", _DETIC, "0.374"),
    ("separate alone", "FID", "36.33"),
    ("v in place of k", "FID", "445.01"),
    ("adapted at test time", "FID", "41.74"),
    ("adapted at test time", _SIMILARITY, "0.834"),
    ("adapted at test time", _DETIC, "0.441"),
)
PUBLISHED_LARGE_SCALE = _published(
    "200 prompts of 220 concepts",
    "SD 1.4",
    "64 images a prompt",
    "arXiv 2312.06712",
    ("Stable Diffusion", _DETIC, "about 0.21 in all three"),
    ("trained on 200 concepts, prompts seen–seen", _DETIC, "0.299"),
    ("prompts seen–unseen", _DETIC, "0.305"),
    ("prompts unseen–unseen", _DETIC, "0.294"),
)
