"""How strong should the mask-attention loss be?

python -m sweeps.lambda_m                                              # the embedded world, on two CPU cores
python -m sweeps.lambda_m seeds=5                                      # two more seeds for the same cells
python -m sweeps.lambda_m trainer.accelerator=gpu output=/data/runs    # on a GPU, kept elsewhere
"""

from sweeps.masks_shared import PUBLISHED, STEERED, STEERING
from sweeps.sweep import Factor, Sweep

SWEEP = Sweep(
    name="lambda_m",
    question="How strong should the mask-attention loss be?",
    origin=(
        "MCGM (arXiv 2410.00483), eq. 3: λm is not given; the released code has 0.3 · 0.01 = 0.003"
    ),
    factors=[Factor("method.masks.lambda_m", [0.0, 0.01, 0.05, 0.1], label="λm")],
    baseline={"method.masks.lambda_m": 0.05},
    metrics=STEERING,
    headline="mask_iou",
    preset=STEERED,
    published=PUBLISHED,
)

if __name__ == "__main__":
    from sweeps.run import main

    raise SystemExit(main(SWEEP))
