"""Does the subject turn with its mask?

Run it: ``python -m sweeps.viewpoint``.

All cells share one adapter a seed. Shapes stand upright in every training image: turned ones are
new to the model.
"""

from sweeps.presets import (
    CENTRE,
    FOUND,
    IDENTITY,
    IMAGE_QUALITY,
    MASK_IOU,
    MASK_TOKENS,
    PUBLISHED_MCGM,
    SUCCESS,
    TURN,
)
from sweeps.sweep import Factor, Sweep

SWEEP = Sweep(
    name="viewpoint",
    question="Does the subject turn with its mask?",
    origin=(
        "MCGM (arXiv 2410.00483), section 5 and Fig. 13: a side-view mask gives the right "
        "action in front view"
    ),
    factors=[
        Factor(
            "evaluation.turn",
            [0.0, 45.0, 90.0, 180.0],
            when="evaluate",
            label="Mask turned by",
            unit="°",
        ),
        Factor("evaluation.mirror", [False, True], when="evaluate", label="Mirrored"),
    ],
    control={"evaluation.turn": 0.0, "evaluation.mirror": False},
    metrics=[TURN, MASK_IOU, CENTRE, SUCCESS, FOUND, IDENTITY, *IMAGE_QUALITY],
    headline="mask_iou",
    published=PUBLISHED_MCGM,
    preset=MASK_TOKENS | {"evaluation.prompts": 20},
)

if __name__ == "__main__":
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
