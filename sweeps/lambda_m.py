"""How strong should the mask-attention loss be?

Run it: ``python -m sweeps.lambda_m``.
"""

from sweeps.presets import MASK_METRICS, MASK_TOKENS, PUBLISHED_MCGM
from sweeps.sweep import Factor, Sweep

SWEEP = Sweep(
    name="lambda_m",
    question="How strong should the mask-attention loss be?",
    origin=(
        "MCGM (arXiv 2410.00483), eq. 3: λm is not given; the released code has 0.3 · 0.01 = 0.003"
    ),
    factors=[Factor("method.masks.lambda_m", [0.0, 0.01, 0.05, 0.1], label="λm")],
    control={"method.masks.lambda_m": 0.05},
    metrics=MASK_METRICS,
    headline="mask_iou",
    preset=MASK_TOKENS,
    published=PUBLISHED_MCGM,
)

if __name__ == "__main__":
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
