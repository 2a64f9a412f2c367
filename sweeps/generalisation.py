"""Does what was learnt carry to concepts that it was not trained on?

    python -m sweeps.generalisation                                              # the embedded world, on two CPU cores
    python -m sweeps.generalisation seeds=5                                      # two more seeds for the same cells
    python -m sweeps.generalisation trainer.accelerator=gpu output=/data/runs    # on a GPU, kept elsewhere

Seen and held-out prompts are two metrics: the combinations that the backbone has seen, and those it
has not.
"""

from sweeps.sepen_shared import METRICS, PUBLISHED_LARGE, SEPEN
from sweeps.sweep import Factor, Sweep

SWEEP = Sweep(
    name="generalisation",
    question="Does it carry to unseen concepts?",
    origin=(
        "Separate-and-Enhance (arXiv 2312.06712), large-scale table: success .299 "
        "seen-seen, .305 seen-unseen, .294 unseen-unseen"
    ),
    factors=[
        Factor(
            "data.concepts",
            [[], ["yellow square", "cyan ring"]],
            label="Concepts in the place of captions",
        )
    ],
    baseline={"data.concepts": []},
    metrics=METRICS,
    headline="success_heldout",
    preset=SEPEN,
    published=PUBLISHED_LARGE,
)

if __name__ == "__main__":
    from sweeps.run import main

    raise SystemExit(main(SWEEP))
