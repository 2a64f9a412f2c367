"""What makes the mask steer?

Run it: ``python -m sweeps.mask_training``.
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
    name="mask_training",
    question="What makes the mask steer?",
    origin="MCGM (arXiv 2410.00483): neither timesteps nor the trained part nor λm are given",
    factors=[
        Factor("trainer.timesteps", ["uniform", "high_noise"], label="Timesteps"),
        Factor("method.weights.trainable", ["kv", "attn2"], label="Trained part"),
        Factor("method.masks.lambda_m", [0.1, 0.3, 1.0], label="λm"),
    ],
    control={
        "trainer.timesteps": "high_noise",
        "method.weights.trainable": "attn2",
        "method.masks.lambda_m": 0.1,
    },
    metrics=[MASK_IOU, MASK_IOU_HELDOUT, CENTRE, SUCCESS, SUCCESS_HELDOUT, *IMAGE_QUALITY],
    headline="mask_iou",
    published=PUBLISHED_MCGM,
    preset=MASK_TOKENS | {"trainer.steps": 60},
    brief="one_factor",
)

if __name__ == "__main__":
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
