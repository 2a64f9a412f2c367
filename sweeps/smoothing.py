"""How much does the smoothing of the maps matter, which the paper does not specify?

python -m sweeps.smoothing                                              # the embedded world, on two CPU cores
python -m sweeps.smoothing seeds=5                                      # two more seeds for the same cells
python -m sweeps.smoothing trainer.accelerator=gpu output=/data/runs    # on a GPU, kept elsewhere
"""

from sweeps.sepen_shared import METRICS, PUBLISHED, SEPEN
from sweeps.sweep import Factor, Sweep

SWEEP = Sweep(
    name="smoothing",
    question="How much does the unspecified smoothing matter?",
    origin=(
        "Separate-and-Enhance (arXiv 2312.06712), L_En: Gaussian smoothing; the released "
        "code has kernel 3 and sigma 0.5"
    ),
    factors=[
        Factor("method.separate.kernel", [1, 3, 5], label="Kernel"),
        Factor("method.separate.sigma", [0.5, 1.0], label="σ"),
    ],
    baseline={"method.separate.kernel": 3, "method.separate.sigma": 0.5},
    metrics=METRICS,
    headline="success_heldout",
    preset=SEPEN,
    published=PUBLISHED,
    # a kernel of 1 smoothes nothing, whatever its sigma
    without=[{"method.separate.kernel": 1, "method.separate.sigma": 1.0}],
    brief="one_factor",
)

if __name__ == "__main__":
    from sweeps.run import main

    raise SystemExit(main(SWEEP))
