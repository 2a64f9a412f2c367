"""What do Separate and Enhance each do, and the regulariser?

    python -m sweeps.sepen_losses                                              # the embedded world, on two CPU cores
    python -m sweeps.sepen_losses seeds=5                                      # two more seeds for the same cells
    python -m sweeps.sepen_losses trainer.accelerator=gpu output=/data/runs    # on a GPU, kept elsewhere

Without either loss the regulariser alone is trained, which must change nothing.
"""

from sweeps.sepen_shared import METRICS, PUBLISHED, SEPEN
from sweeps.sweep import Factor, Sweep

SWEEP = Sweep(
    name="sepen_losses",
    question="What do Separate and Enhance each do?",
    origin=(
        "Separate-and-Enhance (arXiv 2312.06712), ablation: separate alone helps realism, "
        "enhance alone alignment, both together win"
    ),
    factors=[
        Factor("method.separate.separate_weight", [0.0, 1.0], label="Separate"),
        Factor("method.separate.enhance_weight", [0.0, 0.5], label="Enhance"),
        Factor("method.separate.distillation_weight", [0.0, 1.0], label="Regulariser"),
    ],
    baseline={
        "method.separate.separate_weight": 1.0,
        "method.separate.enhance_weight": 0.5,
        "method.separate.distillation_weight": 1.0,
    },
    metrics=METRICS,
    headline="success_heldout",
    preset=SEPEN,
    published=PUBLISHED,
    without=[
        {
            "method.separate.separate_weight": 0.0,
            "method.separate.enhance_weight": 0.0,
            "method.separate.distillation_weight": 0.0,
        }
    ],
    brief="one_factor",
)

if __name__ == "__main__":
    from sweeps.run import main

    raise SystemExit(main(SWEEP))
