"""What do Separate and Enhance each do, and the regulariser?

Run it: ``python -m sweeps.sepen_losses``.

Without either loss the regulariser alone is trained, which must change nothing.
"""

from sweeps.presets import KEY_FINETUNING, KEY_METRICS, PUBLISHED_SEPARATE_ENHANCE
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
    control={
        "method.separate.separate_weight": 1.0,
        "method.separate.enhance_weight": 0.5,
        "method.separate.distillation_weight": 1.0,
    },
    metrics=KEY_METRICS,
    headline="success_heldout",
    preset=KEY_FINETUNING,
    published=PUBLISHED_SEPARATE_ENHANCE,
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
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
