"""How rich must the head be that looks at a location and a token?

    python -m sweeps.gate_head                                              # the embedded world, on two CPU cores
    python -m sweeps.gate_head seeds=5                                      # two more seeds for the same cells
    python -m sweeps.gate_head trainer.accelerator=gpu output=/data/runs    # on a GPU, kept elsewhere

`mlp` multiplies two projections; the others mix location and token before their last non-linearity,
`conv3x3` with the location's neighbours.
"""

from sweeps.maskattn_shared import DETAILS, HEADLINES, OVERHEAD, PARAMETERS, PUBLISHED, TAUGHT
from sweeps.sweep import Factor, Sweep

SWEEP = Sweep(
    name="gate_head",
    question="How rich must the gate head be?",
    origin=(
        "MaskAttn-SDXL (arXiv 2509.15357): f is a small head of unpublished architecture, in v1 (2025-09) convolutional; "
        "the released code has an MLP of width 128"
    ),
    factors=[
        Factor(
            "method.gate.head", ["mlp", "conv1x1", "conv3x3", "film", "concat"], label="Gate head"
        ),
        Factor("method.gate.width", [32, 128, 256], label="Width"),
    ],
    baseline={"method.gate.head": "mlp", "method.gate.width": 128},
    metrics=[*HEADLINES, PARAMETERS, OVERHEAD, *DETAILS],
    headline="success",
    published=PUBLISHED,
    preset=TAUGHT,
    brief="one_factor",
)

if __name__ == "__main__":
    from sweeps.run import main

    raise SystemExit(main(SWEEP))
