"""How rich must the head be that looks at a location and a token?

Run it: ``python -m sweeps.gate_head``.

`mlp` multiplies two projections; the others mix location and token before their last non-linearity,
`conv3x3` with the location's neighbours.
"""

from sweeps.presets import (
    DETAILS,
    HEADLINES,
    MASK_SUPERVISED,
    OVERHEAD,
    PARAMETERS,
    PUBLISHED_MASKATTN,
)
from sweeps.sweep import Factor, Sweep

SWEEP = Sweep(
    name="gate_head",
    question="How rich must the gate head be?",
    origin=(
        "MaskAttn-SDXL (arXiv 2509.15357): f is a small head of unpublished architecture, "
        "in v1 (2025-09) convolutional; the released code has an MLP of width 128"
    ),
    factors=[
        Factor(
            "method.gate.head", ["mlp", "conv1x1", "conv3x3", "film", "concat"], label="Gate head"
        ),
        Factor("method.gate.width", [32, 128, 256], label="Width"),
    ],
    control={"method.gate.head": "mlp", "method.gate.width": 128},
    metrics=[*HEADLINES, PARAMETERS, OVERHEAD, *DETAILS],
    headline="success",
    published=PUBLISHED_MASKATTN,
    preset=MASK_SUPERVISED,
    brief="one_factor",
)

if __name__ == "__main__":
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
