"""Is 0.5 the best gate threshold of MaskAttn, and what is the precision-recall trade?

    python -m sweeps.threshold                                # the embedded world, minutes on two CPU cores
    python -m sweeps.threshold seeds=5                        # two more seeds for the same cells
    python -m sweeps.threshold when=evaluate                  # one adapter per seed, trained at 0.5; the threshold changes only in sampling
    python -m sweeps.threshold trainer.accelerator=gpu output=/data/runs        # on a GPU, kept elsewhere

Another backbone and data set are config values too: backbone=sdxl data=coco data.root=/data/coco
trainer=paper512. What cannot be measured with them is refused in one line before anything runs.
"""

from sweeps.maskattn_shared import DETAILS, HEADLINES, PUBLISHED, TAUGHT
from sweeps.sweep import Factor, Sweep

SWEEP = Sweep(
    name="threshold",
    question="Is 0.5 the best gate threshold, and what is the precision-recall trade?",
    origin=(
        "MaskAttn-SDXL (arXiv 2509.15357), Eq. 3: the gate is open where sigmoid(f(X, "
        "e_t)) > 0.5; other thresholds were not reported"
    ),
    factors=[Factor("method.gate.threshold", [0.3, 0.4, 0.5, 0.6, 0.7], label="Gate threshold")],
    baseline={"method.gate.threshold": 0.5},
    metrics=[*HEADLINES, *DETAILS],
    headline="success",
    preset=TAUGHT,
    published=PUBLISHED,
)

if __name__ == "__main__":
    from sweeps.run import main

    raise SystemExit(main(SWEEP))
