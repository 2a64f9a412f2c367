"""How do text and mask share control?

Run it: ``python -m sweeps.text_mask_balance``.

All cells share one adapter a seed. The kind of subject is the split: combinations that the backbone
has seen, and held-out ones.
"""

from sweeps.presets import (
    CENTRE,
    IMAGE_QUALITY,
    MASK_IOU,
    MASK_IOU_HELDOUT,
    MASK_TOKENS,
    PUBLISHED_MCGM,
    SUCCESS,
    SUCCESS_HELDOUT,
)
from sweeps.sweep import Factor, Sweep

SWEEP = Sweep(
    name="text_mask_balance",
    question="How do text and mask share control?",
    origin="MCGM (arXiv 2410.00483): guidance 7.5 throughout; no strength of the mask is discussed",
    factors=[
        Factor("evaluation.guidance", [1.5, 3.0, 5.0, 7.5], when="evaluate", label="Guidance"),
        Factor(
            "method.masks.token_scale",
            [0.0, 12.0, 24.0, 48.0],
            when="evaluate",
            label="Mask strength",
            unit="words",
        ),
    ],
    control={"evaluation.guidance": 3.0, "method.masks.token_scale": 24.0},
    metrics=[MASK_IOU, MASK_IOU_HELDOUT, SUCCESS, SUCCESS_HELDOUT, CENTRE, *IMAGE_QUALITY],
    headline="mask_iou",
    published=PUBLISHED_MCGM,
    preset=MASK_TOKENS | {"evaluation.prompts": 20},
)

if __name__ == "__main__":
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
