"""Which mask encoder, trained or fixed? And must a mask token know its words and stay inside its
mask?

Run it: ``python -m sweeps.mask_encoder``.
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
    name="mask_encoder",
    question="Which mask encoder, trained or fixed, and how far may its tokens reach?",
    origin=(
        "MCGM (arXiv 2410.00483), section 3.1; released code: one linear layer, in no "
        "optimiser, tokens that act everywhere"
    ),
    factors=[
        Factor("method.masks.encoder", ["per_mask", "union", "merged", "conv"], label="Encoder"),
        Factor("method.masks.trained", [True, False], label="Trained"),
        Factor("method.masks.mask_scope", ["inside", "everywhere"], label="Scope"),
    ],
    control={
        "method.masks.encoder": "per_mask",
        "method.masks.trained": True,
        "method.masks.mask_scope": "inside",
    },
    metrics=[MASK_IOU, MASK_IOU_HELDOUT, CENTRE, SUCCESS, SUCCESS_HELDOUT, *IMAGE_QUALITY],
    headline="mask_iou",
    published=PUBLISHED_MCGM,
    preset=MASK_TOKENS,
    without=[
        # Mixed into the text there is no mask token whose reach could be limited
        {"method.masks.encoder": "merged", "method.masks.mask_scope": "inside"},
        # Fixed is the released code's single linear layer
        *(
            {"method.masks.encoder": kind, "method.masks.trained": False}
            for kind in ("union", "merged", "conv")
        ),
    ],
    brief=[
        "encoder=union, trained=true, mask_scope=inside",
        "encoder=conv, trained=true, mask_scope=inside",
        "encoder=per_mask, trained=false, mask_scope=inside",
        "encoder=per_mask, trained=true, mask_scope=everywhere",
        "encoder=merged, trained=true, mask_scope=everywhere",
        "encoder=per_mask, trained=false, mask_scope=everywhere",
    ],
)

if __name__ == "__main__":
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
