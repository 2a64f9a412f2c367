"""Does what was learnt carry to concepts that it was not trained on?

Run it: ``python -m sweeps.generalisation``.

Seen and held-out prompts are two metrics: the combinations that the backbone has seen, and those it
has not.
"""

from sweeps.presets import KEY_FINETUNING, KEY_METRICS, PUBLISHED_LARGE_SCALE
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
            label="Concepts instead of captions",
        )
    ],
    control={"data.concepts": []},
    metrics=KEY_METRICS,
    headline="success_heldout",
    preset=KEY_FINETUNING,
    published=PUBLISHED_LARGE_SCALE,
)

if __name__ == "__main__":
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
