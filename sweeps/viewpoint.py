"""Does the subject turn with its mask?

    python -m sweeps.viewpoint                                              # the embedded world, on two CPU cores
    python -m sweeps.viewpoint seeds=5                                      # two more seeds for the same cells
    python -m sweeps.viewpoint trainer.accelerator=gpu output=/data/runs    # on a GPU, kept elsewhere

All cells share one adapter a seed. Shapes stand upright in every training image: turned ones are
new to the model.
"""

from sweeps.masks_shared import (
    CENTRE,
    FOUND,
    IDENTITY,
    MASK_IOU,
    OTHERS,
    PUBLISHED,
    STEERED,
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
    baseline={"evaluation.turn": 0.0, "evaluation.mirror": False},
    metrics=[TURN, MASK_IOU, CENTRE, SUCCESS, FOUND, IDENTITY, *OTHERS],
    headline="mask_iou",
    published=PUBLISHED,
    preset=STEERED | {"evaluation.prompts": 20},
)

if __name__ == "__main__":
    from sweeps.run import main

    raise SystemExit(main(SWEEP))
