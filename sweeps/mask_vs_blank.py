"""What does the mask itself bring?

    python -m sweeps.mask_vs_blank                                              # the embedded world, on two CPU cores
    python -m sweeps.mask_vs_blank seeds=5                                      # two more seeds for the same cells
    python -m sweeps.mask_vs_blank trainer.accelerator=gpu output=/data/runs    # on a GPU, kept elsewhere

All cells share one adapter a seed. `wrong` masks lie half a turn about the middle of the image away
from where the measure looks.
"""

from sweeps.masks_shared import PUBLISHED, STEERED, STEERING
from sweeps.sweep import Factor, Sweep

SWEEP = Sweep(
    name="mask_vs_blank",
    question="What does the mask itself bring?",
    origin="MCGM (arXiv 2410.00483), section 4.2: coherent against blank mask, shown in pictures",
    factors=[
        Factor(
            "evaluation.masks",
            ["target", "blank", "none", "wrong"],
            when="evaluate",
            label="Masks given",
        )
    ],
    baseline={"evaluation.masks": "target"},
    metrics=STEERING,
    headline="mask_iou",
    preset=STEERED,
    published=PUBLISHED,
)

if __name__ == "__main__":
    from sweeps.run import main

    raise SystemExit(main(SWEEP))
