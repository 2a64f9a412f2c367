"""What makes the mask steer?

python -m sweeps.mask_training                                              # the embedded world, on two CPU cores
python -m sweeps.mask_training seeds=5                                      # two more seeds for the same cells
python -m sweeps.mask_training trainer.accelerator=gpu output=/data/runs    # on a GPU, kept elsewhere
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
    name="mask_training",
    question="What makes the mask steer?",
    origin="MCGM (arXiv 2410.00483): neither timesteps nor the trained part nor λm are given",
    factors=[
        Factor("method.masks.timesteps", ["all", "noisier"], label="Timesteps"),
        Factor("method.weights.trainable", ["kv", "attn2"], label="Trained part"),
        Factor("method.masks.lambda_m", [0.1, 0.3, 1.0], label="λm"),
    ],
    baseline={
        "method.masks.timesteps": "noisier",
        "method.weights.trainable": "attn2",
        "method.masks.lambda_m": 0.1,
    },
    metrics=[MASK_IOU, MASK_IOU_HELDOUT, CENTRE, SUCCESS, SUCCESS_HELDOUT, *OTHERS],
    headline="mask_iou",
    published=PUBLISHED,
    preset=STEERED | {"trainer.steps": 60},
    brief="one_factor",
)

if __name__ == "__main__":
    from sweeps.run import main

    raise SystemExit(main(SWEEP))
