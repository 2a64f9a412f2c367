"""Must the gate act before the softmax of the attention?

    python -m sweeps.injection_point                                              # the embedded world, on two CPU cores
    python -m sweeps.injection_point seeds=5                                      # two more seeds for the same cells
    python -m sweeps.injection_point trainer.accelerator=gpu output=/data/runs    # on a GPU, kept elsewhere

`post_softmax_renormalised` is a control: algebraically it is the rule at the logits, p = G
softmax(l) / sum G softmax(l) = G exp(l) / sum G exp(l), and it is computed by that rule. With the
exact gradient, the default, both cells must give the same numbers in every seed; with
method.gate.gradient=released they differ in the gradient alone.
"""

from sweeps.maskattn_shared import DETAILS, HEADLINES, PUBLISHED, TAUGHT
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
    baseline={"method.gate.apply_at": "logit"},
    metrics=[*HEADLINES, *DETAILS],
    headline="success",
    published=PUBLISHED,
    preset=TAUGHT,
)

if __name__ == "__main__":
    from sweeps.run import main

    raise SystemExit(main(SWEEP))
