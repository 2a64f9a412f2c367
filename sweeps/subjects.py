"""How many masked subjects work?

Run it: ``python -m sweeps.subjects``.

All cells share one adapter a seed.
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
    control={"evaluation.splits": ["two"]},
    metrics=[MASK_IOU, CENTRE, SUCCESS, FOUND, IDENTITY, *IMAGE_QUALITY],
    headline="mask_iou",
    published=PUBLISHED_MCGM,
    preset=MASK_TOKENS | {"evaluation.splits": ["two"]},
)

if __name__ == "__main__":
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
