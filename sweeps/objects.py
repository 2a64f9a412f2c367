"""Does Separate-and-Enhance hold beyond two objects?

    python -m sweeps.objects                                              # the embedded world, on two CPU cores
    python -m sweeps.objects seeds=5                                      # two more seeds for the same cells
    python -m sweeps.objects trainer.accelerator=gpu output=/data/runs    # on a GPU, kept elsewhere

One adapter a seed is compared with the untouched backbone at each number of objects. Four are in no
training image of the backbone.
"""

from sweeps.masks_shared import OTHERS, SUCCESS
from sweeps.sepen_shared import CHANGE, PUBLISHED, SEPEN
from sweeps.sweep import Factor, Metric, Sweep

SWEEP = Sweep(
    name="objects",
    question="Does it hold beyond two objects?",
    origin=(
        "Separate-and-Enhance (arXiv 2312.06712): claimed for more than two concepts, "
        "shown in pictures"
    ),
    factors=[
        Factor(
            "evaluation.splits",
            [["one"], ["two"], ["three"], ["four"]],
            when="evaluate",
            label="Objects",
        ),
        CHANGE,
    ],
    within="evaluation.splits",
    baseline={CHANGE.key: "none"},
    metrics=[
        SUCCESS,
        Metric("map_overlap", "Overlap of maps", "lower"),
        Metric("map_activation", "Weakest activation", "higher"),
        *OTHERS,
    ],
    headline="success",
    published=PUBLISHED,
    preset=SEPEN | {"evaluation.splits": ["two"]},
)

if __name__ == "__main__":
    from sweeps.run import main

    raise SystemExit(main(SWEEP))
