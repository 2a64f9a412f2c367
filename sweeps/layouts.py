"""What is a layout worth, and who uses it best?

Run it: ``python -m sweeps.layouts``.

Every row but the first two knows where each object of the prompt should be. Guidance and mask
tokens are given the same masks; oracle gates take a layout that fits the noise of the image.
"""

from typing import Any

from sweeps.presets import (
    COSTS,
    IMAGE_QUALITY,
    MASK_IOU,
    MASK_IOU_HELDOUT,
    MASK_SUPERVISED,
    MASK_TOKENS,
    PUBLISHED_MCGM,
    SUCCESS,
    SUCCESS_HELDOUT,
    training_settings,
)
from sweeps.sweep import Factor, Sweep

MCGM = training_settings(MASK_TOKENS)
SETTINGS: dict[str, dict[str, Any]] = {
    "no layout": {"method": "untouched"},
    "mask tokens, blank": {**MCGM, "evaluation.masks": "blank"},
    "mask tokens": MCGM,
    "BoxDiff": {"method": "boxdiff"},
    "bounded attention": {"method": "bounded_attention"},
    "layout energy": {
        "method": "attention_guidance",
        "method.attention_guidance.losses": {"layout": 30.0},
    },
    "oracle gates": {
        **training_settings(MASK_SUPERVISED),
        "method.gate.supervision": "oracle",
    },
}

SWEEP = Sweep(
    name="layouts",
    question="What is a layout worth, and who uses it best?",
    origin=(
        "MCGM (arXiv 2410.00483) against BoxDiff (2307.10816), training-free layout control "
        "(2304.03373) and bounded attention (2403.16990), which no paper compares"
    ),
    factors=[Factor("layout", list(SETTINGS), label="Layout", settings=SETTINGS)],
    control={"layout": "no layout"},
    metrics=[SUCCESS, SUCCESS_HELDOUT, MASK_IOU, MASK_IOU_HELDOUT, *IMAGE_QUALITY, *COSTS],
    headline="success",
    published=PUBLISHED_MCGM,
    preset={"evaluation.follow_masks": True, "evaluation.costs": True, "evaluation.prompts": 32},
)

if __name__ == "__main__":
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
