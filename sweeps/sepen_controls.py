"""Is the gain real, or does any change of the same size bring it?

Run it: ``python -m sweeps.sepen_controls``.
"""

from sweeps.presets import KEY_FINETUNING, KEY_METRICS, PUBLISHED_SEPARATE_ENHANCE
from sweeps.sweep import Factor, Sweep

SWEEP = Sweep(
    name="sepen_controls",
    question="Is the gain real, or any change of the same size?",
    origin=(
        "a control of ours: the denoising loss on the same parameters, and the trained "
        "change with its entries permuted"
    ),
    factors=[Factor("method.separate.control", ["none", "denoising", "permuted"], label="Control")],
    control={"method.separate.control": "none"},
    metrics=KEY_METRICS,
    headline="success_heldout",
    preset=KEY_FINETUNING,
    published=PUBLISHED_SEPARATE_ENHANCE,
)

if __name__ == "__main__":
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
