"""What does the mask itself bring?

Run it: ``python -m sweeps.mask_vs_blank``.

All cells share one adapter a seed. `wrong` masks lie half a turn about the middle of the image away
from where the measure looks.
"""

from sweeps.presets import MASK_METRICS, MASK_TOKENS, PUBLISHED_MCGM
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
    control={"evaluation.masks": "target"},
    metrics=MASK_METRICS,
    headline="mask_iou",
    preset=MASK_TOKENS,
    published=PUBLISHED_MCGM,
)

if __name__ == "__main__":
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
