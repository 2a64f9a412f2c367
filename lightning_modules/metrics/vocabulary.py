"""Names by which prompts and detectors mean the same class or the same colour."""

from __future__ import annotations

# COCO's own name of what other vocabularies write otherwise: Pascal VOC's, which some COCO
# checkpoints carry, GenEval's, and spellings.
COCO_NAMES = {
    "aeroplane": "airplane",
    "motorbike": "motorcycle",
    "sofa": "couch",
    "pottedplant": "potted plant",
    "diningtable": "dining table",
    "tvmonitor": "tv",
    "television": "tv",
    "computer mouse": "mouse",
    "tv remote": "remote",
    "computer keyboard": "keyboard",
    "cellphone": "cell phone",
    "doughnut": "donut",
    "hair dryer": "hair drier",
}
# What GenEval says of a class in a sentence
SPOKEN = {"mouse": "computer mouse", "remote": "tv remote", "keyboard": "computer keyboard"}


def class_name(label: str) -> str:
    """The label in lower case, with blanks for underscores, and by COCO's name where it has another
    one."""
    name = " ".join(label.lower().replace("_", " ").split())
    return COCO_NAMES.get(name, name)


def color_name(color: str) -> str:
    """The colour in lower case; grey is gray."""
    name = color.strip().lower()
    return "gray" if name == "grey" else name
