"""Is 0.5 the best gate threshold of MaskAttn, and what is the precision-recall trade?

    python -m sweeps.threshold                   # the embedded world, minutes on two CPU cores
    python -m sweeps.threshold seeds=5           # two more seeds for the same cells
    python -m sweeps.threshold method.gate.act_in_training=true    # an adapter for each threshold
    python -m sweeps.threshold output=/data/runs trainer.accelerator=gpu    # on a GPU

Masks teach the gates while they look on: what is trained is the same at each threshold, so that the
cells of a seed share an adapter, and no threshold is favoured.

Another backbone and data set are config values too: backbone=sdxl data=coco data.root=/data/coco
trainer=paper512. What cannot be measured with them is refused in one line before anything runs.
"""

from sweeps.presets import DETAILS, HEADLINES, MASK_SUPERVISED, PUBLISHED_MASKATTN
from sweeps.sweep import Factor, Sweep

SWEEP = Sweep(
    name="threshold",
    question="Is 0.5 the best gate threshold, and what is the precision-recall trade?",
    origin=(
        "MaskAttn-SDXL (arXiv 2509.15357), Eq. 3: the gate is open where sigmoid(f(X, "
        "e_t)) > 0.5; other thresholds were not reported"
    ),
    factors=[Factor("method.gate.threshold", [0.3, 0.4, 0.5, 0.6, 0.7], label="Gate threshold")],
    control={"method.gate.threshold": 0.5},
    metrics=[*HEADLINES, *DETAILS],
    headline="success",
    preset={**MASK_SUPERVISED, "method.gate.act_in_training": False},
    published=PUBLISHED_MASKATTN,
)

if __name__ == "__main__":
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
