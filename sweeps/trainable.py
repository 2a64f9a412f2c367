"""Is the key map the right thing to train?

python -m sweeps.trainable                                              # the embedded world, on two CPU cores
python -m sweeps.trainable seeds=5                                      # two more seeds for the same cells
python -m sweeps.trainable trainer.accelerator=gpu output=/data/runs    # on a GPU, kept elsewhere
"""

from sweeps.sepen_shared import METRICS, PUBLISHED, SEPEN
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
    baseline={"method.weights.trainable": "k"},
    metrics=METRICS,
    headline="success_heldout",
    preset=SEPEN,
    published=PUBLISHED,
)

if __name__ == "__main__":
    from sweeps.run import main

    raise SystemExit(main(SWEEP))
