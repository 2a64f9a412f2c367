"""Is the key map the right thing to train?

Run it: ``python -m sweeps.trainable``.
"""

from sweeps.presets import KEY_FINETUNING, KEY_METRICS, PUBLISHED_SEPARATE_ENHANCE
from sweeps.sweep import Factor, Sweep

SWEEP = Sweep(
    name="trainable",
    question="Is the key map the right thing to train?",
    origin=(
        "Separate-and-Enhance (arXiv 2312.06712), pilot and ablation: k is most sensitive, "
        "v destroys the model, q does nothing"
    ),
    factors=[
        Factor(
            "method.weights.trainable",
            ["q", "k", "v", "kv", "attn2", "model"],
            label="Trained part",
        )
    ],
    control={"method.weights.trainable": "k"},
    metrics=KEY_METRICS,
    headline="success_heldout",
    preset=KEY_FINETUNING,
    published=PUBLISHED_SEPARATE_ENHANCE,
)

if __name__ == "__main__":
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
