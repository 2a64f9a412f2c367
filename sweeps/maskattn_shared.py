"""What the sweeps of MaskAttn have in common: the settings that they start from, and what they
measure."""

from __future__ import annotations

from sweeps.sweep import Metric

__all__ = [
    "DETAILS",
    "GATES_REOPENED",
    "GATES_SHUT",
    "GATE_MASK_IOU",
    "HEADLINES",
    "OVERHEAD",
    "PAPER",
    "PARAMETERS",
    "PUBLISHED",
    "TAUGHT",
]

# the paper's recipe: gates trained on the denoising loss alone
PAPER = {"method": "maskattn"}
# In the embedded world that loss leaves gates open, or does damage: a setting of theirs could not
# matter. Where a sweep asks about gates that know something, they are taught the objects' masks.
# `method.gate.supervision=none method.gate.denoising_weight=1` asks the same of PAPER.
TAUGHT = PAPER | {
    "method.gate.supervision": "masks",
    "method.gate.denoising_weight": 0.0,
    "method.gate.sharing": "layer",
    "method.gate.stage": "all",
    "trainer.steps": 60,
}

# in every sweep, in this order: HEADLINES, what the sweep adds, DETAILS
HEADLINES = (
    Metric("success", "Success", "higher", "share"),
    Metric("success_heldout", "Success, held-out", "higher", "share"),
    Metric("precision", "Precision", "higher", "share"),
    Metric("recall", "Recall", "higher", "share"),
    Metric("fid", "FID", "lower"),
    Metric("gate_closed", "Gates closed", "none", "share"),
)
DETAILS = (
    Metric("score", "Judge's score", "higher"),
    Metric("object_rate", "Objects right", "higher", "share"),
    Metric("color_rate", "Colours right", "higher", "share"),
    Metric("relation_rate", "Relations right", "higher", "share"),
    Metric("extra_objects", "Extra objects", "lower", "per image"),
)

# what the untouched backbone has none of
OVERHEAD = Metric("overhead", "UNet time", "lower", "× without gates")
PARAMETERS = Metric("parameters", "Trained parameters", "lower")
# Of those closed at the start of training
GATES_REOPENED = Metric("gates_reopened", "Gates re-opened", "none", "share")
GATES_SHUT = Metric("gates_shut", "Gates shut", "none", "share")  # of those open at the start
GATE_MASK_IOU = Metric("gate_mask_iou", "Gate–mask IoU", "higher")

_COCO = {
    "data": ("COCO val2014 (named by a secondary source)"),
    "backbone": "SDXL 1.0",
    "n": "not stated",
    "source": "arXiv 2509.15357v1",
}
# With the paper's choices; no other row of its tables, and none of its ablations, could be read
PUBLISHED = (
    {"what": "SDXL", "metric": "FID", "value": "25.77", **_COCO},
    {"what": "MaskAttn-SDXL", "metric": "FID", "value": "24.57", **_COCO},
    {"what": "SDXL", "metric": "CLIP score", "value": "31.53", **_COCO},
    {"what": "MaskAttn-SDXL", "metric": "CLIP score", "value": "31.75", **_COCO},
    {"what": "MaskAttn-SDXL", "metric": "Precision", "value": "+4.0 % against SDXL", **_COCO},
    {"what": "MaskAttn-SDXL", "metric": "Recall", "value": "+1.54 % against SDXL", **_COCO},
)
