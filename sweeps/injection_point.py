"""Must the gate act before the softmax of the attention?

Run it: ``python -m sweeps.injection_point``.

`post_softmax_renormalised` is a control: algebraically it is the rule at the logits, p = G
softmax(l) / sum G softmax(l) = G exp(l) / sum G exp(l), and it is computed by that rule. With the
exact gradient, the default, both cells must give the same numbers in every seed; with
method.gate.gradient=released they differ in the gradient alone.
"""

from sweeps.presets import DETAILS, HEADLINES, MASK_SUPERVISED, PUBLISHED_MASKATTN
from sweeps.sweep import Factor, Sweep

SWEEP = Sweep(
    name="injection_point",
    question="Must the mask act before the softmax?",
    origin=(
        "MaskAttn-SDXL (arXiv 2509.15357): Attn = softmax(QK^T/√d + M)V adds the mask M, 0 "
        "or -∞, to the logits"
    ),
    factors=[
        Factor(
            "method.gate.apply_at",
            ["logit", "post_softmax", "post_softmax_renormalised"],
            label="Point of injection",
        )
    ],
    control={"method.gate.apply_at": "logit"},
    metrics=[*HEADLINES, *DETAILS],
    headline="success",
    published=PUBLISHED_MASKATTN,
    preset=MASK_SUPERVISED,
)

if __name__ == "__main__":
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
