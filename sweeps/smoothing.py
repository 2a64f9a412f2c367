"""How much does the smoothing of the maps matter, which the paper does not specify?

Run it: ``python -m sweeps.smoothing``.
"""

from sweeps.presets import KEY_FINETUNING, KEY_METRICS, PUBLISHED_SEPARATE_ENHANCE
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
    control={"method.separate.kernel": 3, "method.separate.sigma": 0.5},
    metrics=KEY_METRICS,
    headline="success_heldout",
    preset=KEY_FINETUNING,
    published=PUBLISHED_SEPARATE_ENHANCE,
    # A kernel of 1 smoothes nothing, with any sigma
    without=[{"method.separate.kernel": 1, "method.separate.sigma": 1.0}],
    brief="one_factor",
)

if __name__ == "__main__":
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
