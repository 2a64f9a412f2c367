"""Which mask encoder, trained or fixed? And must a mask token know its words and stay inside its
mask?

    python -m sweeps.mask_encoder                                              # the embedded world, on two CPU cores
    python -m sweeps.mask_encoder seeds=5                                      # two more seeds for the same cells
    python -m sweeps.mask_encoder trainer.accelerator=gpu output=/data/runs    # on a GPU, kept elsewhere
"""

from sweeps.masks_shared import (
    CENTRE,
    MASK_IOU,
    MASK_IOU_HELDOUT,
    OTHERS,
    PUBLISHED,
    STEERED,
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
        Factor("method.masks.mask_scope", ["inside", "everywhere"], label="Reach"),
    ],
    baseline={
        "method.masks.encoder": "per_mask",
        "method.masks.trained": True,
        "method.masks.mask_scope": "inside",
    },
    metrics=[MASK_IOU, MASK_IOU_HELDOUT, CENTRE, SUCCESS, SUCCESS_HELDOUT, *OTHERS],
    headline="mask_iou",
    published=PUBLISHED,
    preset=STEERED,
    without=[
        # mixed into the text there is no mask token whose reach could be limited
        {"method.masks.encoder": "merged", "method.masks.mask_scope": "inside"},
        # fixed is the released code's single linear layer
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
    from sweeps.run import main

    raise SystemExit(main(SWEEP))
