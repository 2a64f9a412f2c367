"""How many masked subjects work?

    python -m sweeps.subjects                                              # the embedded world, on two CPU cores
    python -m sweeps.subjects seeds=5                                      # two more seeds for the same cells
    python -m sweeps.subjects trainer.accelerator=gpu output=/data/runs    # on a GPU, kept elsewhere

All cells share one adapter a seed. Four subjects are in no training image, and the embedded text
encoder never saw words as far back in a caption as the fourth one's stand: there the last cell says
more about that encoder than about masks.
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
)
from sweeps.sweep import Factor, Sweep

SWEEP = Sweep(
    name="subjects",
    question="How many masked subjects work?",
    origin=(
        "MCGM (arXiv 2410.00483), section 5: more than two masks give wrong positions; "
        "Break-A-Scene: best with at most four concepts"
    ),
    factors=[
        Factor(
            "evaluation.splits",
            [["one"], ["two"], ["three"], ["four"]],
            when="evaluate",
            label="Subjects",
        )
    ],
    baseline={"evaluation.splits": ["two"]},
    metrics=[MASK_IOU, CENTRE, SUCCESS, FOUND, IDENTITY, *OTHERS],
    headline="mask_iou",
    published=PUBLISHED,
    preset=STEERED | {"evaluation.splits": ["two"]},
)

if __name__ == "__main__":
    from sweeps.run import main

    raise SystemExit(main(SWEEP))
