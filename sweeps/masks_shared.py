"""What the sweeps of MCGM and Break-A-Scene have in common: the settings that they start from, and
what they measure."""

from __future__ import annotations

from sweeps.sweep import Metric

__all__ = [
    "BREAK_A_SCENE",
    "CENTRE",
    "FOUND",
    "IDENTITY",
    "MASK_IOU",
    "MASK_IOU_HELDOUT",
    "OTHERS",
    "PUBLISHED",
    "SCENE",
    "STEERED",
    "STEERING",
    "SUCCESS",
    "SUCCESS_HELDOUT",
    "TURN",
]

# MCGM on captions and instance masks of the embedded world, which lets its encoder learn masks that
# no single scene shows
STEERED = {
    "method": "mcgm",
    "trainer.steps": 100,
    "trainer.lr": 2e-3,
    "evaluation.follow_masks": True,
    "evaluation.prompts": 32,
}
# one rendered scene of two subjects, the first of a combination that the backbone has not seen;
# each seed has another scene
SCENE = {
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

MASK_IOU = Metric("mask_iou", "Mask IoU", "higher")
MASK_IOU_HELDOUT = Metric("mask_iou_heldout", "Mask IoU, held-out", "higher")
CENTRE = Metric("centre_error", "Centre error", "lower", "pixels")
TURN = Metric("turn_error", "Turn error", "lower", "degrees")
FOUND = Metric("found", "Found", "higher", "share")
IDENTITY = Metric("identity", "Identity", "higher", "cosine")
SUCCESS = Metric("success", "Success", "higher", "share")
SUCCESS_HELDOUT = Metric("success_heldout", "Success, held-out", "higher", "share")
OTHERS = (
    Metric("score", "Judge's score", "higher"),
    Metric("object_rate", "Objects right", "higher", "share"),
    Metric("color_rate", "Colours right", "higher", "share"),
    Metric("extra_objects", "Extra objects", "lower", "per image"),
    Metric("fid", "FID", "lower"),
)
STEERING = (MASK_IOU, MASK_IOU_HELDOUT, CENTRE, IDENTITY, SUCCESS, SUCCESS_HELDOUT, FOUND, *OTHERS)

_STUDY = {
    "data": "images of its own, not described",
    "backbone": "SD 2.1 (of Break-A-Scene)",
    "n": "82 participants",
    "source": "arXiv 2410.00483, user study",
}
PUBLISHED = (  # what the paper measures; it has no automatic metric
    {
        "what": "MCGM preferred over Break-A-Scene",
        "metric": "fits the mask's pose",
        "value": "91.3 %",
        **_STUDY,
    },
    {
        "what": "MCGM, single and multi-concept",
        "metric": "mean Likert score, 1 to 5",
        "value": "3.8",
        **_STUDY,
    },
)

_SCENES = {
    "data": "50 scenes of COCO",
    "backbone": "SD 2.1",
    "n": "1,215 ratings",
    "source": "arXiv 2305.16311, table 4",
}
BREAK_A_SCENE = (  # its automatic scores are points of a plot, which nobody can read as numbers
    {
        "what": "Break-A-Scene",
        "metric": "identity, Likert 1 to 5",
        "value": "3.56 ± 1.27",
        **_SCENES,
    },
    {"what": "Break-A-Scene", "metric": "prompt, Likert 1 to 5", "value": "3.85 ± 1.21", **_SCENES},
    {
        "what": "DreamBooth with masks",
        "metric": "identity, Likert 1 to 5",
        "value": "3.97 ± 0.95",
        **_SCENES,
    },
    {
        "what": "DreamBooth with masks",
        "metric": "prompt, Likert 1 to 5",
        "value": "2.37 ± 1.11",
        **_SCENES,
    },
)
