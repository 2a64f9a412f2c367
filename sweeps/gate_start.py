"""What do the released code's choices at the start of training cost?

Run it: ``python -m sweeps.gate_start``.

They are bias 0, which starts with half of the gates closed, a gradient that is zero at closed
gates, and no protected token: the cell bias=0.0, gradient=released, protect=none. The
control differs from it in all three.
"""

from sweeps.presets import (
    DETAILS,
    GATES_REOPENED,
    GATES_SHUT,
    HEADLINES,
    MASKATTN,
    PUBLISHED_MASKATTN,
)
from sweeps.sweep import Factor, Sweep

GRADIENTS, PROTECTED = ["released", "exact", "finite_difference"], ["none", "bos", "specials"]

SWEEP = Sweep(
    name="gate_start",
    question="What do the released gate choices cost?",
    origin=(
        "MaskAttn-SDXL (arXiv 2509.15357), released code of v2 (IJCNN 2026): bias 0, -10^4 "
        "(in the paper -∞) on closed logits with a straight-through gradient, every token gated"
    ),
    factors=[
        Factor("method.gate.bias", [0.0, 2.0, 4.0], label="Start bias"),
        Factor("method.gate.gradient", GRADIENTS, label="Gradient"),
        Factor("method.gate.protect", PROTECTED, label="Protected tokens"),
    ],
    control={
        "method.gate.bias": 2.0,
        "method.gate.gradient": "finite_difference",
        "method.gate.protect": "bos",
    },
    metrics=[*HEADLINES, GATES_REOPENED, GATES_SHUT, *DETAILS],
    headline="success",
    published=PUBLISHED_MASKATTN,
    preset=MASKATTN | {"trainer.steps": 30, "evaluation.prompts": 24},
    # Gates that start open stay open with any level of the other two
    brief=[
        (f"bias=0.0, gradient={gradient}, protect={protect}")
        for gradient in GRADIENTS
        for protect in PROTECTED
    ],
)

if __name__ == "__main__":
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
