"""Is the gain real, or does any change of the same size bring it?

python -m sweeps.sepen_controls                                              # the embedded world, on two CPU cores
python -m sweeps.sepen_controls seeds=5                                      # two more seeds for the same cells
python -m sweeps.sepen_controls trainer.accelerator=gpu output=/data/runs    # on a GPU, kept elsewhere
"""

from sweeps.sepen_shared import METRICS, PUBLISHED, SEPEN
from sweeps.sweep import Factor, Sweep

SWEEP = Sweep(
    name="sepen_controls",
    question="Is the gain real, or any change of the same size?",
    origin=(
        "a control of ours: the denoising loss on the same parameters, and the trained "
        "change with its entries permuted"
    ),
    factors=[Factor("method.separate.control", ["none", "denoising", "permuted"], label="Control")],
    baseline={"method.separate.control": "none"},
    metrics=METRICS,
    headline="success_heldout",
    preset=SEPEN,
    published=PUBLISHED,
)

if __name__ == "__main__":
    from sweeps.run import main

    raise SystemExit(main(SWEEP))
